//! Watches the basis of the mark's proof: the locks of transactions that may fill a gap, and the
//! sequence.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::EventTable;
use super::gap::{self, LockSnapshot};
use super::last_passed;
use crate::error::{Error, ErrorKind, Result};
use crate::mark::Holder;
use crate::mutation::PreviousState;
use crate::position::Position;
use crate::source::pacing;

pub(super) struct LockWatch {
    table: EventTable,
    /// The sequence that the first snapshot found.
    sequence: Option<String>,
    last_snapshot: Option<Instant>,
    last_sequence_check: Instant,
    holders: PreviousState<Vec<Holder>>,
}

impl LockWatch {
    /// `first` is the snapshot that was taken at the start.
    pub(super) fn new(table: &EventTable, first: LockSnapshot) -> LockWatch {
        LockWatch {
            table: table.clone(),
            sequence: first.sequence,
            last_snapshot: None,
            last_sequence_check: Instant::now(),
            holders: PreviousState::new("mark.locks_before_rows", &first.holders),
        }
    }

    /// Who holds the locks, if it is time to ask.
    pub(super) async fn holders(
        &mut self,
        client: &Client,
        positions: u64,
        gap_age: Duration,
    ) -> Result<Option<Vec<Holder>>> {
        let now = Instant::now();
        let since = self.last_snapshot.map(|last| now - last);
        if !pacing::are_locks_due(positions, gap_age, since) {
            return Ok(None);
        }
        self.last_snapshot = Some(now);
        let snapshot = gap::snapshot(client, &self.table.relation, &self.table.gap).await?;
        if snapshot.sequence != self.sequence {
            return Err(gap::other_sequence(&self.table.relation, snapshot.sequence));
        }
        Ok(Some(self.holders.instead_of(snapshot.holders)))
    }

    pub(super) fn is_sequence_due(&self) -> bool {
        pacing::is_sequence_due(self.last_sequence_check.elapsed())
    }

    pub(super) fn sequence(&self) -> Option<&str> {
        self.sequence.as_deref()
    }

    /// Positions that went back (TRUNCATE … RESTART IDENTITY, setval) would come again below the
    /// mark. `sequence_at` is how far the sequence is, if the read of rows also read it.
    pub(super) async fn check_not_back(
        &mut self,
        client: &Client,
        mark: Position,
        sequence_at: Option<Position>,
    ) -> Result<()> {
        let last = match (sequence_at, &self.sequence) {
            (Some(last), _) => last,
            (None, Some(sequence)) => {
                gap::last_value(client, &self.table.relation, sequence).await?
            }
            (None, None) => return Ok(()),
        };
        self.last_sequence_check = Instant::now();
        if last >= mark {
            return Ok(());
        }
        let what = format!(
            "the sequence of {} is at {last}, below the mark {mark}: positions went back",
            self.table.relation
        );
        Err(Error::new(ErrorKind::Diverged, what).with_hint(last_passed::HINT))
    }
}
