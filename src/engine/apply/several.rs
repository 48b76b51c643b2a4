//! Several batches in one transaction, each read while the one before is applied.
//!
//! **Why.** A row that many events of a history change is loaded and written once for each
//! transaction, and a transaction has a cost of its own. What fits into memory at once is far less
//! than what is worth one transaction.
//!
//! **The fence.** How far the transaction will come is not known when it begins: time, memory or a stop
//! may end it after any batch. So its first statement moves the checkpoint from where it stands to where
//! it stands, which demands and locks all that the fence does; and before the commit a second fence moves it
//! over what was applied. Nobody else can have moved the row in between.
//!
//! **Reading.** Positions at or below the mark never change, so that several statements on another
//! session read what one would. Whether events were removed that had not been read is asked after
//! each of them, with the end of the one before as what had been read.
//!
//! **Sessions.** The transaction holds one while batches are read on another. A runner does so only if
//! it has a turn for both ([`super::super::runner`]), and the reader waits for nothing but the source
//! while it holds its own: so nobody waits for somebody who waits for him.
//!
//! **Memory and pace.** One batch is applied while the next is read, no further one. How many events the
//! next one may have follows from how long the last took, so that a projection that is slow with each event is
//! asked often enough whether the time is over.
//!
//! **The projection's own statements.** After each batch it is asked whether the transaction is still
//! the one that the fence opened: nothing that follows is done outside of it.
//!
//! **Silence.** The server ends a transaction whose client says nothing for a lease. Where batches are
//! slow to read, or the projection has nothing to say, an empty statement is sent in time.
//!
//! **Failure.** Whichever batch fails, the transaction is rolled back as a whole and its range halved,
//! as for one batch.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::read::{BatchReader, ReadBatch, unpanicked};
use super::session::Pulse;
use super::{Applier, Session};
use crate::error::Result;
use crate::metrics::{self, Phase};
use crate::pg;
use crate::pg::checkpoint::{self, LastEvent};
use crate::position::{Position, Range};

/// The most events of a batch that shares its transaction.
pub(in crate::engine) const EVENTS_MAX: usize = 8_192;

/// How long a transaction takes further batches and how long one of them should take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    transaction: Duration,
    batch: Duration,
}

impl Pace {
    /// Where nothing is kept from one batch to the next, what is written again and again in one
    /// transaction the server can only clear away after it: such a one is shorter.
    fn new(transaction_time: Duration, gains_by_many: bool) -> Pace {
        let transaction = match gains_by_many {
            true => transaction_time,
            false => transaction_time / 6,
        };
        Pace {
            transaction,
            batch: transaction_time / 12,
        }
    }

    /// How many events the next batch may have, after one of so many that took so long.
    fn next_events(self, events: usize, took: Duration) -> usize {
        let most = events.saturating_mul(8).clamp(1, EVENTS_MAX);
        let fitting = self.batch.as_nanos() * events as u128 / took.as_nanos().max(1);
        usize::try_from(fitting).unwrap_or(most).clamp(1, most)
    }
}

/// Batches for one transaction, the first of which was read.
pub(in crate::engine) struct Several {
    range: Range,
    first: ReadBatch,
    reader: BatchReader,
    stop: CancellationToken,
}

/// Batches that are read ahead, one at a time.
struct Ahead {
    batches: mpsc::Receiver<Result<ReadBatch>>,
    _reading: AbortOnDropHandle<()>,
}

/// What a transaction has taken so far.
struct Taken {
    through: Position,
    /// What is to be said before the commit.
    check: Option<String>,
    reading: Duration,
    applying: Duration,
    reads: u64,
}

impl Several {
    pub(super) fn new(
        range: Range,
        first: ReadBatch,
        reader: BatchReader,
        stop: CancellationToken,
    ) -> Several {
        Several {
            range,
            first,
            reader,
            stop,
        }
    }
}

impl Ahead {
    /// Reads what `range` holds, batch by batch: the next one when the last one was taken.
    fn read(reader: BatchReader, range: Range) -> Ahead {
        let (sender, batches) = mpsc::channel(1);
        let reading = async move {
            let mut rest = range;
            while !rest.is_empty()
                && let Ok(room) = sender.reserve().await
            {
                let read = reader.read(rest, rest.after()).await;
                let ends = read.is_err();
                if let Ok(read) = &read {
                    rest = Range::new(read.batch.range.through(), rest.through());
                }
                room.send(read);
                if ends {
                    return;
                }
            }
        };
        Ahead {
            batches,
            _reading: AbortOnDropHandle::new(tokio::spawn(reading)),
        }
    }
}

impl Applier {
    /// Applies batches until the range, the time or the engine ends, and moves the checkpoint over them.
    pub(super) async fn apply_several(&self, session: &Session, work: Several) -> Result<Position> {
        let began = Instant::now();
        let after = work.range.after();
        let stands = Range::new(after, after);
        let fence = self.fence().text(stands, None);
        self.begin_read(session, work.range, &fence).await?;
        let fenced = began.elapsed();
        let (taken, last) = self.take_several(session, work).await?;
        let ending = Instant::now();
        self.end_several(session, after, &taken, last).await?;
        let name = &self.key.projection;
        metrics::phase(name, Phase::Checkpoint, fenced);
        metrics::phase(name, Phase::Read, taken.reading);
        metrics::phase(name, Phase::Apply, taken.applying);
        metrics::phase(name, Phase::Commit, ending.elapsed());
        metrics::round_trips(name, taken.reads + 2);
        Ok(taken.through)
    }

    async fn take_several(&self, session: &Session, work: Several) -> Result<(Taken, LastEvent)> {
        let Several {
            range,
            first,
            reader,
            stop,
        } = work;
        let began = Instant::now();
        let mut applying = self.applying(session)?;
        let pace = Pace::new(self.transaction_time, applying.gains_by_many());
        let stands = Range::new(range.after(), range.after());
        let mut pulse = Pulse::new(session, self.silence);
        let mut taken = Taken::up_to(range.after());
        let rest = Range::new(first.batch.range.through(), range.through());
        let events_max = reader.events_max.clone();
        let mut ahead = Ahead::read(reader, rest);
        let mut next = Some(first);
        while let Some(read) = next {
            let at = Instant::now();
            if !read.batch.events.is_empty() {
                unpanicked(applying.take(&read.batch)).await?;
                self.check_open(session, stands).await?;
            }
            let check = self.put_aside(session, &read.aside).await?;
            taken.add(&read, check);
            let took = at.elapsed();
            taken.applying += took;
            if !read.batch.events.is_empty() {
                let next = pace.next_events(read.batch.events.len(), took);
                events_max.store(next, Ordering::Relaxed);
            }
            drop(read);
            if taken.through >= range.through()
                || began.elapsed() >= pace.transaction
                || stop.is_cancelled()
            {
                break;
            }
            let at = Instant::now();
            next = pulse.during(ahead.batches.recv()).await?.transpose()?;
            taken.reading += at.elapsed();
        }
        drop(ahead);
        let at = Instant::now();
        // Asked on the reader's session, while this one is at work.
        let last = self.source.last_at(taken.through);
        let (finished, last) = futures_util::join!(unpanicked(applying.finish()), async {
            pulse.during(last).await?
        });
        finished?;
        taken.applying += at.elapsed();
        Ok((taken, last?))
    }

    /// Whether the transaction is still the one that the fence opened.
    async fn check_open(&self, session: &Session, fenced: Range) -> Result<()> {
        let seal = checkpoint::end_batch(fenced);
        let asked = session.client().batch_execute(&seal).await;
        asked.map_err(|e| pg::error("cannot go on with the batch", e))
    }

    /// Moves the checkpoint over what was taken, and commits.
    async fn end_several(
        &self,
        session: &Session,
        after: Position,
        taken: &Taken,
        last: LastEvent,
    ) -> Result<()> {
        let range = taken.range(after);
        let check = taken.check.as_deref().unwrap_or_default();
        // Before the second fence, which would find the row in a transaction of the projection's own
        // just as well.
        let seal = checkpoint::end_batch(Range::new(after, after));
        let fence = self.fence().text(range, last);
        self.end_read(session, range, &format!("{check}{seal};\n{fence};\n"))
            .await
    }
}

impl Taken {
    fn up_to(through: Position) -> Taken {
        Taken {
            through,
            check: None,
            reading: Duration::ZERO,
            applying: Duration::ZERO,
            reads: 0,
        }
    }

    fn range(&self, after: Position) -> Range {
        Range::new(after, self.through)
    }

    fn add(&mut self, read: &ReadBatch, check: Option<String>) {
        self.through = read.batch.range.through();
        self.check = check.or(self.check.take());
        self.reads += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_they_are_quick_and_shrink_to_what_a_slow_projection_can_do() {
        let pace = Pace::new(Duration::from_secs(3), true);
        let quick = Duration::from_millis(1);
        assert_eq!(pace.next_events(1_000, quick), 8_000);
        assert_eq!(pace.next_events(8_000, quick), EVENTS_MAX);
        assert_eq!(pace.next_events(1_000, Duration::from_secs(1)), 250);
        assert_eq!(pace.next_events(1, Duration::from_secs(60)), 1);
    }

    #[test]
    fn a_transaction_is_shorter_where_nothing_is_kept_from_one_batch_to_the_next() {
        let second = Duration::from_secs(1);
        assert_eq!(Pace::new(12 * second, true).transaction, 12 * second);
        assert_eq!(Pace::new(12 * second, false).transaction, 2 * second);
        assert_eq!(Pace::new(12 * second, false).batch, second);
    }
}
