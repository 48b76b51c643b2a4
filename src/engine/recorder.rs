//! Records what a source held when the mark passed it: the evidence that `audit` compares.
//!
//! Every reader folds the rows that it reads into blocks ([`crate::block`]). The longest-living
//! instance stores them, once a second and only those that changed. It counts what no reader has
//! read (a backlog, the time between two instances) later, a little at a time, and marks it so.
//!
//! Two instances may both believe for a moment that they live longest: then blocks overlap, and
//! each of them is correct.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::instance::ClusterView;
use super::progress::Subscriber;
use crate::block::{Block, Blocks, EVENTS_MAX};
use crate::error::Result;
use crate::pg::block;
use crate::pg::database::Database;
use crate::position::{Position, Range};
use crate::source::Source;

/// How often changed blocks are stored.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// How long unread ranges are counted in each of these pauses: a twentieth of a core.
const COUNT_FOR: Duration = Duration::from_millis(50);

/// The blocks of a source, filled by its reader and stored by its recorder.
#[derive(Clone, Default)]
pub(super) struct SharedBlocks(Arc<Mutex<Blocks>>);

impl SharedBlocks {
    pub(super) fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores the blocks of one source until it is stopped.
pub(super) struct Recorder {
    pub(super) source: Arc<dyn Source>,
    pub(super) target: Database,
    pub(super) blocks: SharedBlocks,
    pub(super) subscriber: Subscriber,
    pub(super) instance: Uuid,
    pub(super) cluster: watch::Receiver<ClusterView>,
    /// It counts unread ranges too. A run that ends by itself leaves that to others.
    pub(super) counts_later: bool,
    pub(super) stop: CancellationToken,
}

impl Recorder {
    pub(super) async fn run(self) {
        let mut later: Option<BlockCoverage> = None;
        let mut ticks = tokio::time::interval(WRITE_PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                biased;
                () = self.stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            if self.cluster.borrow().is_eldest(self.instance)
                && let Err(error) = self.record(&mut later, is_last).await
            {
                let source = self.source.name();
                tracing::debug!(source, error = %error, "what the log holds was not recorded; it is counted later");
                // The blocks that were taken are lost; the open one is taken once more.
                self.blocks.lock().end();
                later = None;
            }
            if is_last {
                return;
            }
        }
    }

    async fn record(&self, later: &mut Option<BlockCoverage>, is_last: bool) -> Result<()> {
        let (blocks, open_from) = {
            let mut blocks = self.blocks.lock();
            (blocks.take(), blocks.open_from())
        };
        let coverage = match later {
            Some(coverage) => coverage,
            None => later.insert(BlockCoverage::new(self.source.identity().await?)),
        };
        if !blocks.is_empty() {
            let client = self.target.short().await?;
            let writing = block::record(&client, &coverage.identity, &blocks);
            client.within(writing).await?;
        }
        if !self.counts_later || is_last {
            return Ok(());
        }
        // The open block is recorded from the rows of the reader.
        let end = open_from.unwrap_or(self.subscriber.progress.borrow().mark);
        let until = Instant::now() + COUNT_FOR;
        while Instant::now() < until && coverage.extend(&self.target, &*self.source, end).await? {}
        Ok(())
    }
}

/// How far the stored blocks cover a log from its beginning, and how the rest is counted.
pub(crate) struct BlockCoverage {
    identity: String,
    /// Every position up to here is covered.
    covered: Position,
    /// The positions from `covered` up to here are not.
    gap_end: Position,
}

impl BlockCoverage {
    pub(crate) fn new(identity: String) -> BlockCoverage {
        BlockCoverage {
            identity,
            covered: Position::START,
            gap_end: Position::START,
        }
    }

    /// Counts the next block that is missing below `end`, which is at or below the mark. False if none is.
    pub(crate) async fn extend(
        &mut self,
        target: &Database,
        source: &dyn Source,
        end: Position,
    ) -> Result<bool> {
        if self.covered >= end {
            return Ok(false);
        }
        if self.gap_end <= self.covered {
            let rest = Range::new(self.covered, end);
            let client = target.short().await?;
            let asking = block::first_gap(&client, &self.identity, rest);
            let Some(gap) = client.within(asking).await? else {
                self.covered = end;
                return Ok(false);
            };
            (self.covered, self.gap_end) = (gap.after(), gap.through());
        }
        let gap = Range::new(self.covered, self.gap_end);
        let (through, tally) = source.tally(gap, EVENTS_MAX).await?;
        let counted = [Block {
            range: Range::new(self.covered, through),
            tally,
            counted_later: true,
        }];
        let client = target.short().await?;
        let writing = block::record(&client, &self.identity, &counted);
        client.within(writing).await?;
        self.covered = through;
        Ok(true)
    }
}
