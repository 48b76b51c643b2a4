//! The claim on a checkpoint: taken at the start, read again when it may have been lost.

use std::time::{Duration, Instant};

use super::{Build, Ended, Runner, Turn, park};
use crate::engine::apply::Applier;
use crate::engine::divergence;
use crate::engine::read_model::next_schema;
use crate::engine::transaction::warn_if_blocked;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::pg::checkpoint::{self, Claiming, Key};
use crate::pg::dead_letter::ParkingLimits;
use crate::pg::transaction::{Commit, Opening};
use crate::pg::{instance, projection};
use crate::position::Position;
use crate::runner_state::RunnerState;

/// How long giving a checkpoint back may take, at least.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// What holds while the checkpoint is ours.
pub(super) struct Claim {
    pub(super) applier: Applier,
    /// The reader's session whose mark is used.
    pub(super) session: u64,
    /// Where the stored checkpoint stands.
    pub(super) stored: Position,
    /// How far the runner is: beyond `stored` lies nothing it wants.
    pub(super) position: Position,
    /// Where the partition ends, if their number is being changed.
    pub(super) drain_at: Option<Position>,
    pub(super) flushed: Instant,
    /// It has been at its target since the claim.
    pub(super) has_arrived: bool,
}

impl Runner {
    /// Claims the checkpoint, of the build and the definition that are at hand.
    pub(super) async fn start(&mut self) -> Result<Turn> {
        let parts = &self.parts;
        let name = &self.definition().name;
        let (schema, claiming) = match parts.build {
            Build::Live => (name.as_str().to_owned(), Claiming::IfFree),
            Build::Next(_) => (next_schema(name), Claiming::Forced),
        };
        let key = Key {
            projection: name.clone(),
            generation: parts.generation,
            partition: parts.partition,
        };
        let claimed = {
            let client = parts.target.short().await?;
            let claiming = checkpoint::claim(&client, &key, parts.instance, claiming);
            warn_if_blocked(name, client.within(claiming)).await?
        };
        failpoint!("claim.done");
        // From here on it is given back or reported, whatever is found wrong with it.
        self.held = claimed.as_ref().map(|claimed| (key.clone(), claimed.epoch));
        let parts = &self.parts;
        let name = &self.definition().name;
        if let Some(checkpoint) = &claimed {
            divergence::check(&key, checkpoint, &*parts.source).await?;
        }
        if parts.build == Build::Live {
            // A swap, a drop or an accepted change may have come between the two.
            let stored = projection::stored_in(&parts.target, name).await?;
            let stored = stored.ok_or_else(|| projection::dropped(name))?;
            if stored.generation != key.generation {
                return Ok(Turn::Ended(Ended::Busy));
            }
            projection::check_hash(name, &self.definition().hash, &stored.hash)?;
        }
        let Some(checkpoint) = claimed else {
            return match parts.build {
                Build::Live => Ok(Turn::Ended(Ended::Busy)),
                Build::Next(_) => Err(projection::dropped(name)),
            };
        };
        let epoch = checkpoint.epoch;
        parts
            .shared
            .claimed(key.generation, epoch.get(), checkpoint.position);
        tracing::info!(projection = %name, generation = key.generation, partition = key.partition, epoch = epoch.get(), position = %checkpoint.position, "claimed");
        let slice = park::slice(&parts.target, &key, &checkpoint).await?;
        let settings = &parts.settings;
        let claim = Claim {
            applier: Applier {
                opening: Opening::new(&key, settings.batch_timeout, settings.lease, self.commit()),
                work_mem_mb: settings.batch_work_mem_mb,
                transaction_time: settings.transaction_time,
                target: parts.target.clone(),
                source: parts.source.clone(),
                projection: parts.projection.clone(),
                schema,
                key,
                epoch,
                slice,
                parking: ParkingLimits {
                    keys_max: settings.parked_keys_max,
                    letters_max: settings.dead_letters_max,
                },
                in_flight: self.in_flight.clone(),
                silence: settings.lease / 3,
            },
            session: parts.following.progress.borrow().session,
            stored: checkpoint.position,
            position: checkpoint.position,
            drain_at: checkpoint.drain_at,
            flushed: Instant::now(),
            has_arrived: false,
        };
        self.claim = Some(claim);
        // As the claim wrote it down: the first batch may take long, and no heartbeat can write
        // beside it.
        self.set_state(RunnerState::CatchingUp);
        Ok(Turn::Again)
    }

    /// A run that ends by itself says that it has caught up, and nobody goes on behind it. One that follows
    /// goes on from wherever a crash takes its checkpoint, as long as the crash takes what was removed
    /// from the log since back as well: that is, where both are in one database.
    fn commit(&self) -> Commit {
        let parts = &self.parts;
        let follows = parts.until.is_none() && parts.source.relation().is_some();
        match follows && !parts.settings.await_disk {
            true => Commit::Visible,
            false => Commit::Durable,
        }
    }

    /// Whether the partition is to end somewhere and does not know it yet.
    pub(super) fn is_to_drain(&self) -> bool {
        let Some(claim) = &self.claim else {
            return false;
        };
        if claim.drain_at.is_some() || self.parts.build != Build::Live {
            return false;
        }
        let seen = self.parts.cluster.borrow();
        let observed = seen.projection(&claim.applier.key.projection);
        observed.is_some_and(|projection| {
            let mut checkpoints = projection.checkpoints.iter();
            let mine = checkpoints.find(|c| c.partition == claim.applier.key.partition);
            projection.generation == claim.applier.key.generation
                && mine.is_some_and(|checkpoint| checkpoint.drain_at.is_some())
        })
    }

    /// Gives the checkpoint back. Best effort: without it the lease has to end first, or an instance
    /// that lives on takes it up again.
    pub(super) async fn release(&self) {
        let Some((key, epoch)) = &self.held else {
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
            Ok(Err(error)) => tracing::debug!(error = %error, "the checkpoint was not given back"),
            Err(_) => tracing::debug!("the checkpoint was not given back in time"),
        }
    }

    /// Reads the checkpoint again, after a fence failed or the connection was lost: still ours,
    /// moved to another generation, or somebody else's.
    pub(super) async fn read_again(&mut self) -> Result<Turn> {
        let Some(claim) = &mut self.claim else {
            return Ok(Turn::Again);
        };
        let key = &claim.applier.key;
        let (stored, checkpoint) = {
            let client = self.parts.target.short().await?;
            let stored = projection::stored(&client, &key.projection);
            let stored = client.within(stored).await?;
            (stored, client.within(checkpoint::read(&client, key)).await?)
        };
        let Some(stored) = stored else {
            return Err(projection::dropped(&key.projection));
        };
        if self.parts.build == Build::Live {
            if stored.generation != key.generation {
                return Ok(Turn::Ended(Ended::Lost(checkpoint::swapped(key))));
            }
            let hash = &self.parts.projection.definition().hash;
            projection::check_hash(&key.projection, hash, &stored.hash).map_err(|e| {
                e.with_hint("this process has the definition from before: start it again")
            })?;
        }
        let Some(checkpoint) = checkpoint else {
            // Swapped or dropped just now.
            return Ok(Turn::Ended(Ended::Lost(checkpoint::swapped(key))));
        };
        if checkpoint.epoch != claim.applier.epoch {
            return Err(checkpoint::superseded(key, checkpoint.epoch));
        }
        divergence::check(key, &checkpoint, &*self.parts.source).await?;
        claim.stored = checkpoint.position;
        claim.position = checkpoint.position;
        claim.drain_at = checkpoint.drain_at;
        claim.applier.slice = park::slice(&self.parts.target, key, &checkpoint).await?;
        self.parts.shared.moved(checkpoint.position);
        Ok(Turn::Again)
    }
}
