//! Where the time of a batch goes, as the metrics say.

use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryRow;

use crate::metrics::{self, Phase};
use crate::name::ProjectionName;

/// Times the phases of a batch one after the other.
pub(super) struct PhaseTimer<'a> {
    name: &'a ProjectionName,
    began: Instant,
}

impl<'a> PhaseTimer<'a> {
    pub(super) fn of(name: &'a ProjectionName) -> PhaseTimer<'a> {
        PhaseTimer {
            name,
            began: Instant::now(),
        }
    }

    /// Ends the phase that began when the last one ended, with its number of round trips.
    pub(super) fn ended(&mut self, phase: Phase, round_trips: u64) {
        let now = Instant::now();
        metrics::phase(self.name, phase, now - self.began);
        metrics::round_trips(self.name, round_trips);
        self.began = now;
    }

    /// All phases of a batch that was one message, as the server timed them.
    pub(super) fn answered(self, answer: &MessageResult) {
        let (Some(fenced), Some(checked)) = (answer.fenced, answer.checked) else {
            return;
        };
        let took = self.began.elapsed();
        metrics::phase(self.name, Phase::Checkpoint, fenced);
        metrics::phase(self.name, Phase::Apply, checked.saturating_sub(fenced));
        metrics::phase(self.name, Phase::Commit, took.saturating_sub(checked));
        metrics::round_trips(self.name, 1);
    }
}

/// The answer to a message.
#[derive(Debug, Default)]
pub(super) struct MessageResult {
    /// Statements that succeeded.
    pub(super) succeeded: usize,
    /// How long the transaction was open when the fence had run, and before the commit.
    fenced: Option<Duration>,
    checked: Option<Duration>,
}

impl MessageResult {
    /// A row of the fence, as the first that is no answer to the prologue, or of the check before the commit.
    pub(super) fn row(&mut self, row: &SimpleQueryRow, fence_at: usize) {
        if self.succeeded < fence_at {
            return;
        }
        let seconds = row.try_get(1).ok().flatten();
        let elapsed = seconds.and_then(|text| text.parse().ok());
        let elapsed = elapsed.and_then(|s| Duration::try_from_secs_f64(s).ok());
        if self.succeeded == fence_at {
            self.fenced = elapsed;
        }
        // The very last row is that of the check before the commit.
        self.checked = elapsed;
    }
}
