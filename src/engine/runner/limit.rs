//! How long a batch may take, and what happens to one that takes longer.
//!
//! The server ends a statement after `batch_timeout` by itself ([`Prologue`]), also when its client
//! is gone. Here the same limit holds for the whole batch and for a silent server: the batch is
//! cancelled, and if the server does not answer that either, the session is closed. A server that
//! does not answer at all is noticed sooner, by another statement meanwhile.
//!
//! Whether the batch was committed is never guessed: the checkpoint is read again.
//!
//! [`Prologue`]: crate::pg::transaction::Prologue

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::RunnerParts;
use super::claimed::Claimed;
use crate::config::format_duration;
use crate::engine::apply::InFlight;
use crate::error::{Error, ErrorKind, Result};
use crate::pg;
use crate::pg::database::Database;
use crate::position::Range;
use crate::retry::is_eased_by_less;

impl RunnerParts {
    /// Waits for a batch, but no longer than its limit, nor for a server that no longer answers.
    pub(super) async fn in_time<T>(
        &self,
        in_flight: &InFlight,
        limit: Duration,
        batch: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        tokio::pin!(batch);
        tokio::select! {
            done = &mut batch => return done.map_err(|e| self.explain_loss(e, began.elapsed())),
            error = self.server_is_silent() => return Err(error),
            () = sleep(limit) => {}
        }
        let answer = self.settings.answer_timeout;
        cancel(in_flight, &self.target, answer).await;
        match timeout(answer, batch).await {
            // It ended, one way or the other.
            Ok(done) => done.map_err(|error| match error.kind() {
                ErrorKind::TimedOut => error.with_hint(format!(
                    "it took longer than engine.batch_timeout, {}",
                    format_duration(limit)
                )),
                _ => error,
            }),
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!(
                    "the batch took longer than {} and could not be cancelled",
                    format_duration(limit)
                ),
            )
            .with_hint(
                "its session was closed; raise engine.batch_timeout if batches take that long",
            )),
        }
    }

    /// The server ends a transaction whose client is silent for a lease; the driver only sees a
    /// closed connection.
    fn explain_loss(&self, error: Error, elapsed: Duration) -> Error {
        let lease = self.settings.lease;
        let is_read = self.projection.statements().is_none();
        if error.kind() != ErrorKind::ConnectionLost || !is_read || elapsed < lease {
            return error;
        }
        error.with_kind(ErrorKind::TimedOut).with_hint(format!(
            "the server ends a batch whose code sends it nothing for longer than engine.lease, {}: \
             do less between two statements, or raise the lease",
            format_duration(lease)
        ))
    }

    /// Resolves when the server does not answer while a batch is in flight.
    async fn server_is_silent(&self) -> Error {
        loop {
            sleep(self.settings.answer_timeout).await;
            let Err(error) = self.ask().await else {
                continue;
            };
            // A refusal is an answer; a pool whose sessions are all busy proves nothing.
            if error.sqlstate().is_some() || error.kind() == ErrorKind::Locked {
                continue;
            }
            let what = format!("the server no longer answers: {}", error.message());
            return Error::new(ErrorKind::ConnectionLost, what)
                .with_hint("the checkpoint is read again when it does");
        }
    }

    async fn ask(&self) -> Result<()> {
        let client = self.target.short().await?;
        let asked = async {
            let answer = client.simple_query("").await;
            answer.map_err(|e| pg::error("cannot reach the server", e))
        };
        client.within(asked).await.map(drop)
    }
}

impl Claimed {
    /// After a batch that failed for lack of time or room the next one is smaller. One event that
    /// is too much by itself is retried for ever, and the error says so.
    pub(super) fn ease(&mut self, error: Error, range: Range) -> Error {
        if !is_eased_by_less(error.kind()) {
            return error;
        }
        self.size.failed(range.width());
        if range.width() > 1 {
            return error;
        }
        let next = "this event alone exceeds the limit: raise the role's statement_timeout or \
                    engine.batch_timeout, or give the server what it lacks";
        match error.hint() {
            Some(hint) => {
                let hint = format!("{hint}; {next}");
                error.with_hint(hint)
            }
            None => error.with_hint(next),
        }
    }
}

/// Waits while a source counts, which may take as long as a batch.
pub(super) async fn at_most<T>(
    limit: Duration,
    counting: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, counting).await.unwrap_or_else(|_| {
        let limit = format_duration(limit);
        let what = format!("the source counted its events for longer than {limit}");
        Err(Error::new(ErrorKind::TimedOut, what).with_hint("raise engine.batch_timeout"))
    })
}

/// Cancels the batch in flight in the server, if there is one and the server answers.
pub(super) async fn cancel(in_flight: &InFlight, database: &Database, limit: Duration) {
    if let Some(token) = in_flight.get() {
        // The fence keeps the batch exact whether that works or not.
        let _ = timeout(limit, database.connector().cancel(token)).await;
    }
}

/// Resolves when a stop was requested and the grace of the batch in flight is over: the batch is
/// cancelled in the server, and the caller drops it.
pub(super) async fn stopped(
    stop: &CancellationToken,
    grace: Duration,
    in_flight: &InFlight,
    database: &Database,
) {
    stop.cancelled().await;
    sleep(grace).await;
    cancel(in_flight, database, Duration::from_secs(1)).await;
}
