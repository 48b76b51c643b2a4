//! Batches whose events stay in the server: one message, and what it says when it fails.

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::SimpleQueryMessage;

use crate::engine::divergence;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::pg;
use crate::pg::checkpoint::{self, Fence, LastEvent};
use crate::pg::sql::Sql;
use crate::pg::transaction::Opening;
use crate::position::{Position, Range};
use crate::projection::Statements;

use super::batch::{BatchText, Woven};
use super::timing::Answer;
use super::{Applier, Session};

/// A batch whose events stay in the server.
pub(in crate::engine) struct InServer<'a> {
    pub(super) statements: Statements<'a>,
    /// What it is read from.
    pub(super) relation: &'a str,
    pub(super) read_up_to: Position,
    /// The last event of its range, if the reader's own rows tell it.
    pub(super) last: Option<LastEvent>,
}

/// The parts of the one message that a batch in the server is, in their order.
pub(super) struct Message<'a> {
    pub(super) fence: &'a str,
    /// How many statements the fence is.
    pub(super) fence_statements: usize,
    pub(super) statements: Statements<'a>,
    /// What the statements see as `batch`, of this range.
    pub(super) batch: &'a BatchText<'a>,
    pub(super) range: Range,
    /// Statements to follow those of the projection, each with its semicolon.
    pub(super) last: &'a str,
}

impl Applier {
    pub(super) async fn apply_in_server(
        &self,
        session: &Session,
        work: InServer<'_>,
        range: Range,
    ) -> Result<Position> {
        let batch = self.batch_text(work.relation)?;
        let fence = match work.last {
            Some(last) => self.fence().text_timed(range, last),
            None => self.fence().text_in_server(range, work.relation)?,
        };
        let mut last = self.set_aside(&batch, range)?;
        // Behind the statements that read: what is removed later had been read.
        if let Some(check) = self.source.check_unread(work.read_up_to) {
            last.push_str(&format!("{check};\n"));
        }
        let message = Message {
            fence: &fence,
            fence_statements: Fence::STATEMENTS,
            statements: work.statements,
            batch: &batch,
            range,
            last: &last,
        };
        self.run_statements(session, message).await?;
        Ok(range.through())
    }

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
        let (opening, place) = (self.opening.as_str(), self.place_of_work(range));
        let before = format!("{opening};\n{fence};\n{place};\n");
        let woven = Woven::of(&statements, batch, range)?;
        let end = checkpoint::end_batch(range);
        let text = format!("{before}{}{last}{end};\ncommit", woven.text);
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
                // Before those of the projection: the opening, the fence, the path.
                let before = Opening::STATEMENTS + fence_statements + 1;
                let succeeded = answer.succeeded.checked_sub(before);
                Err(self.place(e, statements, offset, succeeded))
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
    fn place(
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
