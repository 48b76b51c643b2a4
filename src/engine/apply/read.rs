//! Batches that are read out of the source, for projections in Rust.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::{MaybeDone, maybe_done, try_join};

use super::several::Several;
use super::{Applier, Limits, Session, Slice, Work, panicked};
use crate::engine::divergence;
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::metrics::Phase;
use crate::pg;
use crate::pg::checkpoint::{self, Key, LastEvent};
use crate::pg::dead_letter;
use crate::pg::transaction::{TextStatement, Tx};
use crate::position::{Position, Range};
use crate::projection::{Applying, Runnable};
use crate::source::{Batch, EventKey, Filter, Parked, ReadRequest, Source};

/// A batch that was read.
pub(in crate::engine) struct ReadBatch {
    pub(super) batch: Batch,
    /// What it passes of parked keys.
    pub(super) aside: Vec<(EventKey, RecordedEvent)>,
}

/// A batch that has a transaction of its own.
pub(in crate::engine) struct ReadWork {
    read: ReadBatch,
    /// The last event of its range.
    last: LastEvent,
}

/// Reads batches; on a task of its own if need be.
#[derive(Clone)]
pub(super) struct BatchReader {
    source: Arc<dyn Source>,
    projection: Arc<dyn Runnable>,
    key: Key,
    slice: Slice,
    /// How many events to read next: whoever applies them says so.
    pub(super) events_max: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl BatchReader {
    fn filter(&self) -> Filter<'_> {
        self.slice.filter(&self.key, &*self.projection)
    }

    /// Reads what `range` holds, up to the limits. `read_up_to` is up to where nothing was missed.
    pub(super) async fn read(&self, range: Range, read_up_to: Position) -> Result<ReadBatch> {
        let (range, mut aside) = self.read_parked(range).await?;
        let batch = self
            .source
            .read_keys(self.request(range), self.filter().keys)
            .await?;
        // After the events: what was removed later had been read.
        divergence::check_unread(&self.key, read_up_to, &*self.source).await?;
        let through = batch.range.through();
        aside.retain(|(_, event)| event.position <= through);
        Ok(ReadBatch { batch, aside })
    }

    /// The events of parked keys in a range, and how far they were read: at most up to the limits.
    async fn read_parked(&self, range: Range) -> Result<(Range, Vec<(EventKey, RecordedEvent)>)> {
        if self.slice.parked.is_empty() {
            return Ok((range, Vec::new()));
        }
        let filter = self.filter().parked(Parked::Only(&self.slice.parked));
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

impl Applier {
    /// Reads the first batch of a range, which may be all of it.
    pub(super) async fn read_events(&self, range: Range, limits: Limits<'_>) -> Result<Work<'_>> {
        let mut laps = self.laps();
        let reader = BatchReader {
            source: self.source.clone(),
            projection: self.projection.clone(),
            key: self.key.clone(),
            slice: self.slice.clone(),
            events_max: Arc::new(AtomicUsize::new(limits.events_max)),
            bytes_max: limits.bytes_max,
        };
        let read = reader.read(range, limits.read_up_to).await?;
        let is_all = read.batch.range.through() >= range.through();
        if let (false, Some(stop)) = (is_all, limits.several) {
            laps.ended(Phase::Read, 1);
            return Ok(Work::Several(Several::new(
                range,
                read,
                reader,
                stop.clone(),
            )));
        }
        let last = self.last_of(&read, limits.last.filter(|_| is_all)).await?;
        laps.ended(Phase::Read, 1);
        Ok(Work::Read(ReadWork { read, last }))
    }

    /// The last event of the range of a batch that was read.
    async fn last_of(&self, read: &ReadBatch, known: Option<LastEvent>) -> Result<LastEvent> {
        let through = read.batch.range.through();
        match (read.batch.events.last(), known) {
            (Some(event), _) if event.position == through => Ok(Some((through, event.id))),
            (_, Some(known)) => Ok(known),
            _ => self.source.last_at(through).await,
        }
    }

    /// Where the projection allows it, what it reads first goes out behind the opening, and what it writes last
    /// together with the commit: a small batch takes two round trips.
    pub(super) async fn apply_batch(&self, session: &Session, work: &ReadWork) -> Result<Position> {
        let ReadWork { read, last } = work;
        let range = read.batch.range;
        let fence = self.fence().text(range, *last);
        let mut laps = self.laps();
        let begin = async {
            self.begin_read(session, range, &fence).await?;
            laps.ended(Phase::Checkpoint, 1);
            Ok(())
        };
        if read.batch.events.is_empty() {
            begin.await?;
            self.end_batch(session, read, None).await?;
        } else {
            let mut applying = self.applying(session)?;
            take_after(begin, &mut *applying, &read.batch).await?;
            let last = unpanicked(applying.finish_but_last()).await?;
            laps.ended(Phase::Apply, 0);
            self.end_batch(session, read, last).await?;
        }
        laps.ended(Phase::Commit, 1);
        Ok(range.through())
    }

    /// Sets aside what is to be, and commits; `last` is what the projection has not sent yet.
    async fn end_batch(
        &self,
        session: &Session,
        read: &ReadBatch,
        last: Option<TextStatement>,
    ) -> Result<()> {
        let check = self.put_aside(session, &read.aside).await?;
        let check = check.unwrap_or_default();
        let end = self.end_read(session, read.batch.range, &check);
        let Some(last) = last else {
            return end.await;
        };
        let tx = Tx::new(session.client());
        end_behind(tx.execute_text(&last), end).await
    }

    /// Opens the transaction of a batch that was read.
    pub(super) async fn begin_read(
        &self,
        session: &Session,
        range: Range,
        fence: &str,
    ) -> Result<()> {
        let (opening, place) = (self.opening.as_str(), self.place_of_work(range));
        let begin = format!("{opening};\n{fence};\n{place}");
        let begun = session.client().batch_execute(&begin).await;
        begun.map_err(|e| pg::error("cannot begin the batch", e))?;
        failpoint!("batch.fenced");
        Ok(())
    }

    /// Applies one batch by itself.
    pub(super) async fn apply_events(&self, session: &Session, batch: &Batch) -> Result<()> {
        if batch.events.is_empty() {
            return Ok(());
        }
        let mut applying = self.applying(session)?;
        unpanicked(applying.take(batch)).await?;
        unpanicked(applying.finish()).await
    }

    pub(super) fn applying<'a>(&'a self, session: &'a Session) -> Result<Box<dyn Applying + 'a>> {
        self.projection.begin(Tx::new(session.client()))
    }

    /// Sets aside what a batch passes of parked keys. Gives the statement that is to follow then.
    pub(super) async fn put_aside(
        &self,
        session: &Session,
        aside: &[(EventKey, RecordedEvent)],
    ) -> Result<Option<String>> {
        if aside.is_empty() {
            return Ok(None);
        }
        dead_letter::insert(session.client(), &self.key, aside, None).await?;
        Ok(Some(format!("{};\n", self.parking.check(&self.key))))
    }

    /// Commits a batch that was read, after the statements in `last`.
    pub(super) async fn end_read(&self, session: &Session, range: Range, last: &str) -> Result<()> {
        failpoint!("batch.applied");
        let end = format!("{last}{};\ncommit", checkpoint::end_batch(range));
        let ended = session.client().batch_execute(&end).await;
        ended.map_err(|e| self.explain_full(pg::error("cannot commit the batch", e)))
    }
}

/// Takes a batch once its transaction is open; what only reads is sent without waiting for that.
async fn take_after(
    begin: impl Future<Output = Result<()>>,
    applying: &mut dyn Applying,
    batch: &Batch,
) -> Result<()> {
    if !applying.reads_first() {
        begin.await?;
        return unpanicked(applying.take(batch)).await;
    }
    let mut begin = pin!(maybe_done(begin));
    let mut taking = pin!(maybe_done(unpanicked(applying.take(batch))));
    sent(begin.as_mut()).await;
    sent(taking.as_mut()).await;
    // Nothing of what was read is used before the transaction is known to be open, and no fault of an event
    // is told by who may not apply it.
    answered(begin).await?;
    answered(taking).await
}

/// Sends what a future sends when it is first polled.
async fn sent<F: Future>(mut future: Pin<&mut MaybeDone<F>>) {
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn answered(mut future: Pin<&mut MaybeDone<impl Future<Output = Result<()>>>>) -> Result<()> {
    future.as_mut().await;
    future.take_output().unwrap_or(Ok(()))
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
pub(super) async fn unpanicked<T>(applying: impl Future<Output = Result<T>>) -> Result<T> {
    let applied = AssertUnwindSafe(applying).catch_unwind().await;
    applied.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, ready};
    use std::sync::Mutex;

    use tokio::task::yield_now;

    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::source::BoxFuture;

    /// Writes down when it is asked to take a batch, and fails at once.
    struct Faulty<'a> {
        said: &'a Mutex<Vec<&'static str>>,
        reads_first: bool,
    }

    impl Applying for Faulty<'_> {
        fn take<'a>(&'a mut self, _: &'a Batch) -> BoxFuture<'a, Result<()>> {
            Box::pin(async {
                self.said.lock().unwrap().push("taken");
                Err(Error::new(ErrorKind::Undigestible, "a fault of the event"))
            })
        }

        fn finish(&mut self) -> BoxFuture<'_, Result<()>> {
            Box::pin(pending())
        }

        fn reads_first(&self) -> bool {
            self.reads_first
        }
    }

    fn nothing() -> Batch {
        Batch {
            range: Range::new(Position::new(1), Position::new(2)),
            events: Vec::new(),
        }
    }

    async fn taken(
        reads_first: bool,
        opening: impl Future<Output = Result<()>>,
    ) -> (ErrorKind, Vec<&'static str>) {
        let said = Mutex::new(Vec::new());
        let begin = async {
            said.lock().unwrap().push("sent");
            yield_now().await;
            said.lock().unwrap().push("answered");
            opening.await
        };
        let mut applying = Faulty {
            said: &said,
            reads_first,
        };
        let error = take_after(begin, &mut applying, &nothing())
            .await
            .unwrap_err();
        (error.kind(), said.into_inner().unwrap())
    }

    #[tokio::test]
    async fn what_only_reads_is_sent_behind_the_opening_without_waiting_for_its_answer() {
        let (kind, said) = taken(true, ready(Ok(()))).await;
        assert_eq!(kind, ErrorKind::Undigestible);
        assert_eq!(said, ["sent", "taken", "answered"]);
        let (kind, said) = taken(false, ready(Ok(()))).await;
        assert_eq!(kind, ErrorKind::Undigestible);
        assert_eq!(said, ["sent", "answered", "taken"]);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_not_committed() {
        let unsent = Error::new(ErrorKind::Internal, "too large to be sent");
        let mut committed = false;
        let end = async {
            committed = true;
            Ok(())
        };
        let ended = end_behind(ready(Err(unsent)), end).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Internal);
        assert!(!committed);
    }

    #[tokio::test]
    async fn the_error_of_the_last_statement_is_told_not_that_of_the_commit_behind_it() {
        let refused = async {
            yield_now().await;
            Err(Error::new(ErrorKind::Locked, "a deadlock"))
        };
        let aborted = ready(Err(Error::new(
            ErrorKind::Apply,
            "the transaction is aborted",
        )));
        let ended = end_behind(refused, aborted).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Locked);
    }

    #[tokio::test]
    async fn nothing_that_was_read_is_used_before_the_transaction_is_open() {
        struct ReadsThenWrites<'a>(&'a AtomicUsize);
        impl Applying for ReadsThenWrites<'_> {
            fn take<'a>(&'a mut self, _: &'a Batch) -> BoxFuture<'a, Result<()>> {
                Box::pin(async {
                    yield_now().await;
                    self.0.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            }
            fn finish(&mut self) -> BoxFuture<'_, Result<()>> {
                Box::pin(pending())
            }
            fn reads_first(&self) -> bool {
                true
            }
        }
        let written = AtomicUsize::new(0);
        let begin = async {
            // Its answer is used later than that of what was sent behind it.
            for _ in 0..10 {
                yield_now().await;
            }
            Err(Error::new(
                ErrorKind::Fenced,
                "the checkpoint is somebody else's",
            ))
        };
        let mut applying = ReadsThenWrites(&written);
        let taken = take_after(begin, &mut applying, &nothing()).await;
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(written.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn who_may_not_apply_an_event_does_not_tell_its_faults() {
        for reads_first in [true, false] {
            let fenced = Error::new(ErrorKind::Fenced, "the checkpoint is somebody else's");
            let opening = RefCell::new(Some(fenced));
            let opening = async { Err(opening.take().unwrap()) };
            let (kind, _) = taken(reads_first, opening).await;
            assert_eq!(kind, ErrorKind::Fenced);
        }
    }
}
