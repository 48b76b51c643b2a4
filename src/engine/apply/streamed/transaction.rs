//! The transaction that a group of batches is applied in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{join, try_join};
use tokio_postgres::Row;

use crate::engine::apply::pace::Pace;
use crate::engine::apply::read_ahead::ReadBatch;
use crate::engine::apply::{Applier, Session, panicked};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::metrics::{self, Phase};
use crate::pg;
use crate::pg::checkpoint;
use crate::pg::dead_letter;
use crate::pg::sql::Sql;
use crate::pg::transaction::{COMMIT, TextStatement, Tx};
use crate::position::{Position, Range};
use crate::projection::BatchWriter;
use crate::source::Batch;

/// The transaction that a group is applied in.
pub(super) struct Transaction<'s> {
    applier: &'s Applier,
    session: &'s Session,
    writer: Box<dyn BatchWriter + 's>,
    pace: Pace,
    /// The range of its first fence: empty where the end is not known yet.
    fenced: Range,
    /// How far it has come.
    pub(super) through: Position,
    /// Dead letters were added.
    parks: bool,
    began: Instant,
    opening: Duration,
    pub(super) reading: Duration,
    applying: Duration,
    pub(super) further_reads: u64,
}

impl<'s> Transaction<'s> {
    pub(super) fn new(
        applier: &'s Applier,
        session: &'s Session,
        fenced: Range,
    ) -> Result<Transaction<'s>> {
        let writer = applier.projection.begin(Tx::new(session.client()))?;
        Ok(Transaction {
            pace: Pace::new(applier.transaction_time, writer.gains_by_many()),
            writer,
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
    pub(super) async fn open(&mut self, fence: Sql, batch: &Batch) -> Result<Vec<Row>> {
        let (prologue, path) = (self.applier.prologue.sql(), self.applier.set_search_path());
        let begin = Sql::message([prologue, fence, path]);
        let tx = Tx::new(self.session.client());
        let first_read = self.first_read(batch);
        let read =
            first_read.map(|read| read.map(|read| async move { tx.query_text(&read).await }));
        let began = async {
            let begun = self.session.client().batch_execute(&begin).await;
            begun.map_err(|e| pg::error("cannot begin the batch", e))?;
            failpoint!("batch.fenced");
            Ok(())
        };
        let rows = read_behind(began, read).await?;
        self.opening = self.began.elapsed();
        Ok(rows)
    }

    /// What the projection reads before it applies a batch.
    fn first_read(&mut self, batch: &Batch) -> Result<Option<TextStatement>> {
        if batch.events.is_empty() {
            return Ok(None);
        }
        // Nothing of the writer is used after a panic.
        let read = catch_unwind(AssertUnwindSafe(|| self.writer.first_read(batch)));
        read.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    /// Applies a batch; `rows` is what the projection reads first of it, if that was read.
    pub(super) async fn take(&mut self, read: &ReadBatch, rows: Option<Vec<Row>>) -> Result<()> {
        let at = Instant::now();
        if !read.batch.events.is_empty() {
            self.apply(&read.batch, rows).await?;
        }
        if !read.parked.is_empty() {
            let client = self.session.client();
            dead_letter::insert(client, &self.applier.key, &read.parked, None).await?;
            self.parks = true;
        }
        self.through = read.batch.range.through();
        self.applying += at.elapsed();
        Ok(())
    }

    async fn apply(&mut self, batch: &Batch, rows: Option<Vec<Row>>) -> Result<()> {
        let rows = match rows {
            Some(rows) => rows,
            None => self.read(batch).await?,
        };
        unpanicked(self.writer.apply(batch, rows)).await?;
        match self.fenced.is_empty() {
            true => check_open(self.session, self.fenced).await,
            false => Ok(()),
        }
    }

    /// As [`Transaction::take`], and says how many events the next batch may have.
    pub(super) async fn take_at_a_pace(
        &mut self,
        read: &ReadBatch,
        rows: Option<Vec<Row>>,
        events_max: &AtomicUsize,
    ) -> Result<()> {
        let at = Instant::now();
        self.take(read, rows).await?;
        let events = read.batch.events.len();
        if events > 0 {
            let next = self.pace.next_events(events, at.elapsed());
            events_max.store(next, Ordering::Relaxed);
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
    pub(super) fn is_long(&self) -> bool {
        self.began.elapsed() >= self.pace.transaction
    }

    /// Writes what the projection has not written yet, except the statement that is returned.
    pub(super) async fn last_write(&mut self) -> Result<Option<TextStatement>> {
        let at = Instant::now();
        let write = unpanicked(self.writer.last_write()).await;
        self.applying += at.elapsed();
        write
    }

    /// Commits `range`, behind the last write; `before` is what goes before the last check.
    pub(super) async fn commit(
        self,
        write: Option<TextStatement>,
        range: Range,
        before: Vec<Sql>,
    ) -> Result<Position> {
        let ending = Instant::now();
        let applier = self.applier;
        let limits = self.parks.then(|| applier.parking.check(&applier.key));
        let last = [checkpoint::end_batch(range), COMMIT];
        let end = Sql::message(limits.into_iter().chain(before).chain(last));
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
    asked.map_err(|e| pg::error("cannot continue the batch", e))
}

/// Sends what the projection reads first behind what opens the transaction, without waiting for its
/// answer; reads the answers in their order, also if there is nothing to read.
async fn read_behind<R>(
    open: impl Future<Output = Result<()>>,
    read: Result<Option<impl Future<Output = Result<Vec<R>>>>>,
) -> Result<Vec<R>> {
    let Ok(Some(read)) = read else {
        open.await?;
        read?;
        return Ok(Vec::new());
    };
    let (opened, rows) = join(open, read).await;
    opened?;
    rows
}

/// Sends the commit behind the last statement, without waiting for its answer.
async fn end_behind(
    last: impl Future<Output = Result<u64>>,
    end: impl Future<Output = Result<()>>,
) -> Result<()> {
    // In this order: the commit must not follow a statement that could not be sent. If the server
    // refuses the statement, the commit fails too, with a poorer message.
    let ending = async { Ok(end.await) };
    let (_, ended) = try_join(last, ending).await?;
    ended
}

/// A panic of the projection's code as an error. Its state is not used afterwards: its transaction
/// is rolled back.
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
        let rows = read_behind(open, Ok(Some(read))).await.unwrap();
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
                error(ErrorKind::Fenced)
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
    async fn the_error_of_the_last_statement_is_reported_not_that_of_the_commit_after_it() {
        let refused = async {
            yield_now().await;
            error(ErrorKind::Locked)
        };
        let ended = end_behind(refused, ready(error(ErrorKind::Apply))).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Locked);
    }
}
