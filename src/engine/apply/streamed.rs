//! Events that are read and handed to the projection: a group of batches in one transaction, each read
//! while the one before is applied. One batch is a group of one.
//!
//! **Why groups.** A row that many events of a history change is loaded and written once for each
//! transaction, and a transaction has a cost of its own. One transaction should take far more than
//! fits into memory at once.
//!
//! **The fence.** A group of one moves the checkpoint with its first statement. The end of a longer
//! group is not known when it begins: time, memory or a stop may end it after any batch. So its
//! first statement moves the checkpoint from where it is to where it is, which checks and locks
//! everything that the fence does; and before the commit a second fence moves it over what was
//! applied. No other runner can have moved the row in between.
//!
//! **Round trips.** What the projection reads first goes out behind the statements that open the
//! transaction, and what it writes last goes out with the commit, which fails where the write does.
//! So a small batch takes two round trips. Nothing that was read is used before the transaction is
//! known to be open: a runner that lost its checkpoint blames no event.
//!
//! **The projection's own statements.** After each batch of a longer group the server is asked
//! whether the transaction is still the one that the fence opened, so that nothing later is done
//! outside of it.
//!
//! **Silence.** The server ends a transaction whose client says nothing for a lease. Where batches
//! are slow to read, or the projection sends no statement, an empty statement is sent in time.
//!
//! **Failure.** If any batch fails, the whole transaction is rolled back and its range is halved.

use std::time::Instant;

use futures_util::future::join;
use tokio_util::sync::CancellationToken;

use super::executor::{Executor, Limits, Work};
use super::read_ahead::{BatchReader, ReadAhead, ReadBatch};
use super::session::Keepalive;
use super::{Applier, Session};
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::metrics::Phase;
use crate::pg::checkpoint::{self, LastEvent};
use crate::pg::dead_letter;
use crate::position::{Position, Range};
use crate::source::{Batch, BoxFuture};

mod transaction;

use transaction::Transaction;

/// Reads events and hands them to the projection.
pub(super) struct Streamed<'a>(pub(super) &'a Applier);

/// Batches for one transaction; the first was read.
struct Group<'a> {
    applier: &'a Applier,
    range: Range,
    first: ReadBatch,
    rest: RemainingBatches,
}

/// What follows the first batch of a group.
enum RemainingBatches {
    /// Nothing; this is the last event of its range.
    Nothing(LastEvent),
    /// Batches, until the token is cancelled.
    Batches(BatchReader, CancellationToken),
}

impl<'a> Executor<'a> for Streamed<'a> {
    fn prepare(
        self: Box<Self>,
        range: Range,
        limits: Limits<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Work + 'a>>> {
        Box::pin(async move {
            let group = self.0.read_group(range, limits).await?;
            Ok(Box::new(group) as Box<dyn Work + 'a>)
        })
    }

    fn apply_dead_letter<'s>(
        self: Box<Self>,
        session: &'s Session,
        event: RecordedEvent,
    ) -> BoxFuture<'s, Result<()>>
    where
        'a: 's,
    {
        Box::pin(apply_dead_letter(self.0, session, event))
    }
}

impl Work for Group<'_> {
    fn apply<'s>(self: Box<Self>, session: &'s Session) -> BoxFuture<'s, Result<Position>>
    where
        Self: 's,
    {
        Box::pin((*self).apply_on(session))
    }
}

impl Applier {
    /// Reads the first batch of a range, which may be all of it.
    async fn read_group<'a>(&'a self, range: Range, limits: Limits<'_>) -> Result<Group<'a>> {
        let mut timer = self.phase_timer();
        let reader = BatchReader::new(self, limits.events_max, limits.bytes_max);
        let first = reader.read(range, limits.read_up_to).await?;
        let is_all = first.batch.range.through() >= range.through();
        let rest = match (is_all, limits.group_until) {
            (false, Some(stop)) => RemainingBatches::Batches(reader, stop.clone()),
            _ => {
                let known = limits.last.filter(|_| is_all);
                RemainingBatches::Nothing(self.last_of(&first.batch, known).await?)
            }
        };
        timer.ended(Phase::Read, 1);
        Ok(Group {
            applier: self,
            range,
            first,
            rest,
        })
    }

    /// The last event of the range of a batch that was read.
    async fn last_of(&self, batch: &Batch, known: Option<LastEvent>) -> Result<LastEvent> {
        let through = batch.range.through();
        match (batch.events.last(), known) {
            (Some(event), _) if event.position == through => Ok(Some((through, event.id))),
            (_, Some(known)) => Ok(known),
            _ => self.source.last_at(through).await,
        }
    }
}

impl Group<'_> {
    async fn apply_on(self, session: &Session) -> Result<Position> {
        match self.rest {
            RemainingBatches::Nothing(last) => {
                apply_one(self.applier, session, self.first, last).await
            }
            RemainingBatches::Batches(reader, stop) => {
                let applier = self.applier;
                apply_many(applier, session, self.range, self.first, reader, &stop).await
            }
        }
    }
}

/// A group of one batch.
async fn apply_one(
    applier: &Applier,
    session: &Session,
    read: ReadBatch,
    last: LastEvent,
) -> Result<Position> {
    let range = read.batch.range;
    let mut transaction = Transaction::new(applier, session, range)?;
    let fence = applier.fence().text(range, last);
    let rows = transaction.open(fence, &read.batch).await?;
    transaction.take(&read, Some(rows)).await?;
    let write = transaction.last_write().await?;
    transaction.commit(write, range, Vec::new()).await
}

/// A group of batches that are read one after the other.
async fn apply_many(
    applier: &Applier,
    session: &Session,
    range: Range,
    first: ReadBatch,
    reader: BatchReader,
    stop: &CancellationToken,
) -> Result<Position> {
    let at_the_start = Range::new(range.after(), range.after());
    let mut transaction = Transaction::new(applier, session, at_the_start)?;
    let fence = applier.fence().text(at_the_start, None);
    let rows = transaction.open(fence, &first.batch).await?;
    let mut keepalive = Keepalive::new(session, applier.silence);
    let rest = Range::new(first.batch.range.through(), range.through());
    let (events_max, mut ahead) = (reader.events_max.clone(), ReadAhead::read(reader, rest));
    let mut next = Some((first, Some(rows)));
    while let Some((read, rows)) = next {
        transaction.take_at_a_pace(&read, rows, &events_max).await?;
        drop(read);
        if transaction.through >= range.through() || transaction.is_long() || stop.is_cancelled() {
            break;
        }
        let at = Instant::now();
        let read = keepalive.during(ahead.next()).await?.transpose()?;
        transaction.reading += at.elapsed();
        transaction.further_reads += 1;
        next = read.map(|read| (read, None));
    }
    drop(ahead);
    // Checked on the reader's session, while this one is busy.
    let last = applier.source.last_at(transaction.through);
    let last = keepalive.during(last);
    let (write, last) = join(transaction.last_write(), last).await;
    let (write, last) = (write?, last??);
    let taken = Range::new(range.after(), transaction.through);
    // The check comes before the second fence, which would find the row in a transaction of the
    // projection's own just as well.
    let check = checkpoint::end_batch(at_the_start);
    let fence = applier.fence().text(taken, last);
    transaction.commit(write, taken, vec![check, fence]).await
}

async fn apply_dead_letter(
    applier: &Applier,
    session: &Session,
    event: RecordedEvent,
) -> Result<()> {
    let position = event.position;
    let range = Range::new(position.previous(), position);
    let read = ReadBatch::of(Batch {
        range,
        events: vec![event],
    });
    let mut transaction = Transaction::new(applier, session, range)?;
    let fence = applier.fence().of_dead_letter(position);
    let rows = transaction.open(fence, &read.batch).await?;
    transaction.take(&read, Some(rows)).await?;
    let write = transaction.last_write().await?;
    let settle = dead_letter::settle(&applier.key, position);
    transaction.commit(write, range, vec![settle]).await?;
    Ok(())
}
