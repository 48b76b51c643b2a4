//! Drives [`Mark`] with statements, one after the other on one connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::anchor::{self, Anchor};
use super::durable;
use super::gap::{self, GapPolicy};
use super::{EventTable, TypeNames};
use crate::error::{Error, ErrorKind, Result};
use crate::mark::{Advance, Holder, Mark, Seen};
use crate::mutation::{self, Stale};
use crate::pg::database::Short;
use crate::pg::sql::{Sql, query, sql};
use crate::pg::{self, Parameter, column};
use crate::position::{Position, Range};
use crate::source::{BUSY_FROM, BoxFuture, Follower, Occurred, OpenGap, Step};

/// Rows that one read returns at most: bounds the memory of a step.
const ROWS_MAX: i64 = 10_000;
/// The same of the first read: where nobody holds it back the mark then goes to the head at once, and
/// runners read a backlog themselves.
const FIRST_ROWS_MAX: i64 = 1_000;
/// A look costs a saturated server up to 5 ms: at most 50 a second, and ever fewer.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Rows are cheaper: a gap that a commit fills is seen by the next read.
const READ_PAUSE_MIN: Duration = Duration::from_millis(2);
const READ_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often a follower makes sure that the positions did not go back.
const SEQUENCE_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct TableFollower {
    client: Short,
    table: EventTable,
    /// No step was made yet.
    is_first: bool,
    mark: Mark,
    head: Position,
    types: TypeNames,
    gap: Option<OpenGap>,
    anchor: Anchor,
    /// Whether an event counts only when its commit is on disk.
    durable: bool,
    /// The sequence that the first look found.
    sequence: Option<String>,
    last_look: Option<Instant>,
    last_sequence_check: Instant,
    holders: Stale<Vec<Holder>>,
}

struct Rows {
    positions: Vec<Position>,
    ids: Vec<Uuid>,
    types: Vec<Arc<str>>,
    more: bool,
    /// How far the sequence was, if that was asked for and could be told.
    sequence: Option<Position>,
}

impl TableFollower {
    /// The start rule: the head is read, then its holders are looked at; until they are gone the
    /// mark follows without a hole from `floor`.
    pub(super) async fn start(
        client: Short,
        table: &EventTable,
        floor: Position,
    ) -> Result<TableFollower> {
        let head = match client.within(super::head(&client, table)).await {
            Ok(head) => head,
            Err(error) => return Err(gap::why(&client, table, error).await),
        };
        // Also where nothing is above the floor: the look checks the preconditions.
        let look = gap::look(&client, &table.relation, &table.gap).await?;
        let mut mark = Mark::new(floor);
        if let Some(seen) = mark.head_read(head) {
            mark.looked(seen, &look.holders);
        }
        let anchor = Anchor::at(&client, table, floor).await?;
        let follower = TableFollower {
            client,
            table: table.clone(),
            is_first: true,
            mark,
            head: head.max(floor),
            types: TypeNames::default(),
            gap: None,
            anchor,
            durable: false,
            sequence: look.sequence,
            last_look: None,
            holders: Stale::new("mark.locks_before_rows", &look.holders),
            last_sequence_check: Instant::now(),
        };
        follower.check_not_back().await?;
        Ok(follower)
    }

    async fn advance(&mut self) -> Result<Step> {
        let is_due = self.last_sequence_check.elapsed() >= SEQUENCE_PAUSE;
        let rows = match self.sequence.clone() {
            Some(sequence) if is_due => self.read_rows(Some(&sequence)).await?,
            _ => self.read_rows(None).await?,
        };
        let last = rows.positions.last().copied();
        self.head = self.head.max(last.unwrap_or_default());
        if self.table.gap == GapPolicy::Dense || mutation::on("mark.no_look") {
            // Without holders every look proves what was seen, so the mark may go there at once.
            if let Some(seen) = last.and_then(|last| self.mark.head_read(last)) {
                self.mark.looked(seen, &[]);
            }
        }
        let Advance {
            mut passed,
            rows_cover_it,
            open,
        } = self.mark.rows_read(&rows.positions, rows.more);
        self.hold_on(&rows, passed, rows_cover_it).await?;
        self.gap = open.is_some().then(|| self.gap_in(&rows));
        let proven = match open {
            // Most likely a commit that is on its way, among many: the next read tells for less.
            Some(_) if passed.width() >= BUSY_FROM => false,
            Some(seen) => self.look(seen).await?,
            None => false,
        };
        if proven && mutation::on("mark.no_second_read") {
            let again = self.mark.rows_read(&rows.positions, rows.more);
            passed = Range::new(passed.after(), again.passed.through());
        }
        if is_due {
            match rows.sequence {
                Some(sequence) => self.not_back(sequence)?,
                None => self.check_not_back().await?,
            }
            self.last_sequence_check = Instant::now();
        }
        self.is_first = false;
        Ok(Step {
            mark: self.mark.position(),
            head: self.head,
            passed,
            occurred: rows_cover_it.then(|| occurred_in(&rows, passed)),
            gap: self.gap.clone(),
            again: self.again(proven || (rows.more && !passed.is_empty())),
        })
    }

    /// What the mark has passed counts: from now on the last event of it must stay where it is.
    async fn hold_on(&mut self, rows: &Rows, passed: Range, rows_cover_it: bool) -> Result<()> {
        if passed.is_empty() {
            return Ok(());
        }
        if self.durable {
            durable::wait(&self.client).await?;
        }
        if !rows_cover_it {
            self.anchor = Anchor::at(&self.client, &self.table, passed.through()).await?;
            return Ok(());
        }
        let mut events = rows.positions.iter().zip(&rows.ids);
        let last = events.rfind(|(position, _)| **position <= passed.through());
        if let Some((&position, &id)) = last {
            self.anchor = Anchor::of(Some((position, id)));
        }
        Ok(())
    }

    /// With `sequence`, also how far that one is: at idle it costs no statement of its own.
    async fn read_rows(&mut self, sequence: Option<&str>) -> Result<Rows> {
        let mark = self.mark.position();
        let rows = self.new_rows(sequence).await?;
        let mut read = Rows {
            positions: Vec::with_capacity(rows.len()),
            ids: Vec::with_capacity(rows.len()),
            types: Vec::with_capacity(rows.len()),
            more: rows.len() as i64 == self.rows_max(),
            sequence: None,
        };
        if let (Some(row), Some(_)) = (rows.first(), sequence) {
            read.sequence = column::<Option<i64>>(row, 3)?.map(Position::new);
        }
        let mut passed = Vec::new();
        for row in &rows {
            let (position, id) = (Position::new(column(row, 0)?), column(row, 2)?);
            if position <= mark {
                passed.push((position, id));
                continue;
            }
            read.positions.push(position);
            read.ids.push(id);
            read.types.push(self.types.intern(column(row, 1)?));
        }
        if !self.anchor.is(&passed) {
            let again = self.anchor.again(&self.client, &self.table, mark, &passed);
            self.anchor = again.await?;
        }
        Ok(read)
    }

    async fn new_rows(&self, sequence: Option<&str>) -> Result<Vec<Row>> {
        let parameters: [(&Parameter<'_>, Type); 3] = [
            (&self.anchor.from().get(), Type::INT8),
            (&self.rows_max(), Type::INT8),
            (&sequence, Type::TEXT),
        ];
        let parameters = match sequence {
            Some(_) => &parameters[..],
            None => &parameters[..2],
        };
        let sql = self.new_sql(sequence.is_some())?;
        match self.client.query_typed(&sql, parameters).await {
            Ok(rows) => Ok(rows),
            Err(e) => {
                let error = pg::error("cannot read new events", e);
                Err(gap::why(&self.client, &self.table, error).await)
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

    /// Looks at the locks if it is time to; says whether something is proven now.
    async fn look(&mut self, seen: Seen) -> Result<bool> {
        let now = Instant::now();
        let pause = (self.gap_age(now) / 4).clamp(LOOK_PAUSE_MIN, LOOK_PAUSE_MAX);
        if self.last_look.is_some_and(|last| now - last < pause) {
            return Ok(false);
        }
        self.last_look = Some(now);
        let look = gap::look(&self.client, &self.table.relation, &self.table.gap).await?;
        if look.sequence != self.sequence {
            return Err(gap::other_sequence(&self.table.relation, look.sequence));
        }
        let holders = self.holders.instead_of(look.holders);
        let proven = self.mark.looked(seen, &holders);
        let held_by = self.mark.held_by();
        if let Some(gap) = &mut self.gap {
            gap.held_by = held_by;
        }
        Ok(proven)
    }

    fn gap_age(&self, now: Instant) -> Duration {
        let since = self.gap.as_ref().map(|gap| gap.since);
        since.map_or(Duration::ZERO, |since| now - since)
    }

    fn gap_in(&self, rows: &Rows) -> OpenGap {
        let from = self.mark.position().next();
        let beyond = rows.positions.iter().find(|&&row| row >= from);
        let before = self.gap.as_ref().filter(|gap| gap.from == from);
        OpenGap {
            from,
            to: beyond.map_or(from, |row| row.previous()),
            since: before.map_or_else(Instant::now, |gap| gap.since),
            held_by: before.map_or_else(Vec::new, |gap| gap.held_by.clone()),
        }
    }

    fn again(&self, at_once: bool) -> Option<Duration> {
        if at_once {
            return Some(Duration::ZERO);
        }
        self.gap.as_ref()?;
        let age = self.gap_age(Instant::now());
        Some((age / 8).clamp(READ_PAUSE_MIN, READ_PAUSE_MAX))
    }

    /// Positions that went back (TRUNCATE … RESTART IDENTITY, setval) would come again below the
    /// mark.
    async fn check_not_back(&self) -> Result<()> {
        let Some(sequence) = &self.sequence else {
            return Ok(());
        };
        let last = gap::last_value(&self.client, &self.table.relation, sequence).await?;
        self.not_back(last)
    }

    fn not_back(&self, last: Position) -> Result<()> {
        let mark = self.mark.position();
        if last >= mark {
            return Ok(());
        }
        let what = format!(
            "the sequence of {} stands at {last}, below the mark {mark}: positions went back",
            self.table.relation
        );
        Err(Error::new(ErrorKind::Diverged, what).with_hint(anchor::HINT))
    }
}

/// What occurs in `passed`.
fn occurred_in(rows: &Rows, passed: Range) -> Occurred {
    let mut occurred = Occurred::default();
    let rows = rows.positions.iter().zip(&rows.ids).zip(&rows.types);
    for ((&position, &id), event_type) in rows {
        if passed.contains(position) {
            occurred.push(position, id, event_type.clone());
        }
    }
    occurred
}

impl Follower for TableFollower {
    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.advance())
    }

    fn until_durable(&mut self) {
        self.durable = true;
    }
}
