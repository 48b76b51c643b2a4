//! Batches whose events stay in the server: one message, and the explanation of its failures.

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::SimpleQueryMessage;

use crate::engine::divergence;
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::pg;
use crate::pg::checkpoint::{self, Fence, LastEvent};
use crate::pg::dead_letter;
use crate::pg::sql::{Sql, sql};
use crate::pg::transaction::{COMMIT, Prologue};
use crate::position::{Position, Range};
use crate::projection::Statements;
use crate::source::{BoxFuture, Filter, PostgresLog};

use super::batch::{BatchText, RewrittenSql};
use super::executor::{Executor, Limits, Work};
use super::timing::MessageResult;
use super::{Applier, Session};

/// The server reads the events and applies them, in one message.
pub(super) struct InServer<'a> {
    pub(super) applier: &'a Applier,
    pub(super) statements: Statements<'a>,
    /// What the events are read from.
    pub(super) relation: &'a str,
}

/// A range whose events stay in the server.
struct InServerRange<'a> {
    executor: InServer<'a>,
    range: Range,
    read_up_to: Position,
    /// The last event of the range, if the reader's own rows tell it.
    last: Option<LastEvent>,
}

impl<'a> Executor<'a> for InServer<'a> {
    fn prepare(
        self: Box<Self>,
        range: Range,
        limits: Limits<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Work + 'a>>> {
        let work = InServerRange {
            executor: *self,
            range,
            read_up_to: limits.read_up_to,
            last: limits.last,
        };
        Box::pin(async { Ok(Box::new(work) as Box<dyn Work + 'a>) })
    }

    fn apply_dead_letter<'s>(
        self: Box<Self>,
        session: &'s Session,
        event: RecordedEvent,
    ) -> BoxFuture<'s, Result<()>>
    where
        'a: 's,
    {
        Box::pin(async move { self.apply_stored(session, event.position).await })
    }
}

impl Work for InServerRange<'_> {
    fn apply<'s>(self: Box<Self>, session: &'s Session) -> BoxFuture<'s, Result<Position>>
    where
        Self: 's,
    {
        Box::pin((*self).apply_on(session))
    }
}

/// The parts of the one message that a batch in the server is, in their order.
pub(super) struct Message<'a> {
    pub(super) fence: Sql,
    /// How many statements the fence is.
    pub(super) fence_statements: usize,
    pub(super) statements: Statements<'a>,
    /// What the statements see as `batch`, of this range.
    pub(super) batch: &'a BatchText<'a>,
    pub(super) range: Range,
    /// Statements to follow those of the projection.
    pub(super) last: Vec<Sql>,
}

impl InServerRange<'_> {
    async fn apply_on(self, session: &Session) -> Result<Position> {
        let InServer {
            applier,
            statements,
            relation,
        } = self.executor;
        let range = self.range;
        let batch = applier.batch_text(relation)?;
        let fence = match self.last {
            Some(last) => applier.fence().text_timed(range, last),
            None => applier.fence().text_in_server(range, relation)?,
        };
        let mut last = applier.park_events(&batch, range)?;
        // After the statements that read: events that are removed later were read.
        let log = applier.source.postgres();
        if log.is_some_and(PostgresLog::records_removals) {
            let read_up_to = Sql::number(self.read_up_to.get());
            last.push(sql!(
                "select highwater.check_unread({read_up_to})",
                read_up_to = read_up_to
            ));
        }
        let message = Message {
            fence,
            fence_statements: Fence::STATEMENTS,
            statements,
            batch: &batch,
            range,
            last,
        };
        applier.run_statements(session, message).await?;
        Ok(range.through())
    }
}

impl InServer<'_> {
    async fn apply_stored(&self, session: &Session, position: Position) -> Result<()> {
        let (applier, range) = (self.applier, Range::new(position.previous(), position));
        let relation = dead_letter::relation(&applier.key, position);
        let batch = BatchText {
            relation,
            filter: Filter::ALL,
            projection: &applier.key.projection,
            generation: applier.key.generation,
        };
        let message = Message {
            fence: applier.fence().of_dead_letter(position),
            fence_statements: 1,
            statements: self.statements,
            batch: &batch,
            range,
            last: vec![dead_letter::settle(&applier.key, position)],
        };
        applier.run_statements(session, message).await
    }
}

impl Applier {
    /// The transaction of a batch whose events stay in the server.
    pub(super) async fn run_statements(
        &self,
        session: &Session,
        message: Message<'_>,
    ) -> Result<()> {
        let Message {
            fence,
            fence_statements,
            statements,
            batch,
            range,
            last,
        } = message;
        let opening = Sql::message([self.prologue.sql(), fence, self.set_search_path()]);
        let before = sql!("{opening};\n", opening = opening);
        let rewritten = RewrittenSql::of(&statements, batch, range)?;
        let end = [checkpoint::end_batch(range), COMMIT];
        let after = Sql::message(last.into_iter().chain(end));
        let text = Sql::join([before.clone(), rewritten.text.clone(), after], "");
        let timer = self.phase_timer();
        let mut answer = MessageResult::default();
        match run(session, &text, &mut answer).await {
            Ok(()) => {
                timer.answered(&answer);
                Ok(())
            }
            Err(e) => {
                let offset = pg::offset_of(&e)
                    .and_then(|at| at.checked_sub(before.chars().count()))
                    .map(|at| rewritten.origin(at));
                // Before those of the projection: the prologue, the fence, the path.
                let before = Prologue::STATEMENTS + fence_statements + 1;
                let succeeded = answer.succeeded.checked_sub(before);
                Err(self.locate(e, statements, offset, succeeded))
            }
        }
    }

    /// What `batch` is for the server, where it can read `relation` itself.
    pub(in crate::engine) fn batch_text(&self, relation: &str) -> Result<BatchText<'_>> {
        Ok(BatchText {
            relation: Sql::relation(relation)?,
            filter: self.filter(),
            projection: &self.key.projection,
            generation: self.key.generation,
        })
    }

    /// Says in which line of the projection a statement failed.
    fn locate(
        &self,
        error: tokio_postgres::Error,
        statements: Statements<'_>,
        offset: Option<usize>,
        succeeded: Option<usize>,
    ) -> Error {
        let ours = explain_write(pg::error("apply failed", error));
        if ours.kind() == ErrorKind::ParkedFull {
            return self.explain_full(ours);
        }
        if ours.kind() == ErrorKind::Stranded {
            return divergence::removed_unread(&self.key, ours);
        }
        match (succeeded, offset) {
            (Some(succeeded), offset) => {
                explain_statement(ours).with_location((statements.locate)(succeeded, offset))
            }
            // The server could not parse the message: no event is at fault, nothing of it ran.
            (None, Some(_)) => ours
                .with_kind(ErrorKind::Config)
                .with_location((statements.locate)(0, offset))
                .with_hint("fix the statement, and run again"),
            (None, None) => ours,
        }
    }
}

/// A statement that is wrong for every event.
fn explain_statement(error: Error) -> Error {
    if error.kind() != ErrorKind::Config || error.hint().is_some() {
        return error;
    }
    error.with_hint("fix the statement or what it names, and run again")
}

/// The server's hint would lead to a trigger on the view.
fn explain_write(error: Error) -> Error {
    if error.sqlstate() != Some("55000") || !error.message().contains("batch") {
        return error;
    }
    error
        .with_kind(ErrorKind::Config)
        .with_hint("batch is read-only: write to the projection's own tables")
}

/// Sends a message and takes what comes back.
async fn run(
    session: &Session,
    text: &str,
    answer: &mut MessageResult,
) -> Result<(), tokio_postgres::Error> {
    let messages = session.client().simple_query_raw(text).await?;
    failpoint!("batch.sent", infallible);
    pin_mut!(messages);
    while let Some(message) = messages.next().await {
        match message? {
            SimpleQueryMessage::CommandComplete(_) => answer.succeeded += 1,
            SimpleQueryMessage::Row(row) => answer.row(&row, Prologue::STATEMENTS),
            _ => {}
        }
    }
    Ok(())
}
