//! Drives [`Mark`] with statements, one after the other on one connection of its own.

use std::time::{Duration, Instant};

use super::EventTable;
use super::gap::{self, GapPolicy};
use super::locks::LockWatch;
use super::rows::{RowReader, Rows};
use crate::error::Result;
use crate::mark::{Mark, MarkAdvance, UnprovenPosition};
use crate::mutation;
use crate::pg::database::Short;
use crate::position::{Position, Range};
use crate::source::{BoxFuture, Follower, OpenGap, Step, pacing};

pub(super) struct TableFollower {
    client: Short,
    policy: GapPolicy,
    mark: Mark,
    head: Position,
    gap: Option<OpenGap>,
    rows: RowReader,
    locks: LockWatch,
}

impl TableFollower {
    /// The start rule: the head is read, then its holders; until they are gone the mark follows
    /// without a hole from `proven`.
    pub(super) async fn start(
        client: Short,
        table: &EventTable,
        proven: Position,
    ) -> Result<TableFollower> {
        let head = match client.within(super::head(&client, table)).await {
            Ok(head) => head,
            Err(error) => return Err(gap::why(&client, table, error).await),
        };
        // Also if nothing is above `proven`: the snapshot checks the preconditions.
        let snapshot = gap::snapshot(&client, &table.relation, &table.gap).await?;
        let mut mark = Mark::new(proven);
        if let Some(seen) = mark.head_read(head) {
            mark.locks_read(seen, &snapshot.holders);
        }
        let rows = RowReader::start(&client, table, proven).await?;
        let mut locks = LockWatch::new(table, snapshot);
        locks.check_not_back(&client, mark.position(), None).await?;
        Ok(TableFollower {
            client,
            policy: table.gap.clone(),
            mark,
            head: head.max(proven),
            gap: None,
            rows,
            locks,
        })
    }

    async fn advance(&mut self) -> Result<Step> {
        let is_due = self.locks.is_sequence_due();
        let sequence = self.locks.sequence().filter(|_| is_due);
        let mark = self.mark.position();
        let rows = self.rows.read(&self.client, mark, sequence).await?;
        self.head = self.head.max(rows.last().unwrap_or_default());
        if self.policy == GapPolicy::Dense || mutation::on("mark.locks_not_read") {
            // Without holders every snapshot proves the rows that were seen, so the mark may move
            // there at once.
            if let Some(seen) = rows.last().and_then(|last| self.mark.head_read(last)) {
                self.mark.locks_read(seen, &[]);
            }
        }
        let MarkAdvance {
            mut passed,
            rows_cover_it,
            open,
        } = self.mark.rows_read(&rows.positions, rows.more);
        let held = self
            .rows
            .hold_on(&self.client, &rows, passed, rows_cover_it);
        held.await?;
        self.gap = open.is_some().then(|| self.gap_in(&rows));
        let proven = match open {
            Some(seen) => self.prove(seen, passed.width()).await?,
            None => false,
        };
        if proven && mutation::on("mark.rows_read_once") {
            let again = self.mark.rows_read(&rows.positions, rows.more);
            passed = Range::new(passed.after(), again.passed.through());
        }
        if is_due {
            let (mark, sequence_at) = (self.mark.position(), rows.sequence);
            self.locks
                .check_not_back(&self.client, mark, sequence_at)
                .await?;
        }
        let at_once = proven || (rows.more && !passed.is_empty());
        Ok(Step {
            mark: self.mark.position(),
            head: self.head,
            passed,
            occurred: rows_cover_it.then(|| rows.summary(passed)),
            gap: self.gap.clone(),
            again: pacing::follower_poll(at_once, self.gap.as_ref().map(OpenGap::age)),
        })
    }

    /// Reads the locks if it is time; returns whether something is proven now.
    async fn prove(&mut self, seen: UnprovenPosition, positions: u64) -> Result<bool> {
        let gap_age = self.gap.as_ref().map_or(Duration::ZERO, OpenGap::age);
        let holders = self.locks.holders(&self.client, positions, gap_age).await?;
        let Some(holders) = holders else {
            return Ok(false);
        };
        let proven = self.mark.locks_read(seen, &holders);
        let blocked_by = self.mark.blocked_by();
        if let Some(gap) = &mut self.gap {
            gap.blocked_by = blocked_by;
        }
        Ok(proven)
    }

    fn gap_in(&self, rows: &Rows) -> OpenGap {
        let from = self.mark.position().next();
        let before = self.gap.as_ref().filter(|gap| gap.from == from);
        OpenGap {
            from,
            to: rows.first_from(from).map_or(from, Position::previous),
            since: before.map_or_else(Instant::now, |gap| gap.since),
            blocked_by: before.map_or_else(Vec::new, |gap| gap.blocked_by.clone()),
        }
    }
}

impl Follower for TableFollower {
    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.advance())
    }

    fn until_durable(&mut self) {
        self.rows.until_durable();
    }
}
