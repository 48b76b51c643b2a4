//! The claim on a checkpoint: taken at the start, released at the end.

use std::time::{Duration, Instant};

use super::claimed::Claimed;
use super::retries::Retries;
use super::{Build, Ended, Runner, RunnerParts, StepOutcome, decide, park};
use crate::engine::apply::Applier;
use crate::engine::batch_size::BatchSize;
use crate::engine::divergence;
use crate::engine::isolate::Isolation;
use crate::engine::read_model::next_schema;
use crate::engine::transaction::warn_if_blocked;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::pg::checkpoint::{self, Checkpoint, Claiming, Key};
use crate::pg::dead_letter::ParkingLimits;
use crate::pg::transaction::Prologue;
use crate::pg::{instance, projection};
use crate::runner_state::RunnerState;

/// How long the release of a checkpoint may take, at least.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

impl Runner {
    /// Claims the checkpoint of this build, under the definition of this process.
    pub(super) async fn claim(&mut self) -> Result<StepOutcome> {
        let parts = self.parts.clone();
        parts.set_state(RunnerState::Starting);
        let key = parts.key();
        let claimed = {
            let client = parts.target.short().await?;
            let claiming = checkpoint::claim(&client, &key, parts.instance, parts.claiming());
            warn_if_blocked(&key.projection, client.within(claiming)).await?
        };
        failpoint!("claim.done");
        // From here on it is released or reported, whatever is wrong with it.
        self.owned = claimed.as_ref().map(|claimed| (key.clone(), claimed.epoch));
        if let Some(checkpoint) = &claimed {
            divergence::check(&key, checkpoint, &*parts.source).await?;
        }
        if parts.build == Build::Live && !parts.is_current(&key).await? {
            return Ok(StepOutcome::End(Ended::Busy));
        }
        let Some(checkpoint) = claimed else {
            return match parts.build {
                Build::Live => Ok(StepOutcome::End(Ended::Busy)),
                Build::Next(_) => Err(projection::dropped(&key.projection)),
            };
        };
        let epoch = checkpoint.epoch.get();
        let shared = &parts.shared;
        shared.claimed(key.generation, epoch, checkpoint.position);
        tracing::info!(projection = %key.projection, generation = key.generation, partition = key.partition, epoch, position = %checkpoint.position, "claimed");
        self.claimed = Some(self.begin(key, &checkpoint).await?);
        // As the claim stored it: the first batch may take long, and no heartbeat can write
        // meanwhile.
        parts.set_state(RunnerState::CatchingUp);
        Ok(StepOutcome::Done)
    }

    async fn begin(&self, key: Key, checkpoint: &Checkpoint) -> Result<Claimed> {
        let parts = &self.parts;
        let settings = &parts.settings;
        let partition_filter = park::partition_filter(&parts.target, &key, checkpoint).await?;
        let in_one_database = parts.source.relation().is_some();
        let commit = decide::commit(parts.until.is_some(), in_one_database, settings.await_disk);
        let applier = Applier {
            prologue: Prologue::new(&key, settings.batch_timeout, settings.lease, commit),
            transaction_time: settings.transaction_time,
            target: parts.target.clone(),
            source: parts.source.clone(),
            projection: parts.projection.clone(),
            schema: parts.schema(),
            key,
            epoch: checkpoint.epoch,
            partition_filter,
            parking: ParkingLimits {
                keys_max: settings.parked_keys_max,
                dead_letters_max: settings.dead_letters_max,
            },
            in_flight: self.in_flight.clone(),
            silence: settings.lease / 3,
        };
        Ok(Claimed {
            retries: Retries::start(parts.clone(), &applier, &self.stop),
            parts: parts.clone(),
            applier,
            session: parts.subscriber.progress.borrow().session,
            stored: checkpoint.position,
            position: checkpoint.position,
            drain_at: checkpoint.drain_at,
            stored_at: Instant::now(),
            has_arrived: false,
            size: BatchSize::new(u64::from(settings.batch_events_max)),
            isolation: Isolation::default(),
            stop: self.stop.clone(),
        })
    }

    /// Releases the checkpoint. Best effort: without it the lease has to end first, or an instance
    /// that still lives claims it again.
    pub(super) async fn release(&self) {
        let Some((key, epoch)) = &self.owned else {
            return;
        };
        let done = async {
            let client = self.parts.target.short().await?;
            failpoint!("release.begun");
            let releasing = checkpoint::release(&client, key, *epoch);
            client.within(releasing).await?;
            instance::wake(&client).await;
            Ok::<_, Error>(())
        };
        let limit = self.parts.settings.stop_grace.max(RELEASE_LIMIT);
        match tokio::time::timeout(limit, done).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error, "the checkpoint was not released"),
            Err(_) => tracing::debug!("the checkpoint was not released in time"),
        }
    }
}

impl RunnerParts {
    fn key(&self) -> Key {
        Key {
            projection: self.definition().name.clone(),
            generation: self.generation,
            partition: self.partition,
        }
    }

    fn claiming(&self) -> Claiming {
        match self.build {
            Build::Live => Claiming::IfFree,
            Build::Next(_) => Claiming::Forced,
        }
    }

    /// The schema that holds the build.
    fn schema(&self) -> String {
        let name = &self.definition().name;
        match self.build {
            Build::Live => name.as_str().to_owned(),
            Build::Next(_) => next_schema(name),
        }
    }

    /// Whether the generation is still the live one: a swap, a drop or an accepted change may have
    /// come between the two.
    async fn is_current(&self, key: &Key) -> Result<bool> {
        let name = &key.projection;
        let stored = projection::stored_in(&self.target, name).await?;
        let stored = stored.ok_or_else(|| projection::dropped(name))?;
        if stored.generation != key.generation {
            return Ok(false);
        }
        projection::check_hash(name, &self.definition().hash, &stored.hash)?;
        projection::check_key_hash(name, &stored.key_hash)?;
        Ok(true)
    }
}
