//! Reading the batches of a group, each while the one before is applied.
//!
//! Positions at or below the mark never change, so several statements on another session read what
//! one would. After each statement the reader checks whether events were removed that it had not
//! read; the end of the statement before says what was read.
//!
//! **Sessions.** The transaction holds one session while batches are read on another. A runner does
//! so only if it has a permit for both (`engine/runner/read_limits.rs`), and the reader waits for
//! nothing but the source while it holds its own, so there is no deadlock.
//!
//! **Memory and pace.** One batch is read while another is applied, no further one. The time that
//! the last one took decides how many events the next one has, so that a projection that is slow
//! with each event checks its time limit often enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Applier, PartitionFilter};
use crate::engine::divergence;
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::pg::checkpoint::Key;
use crate::position::{Position, Range};
use crate::projection::DynProjection;
use crate::source::{Batch, EventKey, Filter, Parked, ReadRequest, Source};

/// A batch that was read.
pub(super) struct ReadBatch {
    pub(super) batch: Batch,
    /// The events of its range whose keys are parked.
    pub(super) parked: Vec<(EventKey, RecordedEvent)>,
}

impl ReadBatch {
    pub(super) fn of(batch: Batch) -> ReadBatch {
        let parked = Vec::new();
        ReadBatch { batch, parked }
    }
}

/// Reads batches, on a task of its own if need be.
pub(super) struct BatchReader {
    source: Arc<dyn Source>,
    projection: Arc<dyn DynProjection>,
    key: Key,
    partition_filter: PartitionFilter,
    /// How many events to read next, as set by the task that applies them.
    pub(super) events_max: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl BatchReader {
    pub(super) fn new(applier: &Applier, events_max: usize, bytes_max: usize) -> BatchReader {
        BatchReader {
            source: applier.source.clone(),
            projection: applier.projection.clone(),
            key: applier.key.clone(),
            partition_filter: applier.partition_filter.clone(),
            events_max: Arc::new(AtomicUsize::new(events_max)),
            bytes_max,
        }
    }

    fn filter(&self) -> Filter<'_> {
        self.partition_filter.filter(&self.key, &*self.projection)
    }

    /// Reads what `range` holds, up to the limits. Nothing was missed up to `read_up_to`.
    pub(super) async fn read(&self, range: Range, read_up_to: Position) -> Result<ReadBatch> {
        let (range, mut parked) = self.read_parked(range).await?;
        let batch = self
            .source
            .read_keys(self.request(range), self.filter().keys)
            .await?;
        // After the events: events that are removed later were read.
        divergence::check_unread(&self.key, read_up_to, &*self.source).await?;
        let through = batch.range.through();
        parked.retain(|(_, event)| event.position <= through);
        Ok(ReadBatch { batch, parked })
    }

    /// The events of parked keys in a range, and how far they were read: at most up to the limits.
    async fn read_parked(&self, range: Range) -> Result<(Range, Vec<(EventKey, RecordedEvent)>)> {
        let keys = &self.partition_filter.parked;
        if keys.is_empty() {
            return Ok((range, Vec::new()));
        }
        let filter = self.filter().parked(Parked::Only(keys));
        let read = self
            .source
            .read_keyed(self.request(range), filter.keys)
            .await?;
        Ok((read.range, read.events))
    }

    fn request(&self, range: Range) -> ReadRequest<'_> {
        ReadRequest {
            range,
            types: self.filter().types,
            events_max: self.events_max.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
        }
    }
}

/// Batches that are read ahead, one at a time.
pub(super) struct ReadAhead {
    batches: mpsc::Receiver<Result<ReadBatch>>,
    _reading: AbortOnDropHandle<()>,
}

impl ReadAhead {
    /// Reads what `range` holds, batch by batch: the next one when the last one was taken.
    pub(super) fn read(reader: BatchReader, range: Range) -> ReadAhead {
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
        ReadAhead {
            batches,
            _reading: AbortOnDropHandle::new(tokio::spawn(reading)),
        }
    }

    /// The next batch, if there is one.
    pub(super) async fn next(&mut self) -> Option<Result<ReadBatch>> {
        self.batches.recv().await
    }
}
