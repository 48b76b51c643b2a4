//! Drives [`Mark`] with statements, one after the other on one connection of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::gap::{self, GapPolicy};
use super::{EventTable, TypeNames};
use crate::error::{Error, ErrorKind, Result};
use crate::mark::{Advance, Mark, Seen};
use crate::pg::database::Short;
use crate::pg::{self, Parameter, column};
use crate::position::{Position, Range};
use crate::source::{BoxFuture, Follower, OpenGap, Step};

/// Rows that one read returns at most: bounds the memory of a step.
const ROWS_MAX: i64 = 10_000;
/// A look costs a saturated server up to 5 ms: at most 50 a second, and ever fewer.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Rows are cheaper: a gap that a commit fills is seen by the next read.
const READ_PAUSE_MIN: Duration = Duration::from_millis(2);
const READ_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often an idle follower makes sure that the positions did not go back.
const SEQUENCE_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct TableFollower {
    client: Short,
    table: EventTable,
    new_sql: String,
    mark: Mark,
    head: Position,
    types: TypeNames,
    gap: Option<OpenGap>,
    /// The sequence that the first look found.
    sequence: Option<String>,
    last_look: Option<Instant>,
    last_sequence_check: Instant,
}

struct Rows {
    positions: Vec<Position>,
    types: Vec<Arc<str>>,
    more: bool,
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
        let follower = TableFollower {
            client,
            table: table.clone(),
            new_sql: include_str!("../../../sql/queries/source/new.sql")
                .replace("{events}", &table.relation),
            mark,
            head: head.max(floor),
            types: TypeNames::default(),
            gap: None,
            sequence: look.sequence,
            last_look: None,
            last_sequence_check: Instant::now(),
        };
        follower.check_not_back().await?;
        Ok(follower)
    }

    async fn advance(&mut self) -> Result<Step> {
        let rows = self.read_rows().await?;
        let last = rows.positions.last().copied();
        self.head = self.head.max(last.unwrap_or_default());
        if self.table.gap == GapPolicy::Dense {
            // Without holders every look proves what was seen, so the mark may go there at once.
            if let Some(seen) = last.and_then(|last| self.mark.head_read(last)) {
                self.mark.looked(seen, &[]);
            }
        }
        let Advance {
            passed,
            rows_cover_it,
            open,
        } = self.mark.rows_read(&rows.positions, rows.more);
        self.gap = open.is_some().then(|| self.gap_in(&rows));
        let proven = match open {
            Some(seen) => self.look(seen).await?,
            None => false,
        };
        if last.is_none() && self.last_sequence_check.elapsed() >= SEQUENCE_PAUSE {
            self.check_not_back().await?;
            self.last_sequence_check = Instant::now();
        }
        Ok(Step {
            mark: self.mark.position(),
            head: self.head,
            passed,
            types: rows_cover_it.then(|| types_in(&rows, passed)),
            gap: self.gap.clone(),
            again: self.again(proven || (rows.more && !passed.is_empty())),
        })
    }

    async fn read_rows(&mut self) -> Result<Rows> {
        let after = self.mark.position().get();
        let parameters: [(&Parameter<'_>, Type); 2] =
            [(&after, Type::INT8), (&ROWS_MAX, Type::INT8)];
        let rows = match self.client.query_typed(&self.new_sql, &parameters).await {
            Ok(rows) => rows,
            Err(e) => {
                let error = pg::error("cannot read new events", e);
                return Err(gap::why(&self.client, &self.table, error).await);
            }
        };
        let mut read = Rows {
            positions: Vec::with_capacity(rows.len()),
            types: Vec::with_capacity(rows.len()),
            more: rows.len() as i64 == ROWS_MAX,
        };
        for row in &rows {
            read.positions.push(Position::new(column(row, 0)?));
            read.types.push(self.types.intern(column(row, 1)?));
        }
        Ok(read)
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
        let proven = self.mark.looked(seen, &look.holders);
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
        let mark = self.mark.position();
        if last >= mark {
            return Ok(());
        }
        let what = format!(
            "the sequence of {} stands at {last}, below the mark {mark}: positions went back",
            self.table.relation
        );
        Err(Error::new(ErrorKind::Diverged, what).hint(
            "the table was truncated or restored, or its sequence was set; put the events or the \
             sequence back, or rebuild the projections that read it",
        ))
    }
}

/// The types that occur in `passed`.
fn types_in(rows: &Rows, passed: Range) -> Vec<Arc<str>> {
    let rows = rows.positions.iter().zip(&rows.types);
    let passed = rows.filter(|(position, _)| passed.contains(**position));
    let found: HashSet<&Arc<str>> = passed.map(|(_, event_type)| event_type).collect();
    found.into_iter().cloned().collect()
}

impl Follower for TableFollower {
    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.advance())
    }
}
