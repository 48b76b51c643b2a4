//! Batches whose events stay in the server: one message, and what it says when it fails.

use futures_util::future::{Either, select};
use futures_util::{StreamExt, pin_mut};
use tokio_postgres::SimpleQueryMessage;

use crate::engine::divergence;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::metrics::Phase;
use crate::pg;
use crate::pg::checkpoint::{self, Counted};
use crate::pg::transaction::Opening;
use crate::position::{Position, Range};
use crate::projection::Statements;

use super::batch::{BatchText, Woven};
use super::beside::{self, Asked, COUNTED_BESIDE_FROM, Count, SharedCount};
use super::session::Pulse;
use super::timing::Answer;
use super::{Applier, Passed, Session};

/// A batch whose events stay in the server.
pub(in crate::engine) struct InServer<'a> {
    pub(super) statements: Statements<'a>,
    /// What it is read from.
    pub(super) relation: &'a str,
    pub(super) read_up_to: Position,
    /// What the fence is told of its range, if the reader's own rows say it.
    pub(super) passed: Option<Passed>,
    /// There is a session to count with.
    pub(super) count_beside: bool,
}

/// Who counts a batch for the ledger.
enum CountedBy {
    /// The reader: by its own rows.
    Reader(Passed),
    /// The statement of the fence.
    Fence,
    /// A session of its own.
    Beside(Box<Count>),
    /// A session that other partitions share.
    Shared(SharedCount),
}

/// The parts of the one message that a batch in the server is, in their order.
pub(super) struct Message<'a> {
    pub(super) fence: &'a str,
    pub(super) statements: Statements<'a>,
    /// What the statements see as `batch`, of this range.
    pub(super) batch: &'a BatchText<'a>,
    pub(super) range: Range,
    /// Statements to follow those of the projection, each with its semicolon.
    pub(super) last: &'a str,
    pub(super) end: End,
}

/// What follows the seal of a message.
#[derive(Clone, Copy)]
pub(super) enum End {
    Commit,
    /// Nothing: the transaction stays open.
    Open,
}

impl Applier {
    pub(super) async fn apply_in_server(
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
            count_beside,
        } = work;
        let batch = self.batch_text(relation);
        let counted_by = match passed {
            Some(passed) => CountedBy::Reader(passed),
            None => self.begin_count(&batch, range, count_beside).await?,
        };
        let fence = self.fence();
        let fence = match &counted_by {
            CountedBy::Reader(Passed { last, counted }) => fence.text_timed(range, *last, *counted),
            CountedBy::Fence => fence.text_in_server(range, relation, &batch.count(range)),
            CountedBy::Beside(_) | CountedBy::Shared(_) => {
                fence.text_in_server(range, relation, beside::NOTHING)
            }
        };
        let mut last = self.set_aside(&batch, range);
        // Behind the statements that read: what is removed later had been read.
        if let Some(check) = self.source.check_unread(read_up_to) {
            last.push_str(&format!("{check};\n"));
        }
        let run = |end| {
            let message = Message {
                fence: &fence,
                statements,
                batch: &batch,
                range,
                last: &last,
                end,
            };
            self.run_statements(session, message)
        };
        let counted = match counted_by {
            CountedBy::Reader(_) | CountedBy::Fence => {
                run(End::Commit).await?;
                return Ok(range.through());
            }
            CountedBy::Beside(count) => self.both(session, run(End::Open), count.finish()).await?,
            CountedBy::Shared(count) => {
                let count = count.finish(self.key.partition);
                self.both(session, run(End::Open), count).await?
            }
        };
        self.commit_counted(session, range, counted).await?;
        Ok(range.through())
    }

    /// Decides who counts; a count beside the batch takes its snapshot here.
    async fn begin_count(
        &self,
        batch: &BatchText<'_>,
        range: Range,
        has_session: bool,
    ) -> Result<CountedBy> {
        let begin = async { Count::begin(self.target.client().await?, batch, range).await };
        let partitions = self.slice.partitions;
        if partitions <= 1 {
            return match has_session {
                true => Ok(CountedBy::Beside(Box::new(begin.await?))),
                false => Ok(CountedBy::Fence),
            };
        }
        // What is parked differs from partition to partition.
        if range.width() < COUNTED_BESIDE_FROM || !self.slice.parked.is_empty() {
            return Ok(CountedBy::Fence);
        }
        let joined = self.counts.join(Asked { range, partitions }, begin).await?;
        Ok(joined.map_or(CountedBy::Fence, CountedBy::Shared))
    }

    /// Waits for both. The session of a batch that is done must not be silent until its count is.
    async fn both(
        &self,
        session: &Session,
        applying: impl Future<Output = Result<()>>,
        counting: impl Future<Output = Result<Counted>>,
    ) -> Result<Counted> {
        tokio::pin!(applying, counting);
        match select(applying, counting).await {
            Either::Left((applied, counting)) => {
                applied?;
                Pulse::new(session, self.silence).during(counting).await?
            }
            Either::Right((counted, applying)) => {
                let counted = counted?;
                applying.await?;
                Ok(counted)
            }
        }
    }

    /// Tells the ledger what was counted beside the batch, and commits.
    async fn commit_counted(
        &self,
        session: &Session,
        range: Range,
        counted: Counted,
    ) -> Result<()> {
        let mut laps = self.laps();
        let nothing = Range::new(range.through(), range.through());
        let fence = self.fence().text(nothing, None, counted);
        let text = format!("{fence};\n{};\ncommit", checkpoint::seal(nothing));
        let committed = session.client().batch_execute(&text).await;
        committed.map_err(|e| pg::error("cannot commit the batch", e))?;
        laps.ended(Phase::Commit, 1);
        Ok(())
    }

    /// The transaction of a batch whose events stay in the server.
    pub(super) async fn run_statements(
        &self,
        session: &Session,
        message: Message<'_>,
    ) -> Result<()> {
        let Message {
            fence,
            statements,
            batch,
            range,
            last,
            end,
        } = message;
        let (opening, place) = (self.opening.as_str(), self.place_of_work(range));
        let before = format!("{opening};\n{fence};\n{place};\n");
        let woven = Woven::of(&statements, batch, range);
        let seal = checkpoint::seal(range);
        let commit = match end {
            End::Commit => ";\ncommit",
            End::Open => "",
        };
        let text = format!("{before}{}{last}{seal}{commit}", woven.text);
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
    pub(in crate::engine) fn batch_text<'a>(&'a self, relation: &'a str) -> BatchText<'a> {
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
                explain_statement(ours).with_location((statements.locate)(succeeded, offset))
            }
            // The server could not parse the message: no event is at fault, nothing of it ran.
            (None, Some(_)) => ours
                .with_kind(ErrorKind::Config)
                .with_location((statements.locate)(0, offset))
                .with_hint("mend the statement, and run again"),
            (None, None) => ours,
        }
    }
}

/// A statement that is wrong whatever it is given.
fn explain_statement(error: Error) -> Error {
    if error.kind() != ErrorKind::Config || error.hint().is_some() {
        return error;
    }
    error.with_hint("mend the statement or what it names, and run again")
}

/// The server's hint would lead to a trigger on the view.
fn explain_write(error: Error) -> Error {
    if error.sqlstate() != Some("55000") || !error.message().contains("batch") {
        return error;
    }
    error
        .with_kind(ErrorKind::Config)
        .with_hint("batch is only read: write to tables of the projection's own")
}

/// Statements of a message before those of the projection: the opening, the fence, the path.
const STATEMENTS_BEFORE: usize = Opening::STATEMENTS + 2;

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
