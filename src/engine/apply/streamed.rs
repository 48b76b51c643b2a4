//! Events that are read and handed to the projection: a group of batches in one transaction, each read
//! while the one before is applied. One batch is a group of one.
//!
//! **Why groups.** A row that many events of a history change is loaded and written once for each
//! transaction, and a transaction has a cost of its own. What fits into memory at once is far less
//! than what is worth one transaction.
//!
//! **The fence.** A group of one moves the checkpoint with its first statement. How far a longer one will
//! come is not known when it begins: time, memory or a stop may end it after any batch. So its first
//! statement moves the checkpoint from where it is to where it is, which demands and locks all that the
//! fence does; and before the commit a second fence moves it over what was applied. Nobody else can have
//! moved the row in between.
//!
//! **Round trips.** What the projection reads first goes out behind the statements that open the
//! transaction, and what it writes last goes out with the commit, which fails where the write does. So a
//! small batch takes two round trips. Nothing of what was read is used before the transaction is known to
//! be open: a runner that lost its checkpoint tells no fault of an event.
//!
//! **The projection's own statements.** After each batch of a longer group the server is asked whether the
//! transaction is still the one that the fence opened: nothing that follows is done outside of it.
//!
//! **Silence.** The server ends a transaction whose client says nothing for a lease. Where batches are
//! slow to read, or the projection has nothing to say, an empty statement is sent in time.
//!
//! **Failure.** Whichever batch fails, the transaction is rolled back as a whole and its range halved.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{join, try_join};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;

use super::executor::{Executor, Limits, Work};
use super::read_ahead::{Ahead, BatchReader, ReadBatch, next_events};
use super::session::Keepalive;
use super::{Applier, Session, panicked};
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::metrics::{self, Phase};
use crate::pg;
use crate::pg::checkpoint::{self, LastEvent};
use crate::pg::dead_letter;
use crate::pg::transaction::{TextStatement, Tx};
use crate::position::{Position, Range};
use crate::projection::BatchWriter;
use crate::source::{Batch, BoxFuture};

/// A transaction takes no further batch after this time: long enough that what it costs to load and
/// write rows counts little, short enough that others see how far it has come.
const BATCHES_FOR: Duration = Duration::from_secs(3);
/// The same where nothing is kept from one batch to the next: what it writes again and again in one
/// transaction the server can only clear away after it.
const BATCHES_FOR_EACH: Duration = Duration::from_millis(500);

/// Reads events and hands them to the projection.
pub(super) struct Streamed<'a>(pub(super) &'a Applier);

/// Batches for one transaction, the first of which was read.
struct Group<'a> {
    applier: &'a Applier,
    range: Range,
    first: ReadBatch,
    rest: Rest,
}

/// What follows the first batch of a group.
enum Rest {
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
            (false, Some(stop)) => Rest::Batches(reader, stop.clone()),
            _ => {
                let known = limits.last.filter(|_| is_all);
                Rest::Nothing(self.last_of(&first.batch, known).await?)
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
            Rest::Nothing(last) => apply_one(self.applier, session, self.first, last).await,
            Rest::Batches(reader, stop) => {
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
    let rows = transaction.open(&fence, range, &read.batch).await?;
    transaction.take(&read, Some(rows)).await?;
    let write = transaction.last_write().await?;
    transaction.commit(write, range, "").await
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
    let rows = transaction.open(&fence, range, &first.batch).await?;
    let mut keepalive = Keepalive::new(session, applier.silence);
    let rest = Range::new(first.batch.range.through(), range.through());
    let (pace, mut ahead) = (reader.events_max.clone(), Ahead::read(reader, rest));
    let mut next = Some((first, Some(rows)));
    while let Some((read, rows)) = next {
        transaction.take_at_a_pace(&read, rows, &pace).await?;
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
    // Asked on the reader's session, while this one is at work.
    let last = applier.source.last_at(transaction.through);
    let last = keepalive.during(last);
    let (write, last) = join(transaction.last_write(), last).await;
    let (write, last) = (write?, last??);
    let taken = Range::new(range.after(), transaction.through);
    // The check comes before the second fence, which would find the row in a transaction of the
    // projection's own just as well.
    let check = checkpoint::end_batch(at_the_start);
    let fence = applier.fence().text(taken, last);
    transaction
        .commit(write, taken, &format!("{check};\n{fence};\n"))
        .await
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
    let fence = applier.fence().of_letter(position);
    let rows = transaction.open(&fence, range, &read.batch).await?;
    transaction.take(&read, Some(rows)).await?;
    let write = transaction.last_write().await?;
    let settle = dead_letter::settle(&applier.key, position);
    transaction
        .commit(write, range, &format!("{settle};\n"))
        .await?;
    Ok(())
}

/// The transaction that a group is applied in.
struct Transaction<'s> {
    applier: &'s Applier,
    session: &'s Session,
    writer: Box<dyn BatchWriter + 's>,
    /// The range that its first fence was given: empty where it is not known how far it will come.
    fenced: Range,
    /// How far it has come.
    through: Position,
    /// Dead letters were added.
    parks: bool,
    began: Instant,
    opening: Duration,
    reading: Duration,
    applying: Duration,
    further_reads: u64,
}

impl<'s> Transaction<'s> {
    fn new(applier: &'s Applier, session: &'s Session, fenced: Range) -> Result<Transaction<'s>> {
        Ok(Transaction {
            writer: applier.projection.begin(Tx::new(session.client()))?,
            applier,
            session,
            fenced,
            through: fenced.after(),
            parks: false,
            began: Instant::now(),
            opening: Duration::ZERO,
            reading: Duration::ZERO,
            applying: Duration::ZERO,
            further_reads: 0,
        })
    }

    /// Opens it, and reads what the projection reads first of a batch: both are sent at once.
    async fn open(&mut self, fence: &str, range: Range, batch: &Batch) -> Result<Vec<Row>> {
        let (opening, place) = (
            self.applier.opening.as_str(),
            self.applier.place_of_work(range),
        );
        let begin = format!("{opening};\n{fence};\n{place}");
        let tx = Tx::new(self.session.client());
        let first_read = self.first_read(batch);
        let read =
            first_read.map(|read| read.map(|read| async move { tx.query_text(&read).await }));
        let began = async {
            let begun = self.session.client().batch_execute(&begin).await;
            begun.map_err(|e| pg::error("cannot begin the batch", e))?;
            failpoint!("batch.fenced");
            Ok(self.began.elapsed())
        };
        let (opening, rows) = read_behind(began, read).await?;
        self.opening = opening;
        Ok(rows)
    }

    /// What the projection reads before it applies a batch.
    fn first_read(&mut self, batch: &Batch) -> Result<Option<TextStatement>> {
        if batch.events.is_empty() {
            return Ok(None);
        }
        // Nothing of the writer is looked at after a panic.
        let read = catch_unwind(AssertUnwindSafe(|| self.writer.first_read(batch)));
        read.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    /// Applies a batch; `rows` is what the projection reads first of it, if that was read.
    async fn take(&mut self, read: &ReadBatch, rows: Option<Vec<Row>>) -> Result<()> {
        let batch = &read.batch;
        if !batch.events.is_empty() {
            let rows = match rows {
                Some(rows) => rows,
                None => self.read(batch).await?,
            };
            unpanicked(self.writer.apply(batch, rows)).await?;
            if self.fenced.is_empty() {
                check_open(self.session, self.fenced).await?;
            }
        }
        if !read.parked.is_empty() {
            let client = self.session.client();
            dead_letter::insert(client, &self.applier.key, &read.parked, None).await?;
            self.parks = true;
        }
        self.through = batch.range.through();
        Ok(())
    }

    /// The same, and says how many events the next batch may have.
    async fn take_at_a_pace(
        &mut self,
        read: &ReadBatch,
        rows: Option<Vec<Row>>,
        pace: &AtomicUsize,
    ) -> Result<()> {
        let at = Instant::now();
        self.take(read, rows).await?;
        let (events, took) = (read.batch.events.len(), at.elapsed());
        self.applying += took;
        if events > 0 {
            pace.store(next_events(events, took), Ordering::Relaxed);
        }
        Ok(())
    }

    async fn read(&mut self, batch: &Batch) -> Result<Vec<Row>> {
        match self.first_read(batch)? {
            Some(read) => Tx::new(self.session.client()).query_text(&read).await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether it takes no further batch.
    fn is_long(&self) -> bool {
        let limit = match self.writer.gains_by_many() {
            true => BATCHES_FOR,
            false => BATCHES_FOR_EACH,
        };
        self.began.elapsed() >= limit
    }

    /// Writes what the projection has not written yet, but for the statement that is returned.
    async fn last_write(&mut self) -> Result<Option<TextStatement>> {
        unpanicked(self.writer.last_write()).await
    }

    /// Commits `range`, behind the last write; `before` is what goes before the last check.
    async fn commit(
        self,
        write: Option<TextStatement>,
        range: Range,
        before: &str,
    ) -> Result<Position> {
        let ending = Instant::now();
        let applier = self.applier;
        let limits = match self.parks {
            true => format!("{};\n", applier.parking.check(&applier.key)),
            false => String::new(),
        };
        let check = checkpoint::end_batch(range);
        let end = format!("{limits}{before}{check};\ncommit");
        let ended = async {
            failpoint!("batch.applied");
            let ended = self.session.client().batch_execute(&end).await;
            ended.map_err(|e| applier.explain_full(pg::error("cannot commit the batch", e)))
        };
        match &write {
            None => ended.await?,
            Some(write) => {
                let tx = Tx::new(self.session.client());
                end_behind(tx.execute_text(write), ended).await?;
            }
        }
        self.record(ending.elapsed());
        Ok(self.through)
    }

    fn record(&self, committing: Duration) {
        let name = &self.applier.key.projection;
        metrics::phase(name, Phase::Checkpoint, self.opening);
        metrics::phase(name, Phase::Apply, self.applying);
        metrics::phase(name, Phase::Commit, committing);
        if self.further_reads > 0 {
            metrics::phase(name, Phase::Read, self.reading);
        }
        metrics::round_trips(name, self.further_reads + 2);
    }
}

/// Fails unless the transaction is still the one that the fence opened.
async fn check_open(session: &Session, fenced: Range) -> Result<()> {
    let check = checkpoint::end_batch(fenced);
    let asked = session.client().batch_execute(&check).await;
    asked.map_err(|e| pg::error("cannot go on with the batch", e))
}

/// Sends what the projection reads first behind what opens the transaction, without waiting for that
/// one's answer; but looks at the answers in their order, also where there is nothing to be read.
async fn read_behind<O, R>(
    open: impl Future<Output = Result<O>>,
    read: Result<Option<impl Future<Output = Result<Vec<R>>>>>,
) -> Result<(O, Vec<R>)> {
    let Ok(Some(read)) = read else {
        let opened = open.await?;
        read?;
        return Ok((opened, Vec::new()));
    };
    let (opened, rows) = join(open, read).await;
    Ok((opened?, rows?))
}

/// Sends the commit behind the last statement, without waiting for that one's answer.
async fn end_behind(
    last: impl Future<Output = Result<u64>>,
    end: impl Future<Output = Result<()>>,
) -> Result<()> {
    // In this order: one that could not even be sent must not be followed by the commit. Where the server
    // refuses it the commit fails too, and says less of it.
    let ending = async { Ok(end.await) };
    let (_, ended) = try_join(last, ending).await?;
    ended
}

/// A panic of the projection's code as an error. Nothing of it is looked at afterwards: its
/// transaction is rolled back.
async fn unpanicked<T>(applying: impl Future<Output = Result<T>>) -> Result<T> {
    let applied = AssertUnwindSafe(applying).catch_unwind().await;
    applied.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use tokio::task::yield_now;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn error<T>(kind: ErrorKind) -> Result<T> {
        Err(Error::new(kind, "an error"))
    }

    #[tokio::test]
    async fn what_is_read_first_is_sent_behind_the_opening_without_waiting_for_its_answer() {
        let log = RefCell::new(Vec::new());
        let open = async {
            log.borrow_mut().push("open sent");
            yield_now().await;
            log.borrow_mut().push("open answered");
            Ok(())
        };
        let read = async {
            log.borrow_mut().push("read sent");
            Ok(vec![1])
        };
        let (_, rows) = read_behind(open, Ok(Some(read))).await.unwrap();
        assert_eq!(rows, [1]);
        assert_eq!(
            log.into_inner(),
            ["open sent", "read sent", "open answered"]
        );
    }

    #[tokio::test]
    async fn a_runner_that_lost_its_checkpoint_tells_no_fault_of_an_event() {
        type Read = std::future::Ready<Result<Vec<u8>>>;
        let reads: [Result<Option<Read>>; 4] = [
            Ok(None),
            Ok(Some(ready(Ok(vec![1])))),
            Ok(Some(ready(error(ErrorKind::Apply)))),
            error(ErrorKind::Undigestible),
        ];
        for read in reads {
            let fenced = async {
                yield_now().await;
                error::<()>(ErrorKind::Fenced)
            };
            let opened = read_behind(fenced, read).await;
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::Fenced);
        }
        let undigestible = error::<Option<Read>>(ErrorKind::Undigestible);
        let opened = read_behind(ready(Ok(())), undigestible).await;
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Undigestible);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_not_committed() {
        let mut committed = false;
        let end = async {
            committed = true;
            Ok(())
        };
        let ended = end_behind(ready(error(ErrorKind::Internal)), end).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Internal);
        assert!(!committed);
    }

    #[tokio::test]
    async fn the_error_of_the_last_statement_is_told_not_that_of_the_commit_behind_it() {
        let refused = async {
            yield_now().await;
            error(ErrorKind::Locked)
        };
        let ended = end_behind(refused, ready(error(ErrorKind::Apply))).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Locked);
    }
}
