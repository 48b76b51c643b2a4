//! Writes down what a source held when the mark passed it: the evidence that `audit` compares.
//!
//! Every reader folds the rows that it has in hand into blocks ([`crate::block`]). The longest-living
//! instance writes them down, once a second and only what has changed. What no reader had in hand (a
//! backlog, the time between two instances) it counts later, a little at a time, and marks it so.
//!
//! Two instances may both believe for a moment that they are the one: then blocks overlap, and each of
//! them is true.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::instance::ClusterView;
use super::progress::Following;
use crate::block::{Block, Blocks, EVENTS_MAX};
use crate::error::Result;
use crate::pg::block::{self, Covered};
use crate::pg::database::Database;
use crate::position::{Position, Range};
use crate::source::Source;

/// How often changed blocks are written down.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// How long what was not in hand is counted in each of these pauses: a twentieth of a core.
const COUNT_FOR: Duration = Duration::from_millis(50);

/// The blocks of a source, filled by its reader and written down by its recorder.
#[derive(Clone, Default)]
pub(super) struct SharedBlocks(Arc<Mutex<Blocks>>);

impl SharedBlocks {
    pub(super) fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the blocks of one source down until it is stopped.
pub(super) struct Recorder {
    pub(super) source: Arc<dyn Source>,
    pub(super) target: Database,
    pub(super) blocks: SharedBlocks,
    pub(super) following: Following,
    pub(super) instance: Uuid,
    pub(super) cluster: watch::Receiver<ClusterView>,
    /// What was not in hand is counted too. A run that ends by itself leaves that to others.
    pub(super) counts_later: bool,
    pub(super) stop: CancellationToken,
}

/// What a recorder knows of the blocks on record.
#[derive(Default)]
struct Known {
    /// The source's identity, once it was asked for.
    identity: Option<String>,
    /// Every position up to here is covered by blocks.
    covered: Position,
}

impl Recorder {
    pub(super) async fn run(self) {
        let mut known = Known::default();
        let mut ticks = tokio::time::interval(WRITE_PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                biased;
                () = self.stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            if self.cluster.borrow().is_eldest(self.instance)
                && let Err(error) = self.record(&mut known, is_last).await
            {
                let source = self.source.name();
                tracing::debug!(source, error = %error, "what the log holds was not written down; it is counted later");
                known.covered = Position::START;
            }
            if is_last {
                return;
            }
        }
    }

    async fn record(&self, known: &mut Known, is_last: bool) -> Result<()> {
        let blocks = self.blocks.lock().take();
        let identity = match &known.identity {
            Some(identity) => identity.clone(),
            None => self.source.identity().await?,
        };
        known.identity = Some(identity.clone());
        if !blocks.is_empty() {
            self.write(&identity, &blocks).await?;
        }
        if self.counts_later && !is_last {
            let mark = self.following.progress.borrow().mark;
            let ends = Instant::now() + COUNT_FOR;
            while known.covered < mark && Instant::now() < ends {
                known.covered = self.cover(&identity, known.covered, mark).await?;
            }
        }
        Ok(())
    }

    async fn write(&self, identity: &str, blocks: &[Block]) -> Result<()> {
        let client = self.target.short().await?;
        client
            .within(block::record(&client, identity, blocks))
            .await
    }

    async fn cover(&self, identity: &str, from: Position, mark: Position) -> Result<Position> {
        cover(&self.target, &*self.source, identity, from, mark).await
    }
}

/// Covers what follows `from`, one block further, if no block does yet: it is counted now. Returns how far
/// it is covered then, at most up to `mark`.
pub(crate) async fn cover(
    target: &Database,
    source: &dyn Source,
    identity: &str,
    from: Position,
    mark: Position,
) -> Result<Position> {
    let covered = {
        let client = target.short().await?;
        client
            .within(block::covered(&client, identity, from))
            .await?
    };
    let end = match covered {
        Covered::Through(through) => return Ok(through.min(mark)),
        Covered::NotUntil(next) => next.map_or(mark, |next| next.min(mark)),
    };
    let (through, tally) = source.tally(Range::new(from, end), EVENTS_MAX).await?;
    let counted = Block {
        range: Range::new(from, through),
        tally,
        counted_later: true,
    };
    let client = target.short().await?;
    let counted = [counted];
    client
        .within(block::record(&client, identity, &counted))
        .await?;
    Ok(through)
}
