//! The claim on a checkpoint: taken at the start, read again when it may have been lost.

use std::time::Instant;

use super::{Build, Runner, Turn};
use crate::engine::apply::{Applier, Slice};
use crate::engine::rebuild::next_schema;
use crate::engine::setup;
use crate::error::Result;
use crate::pg::checkpoint::{self, Key};
use crate::pg::transaction::Opening;
use crate::position::Position;

/// What holds while the checkpoint is ours.
pub(super) struct Claim {
    pub(super) applier: Applier,
    /// The reader's session whose mark is used.
    pub(super) session: u64,
    /// Where the stored checkpoint stands.
    pub(super) stored: Position,
    /// How far the runner is: beyond `stored` lies nothing it wants.
    pub(super) position: Position,
    pub(super) flushed: Instant,
}

impl Runner {
    /// Creates or recognises the read model and claims its checkpoint. `None` if a swap came in
    /// between: begin again.
    pub(super) async fn start(&self) -> Result<Option<Claim>> {
        let parts = &self.parts;
        let name = &self.definition().name;
        let (generation, schema) = match parts.build {
            Build::Live => {
                let (projection, source) = (&*parts.projection, &*parts.source);
                // One that was dropped while it ran is not built anew behind its user's back.
                let may_create = parts.shared.get().epoch == 0;
                let live = setup::prepare(&parts.target, projection, source, may_create).await;
                // Best effort: it is only shown.
                if live.is_err()
                    && let Ok(Some((generation, position))) = self.stored_position().await
                {
                    parts.shared.claimed(generation, 0, position);
                }
                (live?, name.as_str().to_owned())
            }
            Build::Next(next) => (next, next_schema(name)),
        };
        let key = Key {
            projection: name.clone(),
            generation,
            partition: 0,
        };
        let claimed = setup::claim(&parts.target, &key, parts.instance, &*parts.source).await?;
        if parts.build == Build::Live {
            // A swap, a drop or an accepted change may have come between the two.
            let stored = setup::stored_in(&parts.target, name).await?;
            let stored = stored.ok_or_else(|| setup::dropped(name))?;
            if stored.generation != generation {
                return Ok(None);
            }
            setup::check_unchanged(self.definition(), &stored)?;
        }
        let Some(checkpoint) = claimed else {
            return Err(match parts.build {
                Build::Live => setup::no_checkpoint(name),
                Build::Next(_) => setup::dropped(name),
            });
        };
        let epoch = checkpoint.epoch;
        parts
            .shared
            .claimed(generation, epoch.get(), checkpoint.position);
        tracing::info!(projection = %name, generation, epoch = epoch.get(), position = %checkpoint.position, "claimed");
        let settings = &parts.settings;
        Ok(Some(Claim {
            applier: Applier {
                opening: Opening::new(&key, settings.batch_timeout, settings.lease),
                target: parts.target.clone(),
                source: parts.source.clone(),
                projection: parts.projection.clone(),
                schema,
                key,
                epoch,
                slice: Slice::whole(),
                in_flight: self.in_flight.clone(),
            },
            session: parts.following.progress.borrow().session,
            stored: checkpoint.position,
            position: checkpoint.position,
            flushed: Instant::now(),
        }))
    }

    /// Where a projection stands that could not be started.
    async fn stored_position(&self) -> Result<Option<(i32, Position)>> {
        let name = &self.definition().name;
        let Some(stored) = setup::stored_in(&self.parts.target, name).await? else {
            return Ok(None);
        };
        let key = Key {
            projection: name.clone(),
            generation: stored.generation,
            partition: 0,
        };
        let client = self.parts.target.short().await?;
        let checkpoint = client.within(checkpoint::read(&client, &key)).await?;
        Ok(checkpoint.map(|checkpoint| (key.generation, checkpoint.position)))
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
            let stored = setup::stored(&client, &key.projection);
            let stored = client.within(stored).await?;
            (stored, client.within(checkpoint::read(&client, key)).await?)
        };
        let Some(stored) = stored else {
            return Err(setup::dropped(&key.projection));
        };
        if self.parts.build == Build::Live {
            if stored.generation != key.generation {
                self.claim = None;
                return Ok(Turn::Again);
            }
            setup::check_unchanged(self.parts.projection.definition(), &stored).map_err(|e| {
                e.hint("this process has the definition from before: start it again")
            })?;
        }
        let Some(checkpoint) = checkpoint else {
            // Swapped or dropped just now: the start finds out which.
            self.claim = None;
            return Ok(Turn::Again);
        };
        if checkpoint.epoch != claim.applier.epoch {
            return Err(checkpoint::superseded(key, checkpoint.epoch));
        }
        setup::check_source(key, &checkpoint, &*self.parts.source).await?;
        claim.stored = checkpoint.position;
        claim.position = checkpoint.position;
        self.parts.shared.moved(checkpoint.position);
        Ok(Turn::Again)
    }
}
