//! Reads the rows after the mark, each time from the last event that the mark has passed.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::last_passed::LastPassed;
use super::{EventTable, TypeNames, durable, gap};
use crate::error::Result;
use crate::pg::sql::{Sql, query, sql};
use crate::pg::{self, Parameter, column};
use crate::position::{Position, Range};
use crate::source::RangeSummary;

/// Rows that one read returns at most: bounds the memory of a step.
const ROWS_MAX: i64 = 10_000;
/// The same for the first read: without a holder the mark then moves to the head at once, and
/// runners read a backlog themselves.
const FIRST_ROWS_MAX: i64 = 1_000;

pub(super) struct RowReader {
    table: EventTable,
    types: TypeNames,
    last_passed: LastPassed,
    /// Nothing was read yet.
    is_first: bool,
    /// Whether an event counts only when its commit is on disk.
    durable: bool,
}

/// The rows of one read.
pub(super) struct Rows {
    pub(super) positions: Vec<Position>,
    ids: Vec<Uuid>,
    types: Vec<Arc<str>>,
    /// There may be more of them.
    pub(super) more: bool,
    /// The last number of the sequence, if it was requested and this role may read it.
    pub(super) sequence: Option<Position>,
}

impl RowReader {
    pub(super) async fn start(
        client: &Client,
        table: &EventTable,
        proven: Position,
    ) -> Result<RowReader> {
        Ok(RowReader {
            table: table.clone(),
            types: TypeNames::default(),
            last_passed: LastPassed::at(client, table, proven).await?,
            is_first: true,
            durable: false,
        })
    }

    pub(super) fn until_durable(&mut self) {
        self.durable = true;
    }

    /// With `sequence`, also how far that one is: at idle it costs no statement of its own.
    pub(super) async fn read(
        &mut self,
        client: &Client,
        mark: Position,
        sequence: Option<&str>,
    ) -> Result<Rows> {
        let rows = self.new_rows(client, sequence).await?;
        let mut read = Rows {
            positions: Vec::with_capacity(rows.len()),
            ids: Vec::with_capacity(rows.len()),
            types: Vec::with_capacity(rows.len()),
            more: rows.len() as i64 == self.rows_max(),
            sequence: None,
        };
        self.is_first = false;
        if let (Some(row), Some(_)) = (rows.first(), sequence) {
            read.sequence = column::<Option<i64>>(row, row.len() - 1)?.map(Position::new);
        }
        let mut known = Vec::new();
        for row in &rows {
            let (position, id) = (Position::new(column(row, 0)?), column(row, 2)?);
            if position <= mark {
                known.push((position, id));
                continue;
            }
            read.positions.push(position);
            read.ids.push(id);
            read.types.push(self.types.intern(column(row, 1)?));
        }
        if !self.last_passed.is(&known) {
            self.last_passed = self
                .last_passed
                .again(client, &self.table, mark, &known)
                .await?;
        }
        Ok(read)
    }

    /// What the mark has passed counts: from now on the last event of it must stay where it is.
    pub(super) async fn hold_on(
        &mut self,
        client: &Client,
        rows: &Rows,
        passed: Range,
        rows_cover_it: bool,
    ) -> Result<()> {
        if passed.is_empty() {
            return Ok(());
        }
        if self.durable {
            durable::wait(client).await?;
        }
        if !rows_cover_it {
            self.last_passed = LastPassed::at(client, &self.table, passed.through()).await?;
            return Ok(());
        }
        if let Some(last) = rows.last_through(passed.through()) {
            self.last_passed = LastPassed::of(Some(last));
        }
        Ok(())
    }

    async fn new_rows(&self, client: &Client, sequence: Option<&str>) -> Result<Vec<Row>> {
        let parameters: [(&Parameter<'_>, Type); 3] = [
            (&self.last_passed.from().get(), Type::INT8),
            (&self.rows_max(), Type::INT8),
            (&sequence, Type::TEXT),
        ];
        let parameters = match sequence {
            Some(_) => &parameters[..],
            None => &parameters[..2],
        };
        let sql = self.new_sql(sequence.is_some())?;
        match client.query_typed(&sql, parameters).await {
            Ok(rows) => Ok(rows),
            Err(e) => {
                let error = pg::error("cannot read new events", e);
                Err(gap::why(client, &self.table, error).await)
            }
        }
    }

    fn rows_max(&self) -> i64 {
        match self.is_first {
            true => FIRST_ROWS_MAX,
            false => ROWS_MAX,
        }
    }

    fn new_sql(&self, tells_sequence: bool) -> Result<Sql> {
        let last_value = match tells_sequence {
            true => {
                let value = query!("mark/sequence_value.sql");
                let value = value.fill(&[("sequence", &Sql::trusted("$3"))])?;
                sql!("(\n{value}\n)", value = value)
            }
            false => Sql::trusted("null::bigint"),
        };
        query!("source/new.sql")
            .fill(&[("events", &self.table.sql()?), ("last_value", &last_value)])
    }
}

impl Rows {
    pub(super) fn last(&self) -> Option<Position> {
        self.positions.last().copied()
    }

    /// The first position from `from` on.
    pub(super) fn first_from(&self, from: Position) -> Option<Position> {
        self.positions.iter().copied().find(|&row| row >= from)
    }

    /// The last event up to `through`.
    fn last_through(&self, through: Position) -> Option<(Position, Uuid)> {
        let mut events = self.positions.iter().copied().zip(self.ids.iter().copied());
        events.rfind(|(position, _)| *position <= through)
    }

    /// What occurs in a range that they cover.
    pub(super) fn summary(&self, range: Range) -> RangeSummary {
        let mut summary = RangeSummary::default();
        let rows = self.positions.iter().zip(&self.ids).zip(&self.types);
        for ((&position, &id), event_type) in rows {
            if range.contains(position) {
                summary.push(position, id, event_type.clone());
            }
        }
        summary
    }
}
