//! Keys that somebody asked to try again, letter by letter, in turns with the batches: neither has to
//! wait until the other has nothing left to do.

use std::time::{Duration, Instant};

use super::park::{cause, parked};
use super::{Ended, Runner, Turn};
use crate::engine::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::metrics;
use crate::pg::checkpoint::Key;
use crate::pg::dead_letter;
use crate::retry::{Verdict, verdict};
use crate::source::EventKey;

/// Letters are tried for as long as the batch before them took, one at least, within this.
const IN_A_ROW_MAX: Duration = Duration::from_secs(1);

/// What a runner knows of the letters that are to be tried again.
#[derive(Debug)]
pub(super) struct Retries {
    /// Of which look at the instances nothing is left to be done.
    done_at: u64,
    /// Whether something was put off to the next look then.
    is_waiting: bool,
    /// The keys that ran into something that passes; they come after all others.
    put_off: Vec<EventKey>,
    /// After such a try, batches have as long as it took.
    not_before: Option<Instant>,
    /// For how long letters may be tried before the next batch.
    owed: Duration,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            done_at: 0,
            is_waiting: false,
            put_off: Vec::new(),
            not_before: None,
            owed: Duration::from_nanos(1),
        }
    }
}

impl Retries {
    fn standing(&self) -> Redriven {
        match self.is_waiting {
            true => Redriven::Later,
            false => Redriven::Nothing,
        }
    }

    /// All that were asked for had their try.
    fn all_tried(&mut self, look: u64) {
        self.done_at = look;
        self.is_waiting = !self.put_off.is_empty();
        self.put_off.clear();
    }

    fn put_off(&mut self, key: EventKey, took: Duration) {
        self.is_waiting = true;
        self.put_off.push(key);
        self.not_before = Some(Instant::now() + took);
    }
}

/// What became of the letters that somebody asked for.
enum Redriven {
    /// One had its try.
    Done,
    /// What is left was put off.
    Later,
    /// Nothing is asked for.
    Nothing,
}

impl Runner {
    /// A letter that somebody asked for, or whatever lies between the checkpoint and the mark.
    pub(super) async fn redrive_or_advance(&mut self, progress: &Progress) -> Result<Turn> {
        let began = Instant::now();
        if !self.retries.owed.is_zero() {
            let redriven = self.redrive_next().await?;
            self.retries.owed = self.retries.owed.saturating_sub(began.elapsed());
            if let Redriven::Done = redriven {
                return Ok(Turn::Again);
            }
        }
        let began = Instant::now();
        let advanced = self.advance(progress).await;
        let took = began.elapsed();
        self.retries.owed = took.clamp(Duration::from_nanos(1), IN_A_ROW_MAX);
        let is_at_its_end = match &advanced {
            Ok(Turn::Wait(_) | Turn::Ended(Ended::CaughtUp)) => true,
            Ok(_) => false,
            // What is set free makes room.
            Err(error) => error.kind() == ErrorKind::ParkedFull,
        };
        if !is_at_its_end {
            return advanced;
        }
        match self.redrive_next().await? {
            Redriven::Done => Ok(Turn::Again),
            Redriven::Nothing => advanced,
            Redriven::Later => match advanced {
                Ok(Turn::Wait(until)) => Ok(Turn::Wait(until)),
                _ => Ok(Turn::Wait(None)),
            },
        }
    }

    /// Applies the next letter that somebody asked to try again.
    async fn redrive_next(&mut self) -> Result<Redriven> {
        let Some(claim) = &self.claim else {
            return Ok(Redriven::Nothing);
        };
        let (slice, key) = (&claim.applier.slice, &claim.applier.key);
        let Some(look) = self.retries_seen(key) else {
            self.retries.is_waiting = false;
            return Ok(Redriven::Nothing);
        };
        let began = Instant::now();
        let is_put_off = self.retries.not_before.is_some_and(|at| began < at);
        if look <= self.retries.done_at || is_put_off {
            return Ok(self.retries.standing());
        }
        let letter = {
            let client = self.parts.target.short().await?;
            let put_off = &self.retries.put_off;
            let asking = dead_letter::requested(&client, key, slice.partitions, put_off);
            client.within(asking).await?
        };
        let Some((of, letter)) = letter else {
            self.retries.all_tried(look);
            return Ok(self.retries.standing());
        };
        let _turn = self.parts.turns.clone().acquire_owned().await.ok();
        let began = Instant::now();
        let (client, _) = claim.applier.session().await?;
        let redriving = claim.applier.redrive(client, letter.clone());
        match self
            .in_time(self.parts.settings.batch_timeout, redriving)
            .await
        {
            Ok(()) => {
                failpoint!("redrive.committed");
                tracing::info!(projection = %key.projection, position = %letter.position, "applied after all");
            }
            Err(error) => match verdict(error.kind()) {
                Verdict::Poison => self.failed_again(error, &letter).await?,
                Verdict::Transient => {
                    self.put_off(&error, &letter);
                    self.retries.put_off(of, began.elapsed());
                    return Ok(Redriven::Later);
                }
                Verdict::Fatal => return Err(error),
            },
        }
        self.look_at_parked().await?;
        Ok(Redriven::Done)
    }

    /// The number of the last look at the instances, if there were letters to be tried again then.
    fn retries_seen(&self, key: &Key) -> Option<u64> {
        let seen = self.parts.cluster.borrow();
        let projection = seen.projection(&key.projection)?;
        let mut checkpoints = projection.checkpoints.iter();
        let mine = checkpoints.find(|c| c.partition == key.partition)?;
        (projection.generation == key.generation && mine.retries).then_some(seen.revision)
    }

    /// It may go away by itself, and no other key has to wait for that.
    fn put_off(&self, error: &Error, letter: &RecordedEvent) {
        let name = &self.definition().name;
        self.parts.shared.failed(error);
        metrics::failure(name, error.kind());
        tracing::warn!(projection = %name, position = %letter.position, error = %error, "a dead letter is tried again later");
    }

    async fn failed_again(&self, error: Error, letter: &RecordedEvent) -> Result<()> {
        let Some(claim) = &self.claim else {
            return Ok(());
        };
        let name = &self.definition().name;
        let error = parked(error, name, letter);
        let cause = cause(&error, letter);
        let (key, epoch) = (&claim.applier.key, claim.applier.epoch);
        let client = self.parts.target.short().await?;
        let telling = dead_letter::failed_again(&client, key, epoch, letter.position, &cause);
        client.within(telling).await?;
        failpoint!("redrive.refused");
        metrics::failure(name, error.kind());
        tracing::warn!(projection = %name, error = %error, "failed again and stays parked");
        Ok(())
    }
}
