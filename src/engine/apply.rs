//! One batch, one transaction: the fence first, the read model, then the commit.
//!
//! Only this file opens the transaction that holds read-model rows and checkpoint. Where source
//! and read model share a database, everything goes to the server in one message and no event
//! leaves it. A session whose transaction did not end is not given back to the pool.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{FutureExt, StreamExt, pin_mut};
use tokio_postgres::SimpleQueryMessage;

use super::divergence;
use super::progress::Known;
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::metrics::Phase;
use crate::pg::checkpoint::{self, Counted, Epoch, Fence, Key, LastEvent};
use crate::pg::connect::PooledClient;
use crate::pg::database::Database;
use crate::pg::dead_letter::{self, ParkingLimits};
use crate::pg::transaction::{Opening, Tx};
use crate::pg::{self, quote_identifier, quote_literal};
use crate::position::{Position, Range};
use crate::projection::{Runnable, Statements};
use crate::source::{Batch, EventKey, Filter, Keys, Parked, Partition, ReadRequest, Source};

pub(super) mod batch;
mod park;
mod session;
mod timing;

use batch::{BatchText, Woven};
use timing::{Answer, Laps};

pub(super) use session::{InFlight, Session};

/// What applying batches needs, the same for every batch of a claim.
pub(super) struct Applier {
    pub(super) target: Database,
    pub(super) source: Arc<dyn Source>,
    pub(super) projection: Arc<dyn Runnable>,
    pub(super) key: Key,
    pub(super) epoch: Epoch,
    pub(super) slice: Slice,
    /// How much may be parked.
    pub(super) parking: ParkingLimits,
    /// The schema that holds this generation.
    pub(super) schema: String,
    /// How each batch's transaction begins.
    pub(super) opening: Opening,
    /// What a large batch may take of the server's memory for each sort or hash, at least.
    pub(super) work_mem_mb: u32,
    pub(super) in_flight: InFlight,
}

/// Which events are this runner's, as its checkpoint's row said when it was last read. The fence
/// compares `parking`, so a picture that is out of date cannot commit.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// Of how many partitions its checkpoint's is one.
    pub(super) partitions: i32,
    /// Rises whenever keys are parked or set free.
    pub(super) parking: i64,
    /// The keys of this partition that are parked.
    pub(super) parked: Arc<[EventKey]>,
}

/// What a batch applies, known before a session is taken for it: a runner that held one session
/// while it waited for another could wait for its like for ever.
pub(super) enum Work<'a> {
    /// The server reads the range itself.
    InServer(InServer<'a>),
    /// The events were read.
    Read(ReadWork),
}

/// A batch whose events stay in the server.
pub(super) struct InServer<'a> {
    statements: Statements<'a>,
    /// What it is read from.
    relation: &'a str,
    read_up_to: Position,
    /// What the fence is told of its range, if the reader's own rows say it.
    passed: Option<Passed>,
}

/// A batch that was read.
pub(super) struct ReadWork {
    batch: Batch,
    /// What it passes of parked keys.
    aside: Vec<(EventKey, RecordedEvent)>,
    /// The last event of the log at or before its end.
    last: LastEvent,
    /// What the ledger counts of its range.
    counted: Counted,
}

/// What the checkpoint has to know of a range.
#[derive(Clone, Copy)]
pub(super) struct Passed {
    last: LastEvent,
    counted: Counted,
}

/// How much one batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events_max: usize,
    pub(super) bytes_max: usize,
    /// Up to where the runner knows that it has missed nothing.
    pub(super) read_up_to: Position,
    /// What the reader's own rows say of the range.
    pub(super) known: Option<Known>,
}

impl Applier {
    /// A session to apply on, with the moment it was opened.
    pub(super) async fn session(&self) -> Result<(PooledClient, Instant)> {
        let client = self.target.client().await?;
        let opened = PooledClient::metrics(&client).created;
        Ok((client, opened))
    }

    /// Which events a batch holds: those of the wanted types and the partition's keys, without
    /// the parked ones.
    pub(super) fn filter(&self) -> Filter<'_> {
        let definition = self.projection.definition();
        Filter {
            types: definition.events.as_deref(),
            keys: Keys {
                key: &definition.key,
                partition: Partition {
                    number: self.key.partition,
                    of: self.slice.partitions,
                },
                parked: Parked::Without(&self.slice.parked),
            },
        }
    }

    /// Reads what `range` holds, up to the limits, unless the server can do so by itself.
    pub(super) async fn read(&self, range: Range, limits: Limits) -> Result<Work<'_>> {
        let known = limits.known.and_then(|known| self.passed_as(known));
        let in_server = self.projection.statements().zip(self.source.relation());
        if let Some((statements, relation)) = in_server {
            return Ok(Work::InServer(InServer {
                statements,
                relation,
                read_up_to: limits.read_up_to,
                passed: known,
            }));
        }
        let whole = range;
        let mut laps = self.laps();
        let (range, mut aside) = self.read_parked(range, limits).await?;
        let request = ReadRequest {
            range,
            filter: self.filter(),
            events_max: limits.events_max,
            bytes_max: limits.bytes_max,
        };
        let batch = self.source.read(request).await?;
        // After the events: what was removed later had been read.
        divergence::check_unread(&self.key, limits.read_up_to, &*self.source).await?;
        let through = batch.range.through();
        aside.retain(|(_, event)| event.position <= through);
        let known = known.filter(|_| batch.range == whole);
        let last = match (batch.events.last(), known) {
            (Some(event), _) if event.position == through => Some((event.position, event.id)),
            (_, Some(known)) => known.last,
            _ => self.source.last_at(through).await?,
        };
        let counted = match self.counted_by_reading(&batch).or(known.map(|k| k.counted)) {
            Some(counted) => counted,
            None => self.source.count(batch.range, self.filter()).await?,
        };
        laps.ended(Phase::Read, 1);
        Ok(Work::Read(ReadWork {
            batch,
            aside,
            last,
            counted,
        }))
    }

    /// What the fence is told of a range that the reader knows: nothing of partitions and parked keys.
    fn passed_as(&self, known: Known) -> Option<Passed> {
        let Filter { keys, .. } = self.filter();
        let is_whole = keys.partition.of <= 1 && keys.named().is_empty();
        is_whole.then_some(Passed {
            last: known.last,
            counted: Counted {
                scanned: known.events,
                own: known.wanted,
                aside: 0,
            },
        })
    }

    /// What was read is all there is, where nothing is filtered out.
    fn counted_by_reading(&self, batch: &Batch) -> Option<Counted> {
        let Filter { types, keys } = self.filter();
        let all = types.is_none() && keys.partition.of <= 1 && keys.named().is_empty();
        let count = batch.events.len() as u64;
        all.then_some(Counted {
            scanned: count,
            own: count,
            aside: 0,
        })
    }

    /// Applies what `range` holds and moves the checkpoint to the end of it. Returns how far it
    /// went: less than the range where the limits cut what was read.
    ///
    /// `client` is covered by the mark ([`super::progress::Following::covers`]), so the server did
    /// not crash since the mark was proven, and what was read meanwhile is still true.
    pub(super) async fn apply(
        &self,
        client: PooledClient,
        range: Range,
        work: Work<'_>,
    ) -> Result<Position> {
        let mut session = Session::new(client, &self.in_flight);
        let through = match work {
            Work::Read(work) => self.apply_batch(&session, &work).await,
            Work::InServer(work) => self.apply_in_server(&session, work, range).await,
        };
        session.finish(through.as_ref().err()).await;
        let through = through?;
        failpoint!("batch.committed");
        Ok(through)
    }

    async fn apply_in_server(
        &self,
        session: &Session,
        work: InServer<'_>,
        range: Range,
    ) -> Result<Position> {
        let InServer {
            statements,
            relation,
            read_up_to,
            passed,
        } = work;
        let batch = self.batch_text(relation);
        let fence = match passed {
            Some(Passed { last, counted }) => self.fence().text_timed(range, last, counted),
            None => {
                let count = batch.count(range);
                self.fence().text_in_server(range, relation, &count)
            }
        };
        let mut last = self.set_aside(&batch, range);
        // Behind the statements that read: what is removed later had been read.
        if let Some(check) = self.source.check_unread(read_up_to) {
            last.push_str(&format!("{check};\n"));
        }
        self.run_statements(session, &fence, statements, &batch, range, &last)
            .await?;
        Ok(range.through())
    }

    /// The transaction of a batch whose events stay in the server, as one message. `last` are
    /// statements to follow those of the projection, each with its semicolon.
    async fn run_statements(
        &self,
        session: &Session,
        fence: &str,
        statements: Statements<'_>,
        batch: &BatchText<'_>,
        range: Range,
        last: &str,
    ) -> Result<()> {
        let (opening, place) = (self.opening.as_str(), self.place_of_work(range));
        let before = format!("{opening};\n{fence};\n{place};\n");
        let woven = Woven::of(&statements, batch, range);
        let seal = checkpoint::seal(range);
        let text = format!("{before}{}{last}{seal};\ncommit", woven.text);
        let laps = self.laps();
        let mut answer = Answer::default();
        match run(session, &text, &mut answer).await {
            Ok(()) => {
                laps.answered(&answer);
                Ok(())
            }
            Err(e) => {
                let offset = pg::offset_of(&e)
                    .and_then(|at| at.checked_sub(before.chars().count()))
                    .map(|at| woven.origin(at));
                Err(self.place(e, statements, offset, answer.succeeded))
            }
        }
    }

    /// What `batch` is for the server, where it can read `relation` itself.
    pub(super) fn batch_text<'a>(&'a self, relation: &'a str) -> BatchText<'a> {
        BatchText {
            relation,
            filter: self.filter(),
            projection: &self.key.projection,
            generation: self.key.generation,
        }
    }

    /// Says in which line of the projection a statement failed.
    fn place(
        &self,
        error: tokio_postgres::Error,
        statements: Statements<'_>,
        offset: Option<usize>,
        succeeded: usize,
    ) -> Error {
        let ours = explain_write(pg::error("apply failed", error));
        if ours.kind() == ErrorKind::ParkedFull {
            return self.explain_full(ours);
        }
        if ours.kind() == ErrorKind::Stranded {
            return divergence::removed_unread(&self.key, ours);
        }
        match (succeeded.checked_sub(STATEMENTS_BEFORE), offset) {
            (Some(succeeded), offset) => {
                explain_statement(ours).at((statements.locate)(succeeded, offset))
            }
            // The server could not parse the message: no event is at fault, nothing of it ran.
            (None, Some(_)) => ours
                .with_kind(ErrorKind::Config)
                .at((statements.locate)(0, offset))
                .hint("mend the statement, and run again"),
            (None, None) => ours,
        }
    }

    async fn apply_batch(&self, session: &Session, work: &ReadWork) -> Result<Position> {
        let ReadWork {
            batch,
            aside,
            last,
            counted,
        } = work;
        let fence = self.fence().text(batch.range, *last, *counted);
        let mut laps = self.laps();
        self.begin_read(session, batch.range, &fence).await?;
        laps.ended(Phase::Checkpoint, 1);
        failpoint!("batch.fenced");
        self.apply_events(session, batch).await?;
        failpoint!("batch.applied");
        laps.ended(Phase::Apply, 0);
        let mut check = String::new();
        if !aside.is_empty() {
            dead_letter::insert(session.client(), &self.key, aside, None).await?;
            check = format!("{};\n", self.parking.check(&self.key));
        }
        self.end_read(session, batch.range, &check).await?;
        laps.ended(Phase::Commit, 1);
        Ok(batch.range.through())
    }

    /// Opens the transaction of a batch that was read.
    async fn begin_read(&self, session: &Session, range: Range, fence: &str) -> Result<()> {
        let (opening, place) = (self.opening.as_str(), self.place_of_work(range));
        let begin = format!("{opening};\n{fence};\n{place}");
        let begun = session.client().batch_execute(&begin).await;
        begun.map_err(|e| pg::error("cannot begin the batch", e))
    }

    async fn apply_events(&self, session: &Session, batch: &Batch) -> Result<()> {
        if batch.events.is_empty() {
            return Ok(());
        }
        let tx = Tx::new(session.client());
        let applied = async { self.projection.apply(batch, &tx).await };
        // Nothing of it is looked at afterwards: its transaction is rolled back.
        let applied = AssertUnwindSafe(applied).catch_unwind().await;
        applied.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    /// Commits a batch that was read, after the statements in `last`.
    async fn end_read(&self, session: &Session, range: Range, last: &str) -> Result<()> {
        let end = format!("{last}{};\ncommit", checkpoint::seal(range));
        let ended = session.client().batch_execute(&end).await;
        ended.map_err(|e| self.explain_full(pg::error("cannot commit the batch", e)))
    }

    /// What the checkpoint has to know of a range that holds nothing for this projection.
    pub(super) async fn passed(&self, range: Range, known: Option<Known>) -> Result<Passed> {
        if let Some(passed) = known.and_then(|known| self.passed_as(known)) {
            return Ok(passed);
        }
        Ok(Passed {
            last: self.source.last_at(range.through()).await?,
            counted: self.source.count(range, self.filter()).await?,
        })
    }

    /// Moves the checkpoint over a range that holds nothing for this projection.
    pub(super) async fn skip(
        &self,
        client: PooledClient,
        range: Range,
        passed: Passed,
    ) -> Result<()> {
        let Passed { last, counted } = passed;
        checkpoint::skip(&client, &self.fence(), range, last, counted).await
    }

    fn fence(&self) -> Fence<'_> {
        Fence {
            key: &self.key,
            epoch: self.epoch,
            parking: self.slice.parking,
        }
    }

    fn laps(&self) -> Laps<'_> {
        Laps::of(&self.key.projection)
    }

    /// The statement that says where unqualified names are and, for a large batch, how much memory
    /// a sort or a hash may take: what is enough for the server's usual statements sends one over
    /// a million events to disk.
    fn place_of_work(&self, range: Range) -> String {
        let path = format!("{}, public", quote_identifier(&self.schema));
        let path = format!(
            "select set_config('search_path', {}, true)",
            quote_literal(&path)
        );
        if range.width() < LARGE {
            return path;
        }
        format!(
            "{path}, set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, \
             {} * 1024) || 'kB', true)",
            self.work_mem_mb
        )
    }
}

/// A statement that is wrong whatever it is given.
fn explain_statement(error: Error) -> Error {
    if error.kind() != ErrorKind::Config || error.what_to_do().is_some() {
        return error;
    }
    error.hint("mend the statement or what it names, and run again")
}

/// The server's hint would lead to a trigger on the view.
fn explain_write(error: Error) -> Error {
    if error.code() != Some("55000") || !error.message().contains("batch") {
        return error;
    }
    error
        .with_kind(ErrorKind::Config)
        .hint("batch is only read: write to tables of the projection's own")
}

/// From how many positions on a batch is large.
const LARGE: u64 = 10_000;

/// Statements of a message before those of the projection: the opening, the fence, the path.
const STATEMENTS_BEFORE: usize = Opening::STATEMENTS + 2;

/// The error of a projection whose code panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let what = format!(
        "the projection's code panicked: {}",
        text.unwrap_or("without a message")
    );
    Error::new(ErrorKind::Internal, what)
        .hint("mend it and run again; nothing of the batch was committed")
}

/// Sends a message and takes what comes back.
async fn run(
    session: &Session,
    text: &str,
    answer: &mut Answer,
) -> Result<(), tokio_postgres::Error> {
    let messages = session.client().simple_query_raw(text).await?;
    failpoint!("batch.sent", infallible);
    pin_mut!(messages);
    while let Some(message) = messages.next().await {
        match message? {
            SimpleQueryMessage::CommandComplete(_) => answer.succeeded += 1,
            SimpleQueryMessage::Row(row) => answer.row(&row, Opening::STATEMENTS),
            _ => {}
        }
    }
    Ok(())
}
