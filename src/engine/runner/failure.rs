//! What becomes of a runner after an error: it retries, continues or ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use super::decide::{Response, response};
use super::{Ended, Runner, RunnerParts, StepOutcome};
use crate::engine::apply::{InFlight, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics;
use crate::pg::checkpoint;
use crate::runner_state::RunnerState;

/// How long storing a state may take: the log and the exit code report it too.
pub(in crate::engine) const REPORT_LIMIT: Duration = Duration::from_secs(2);

impl Runner {
    /// What becomes of the runner after an error.
    pub(super) async fn failed(&mut self, mut error: Error) -> StepOutcome {
        self.attempts = self.attempts.saturating_add(1);
        let claimed = self.claimed.as_ref();
        let retries = claimed.is_some_and(|claimed| claimed.retries.may_make_room());
        let mut has_read = false;
        loop {
            match response(&error, retries, has_read) {
                Response::ReadAgain => match self.read_again().await {
                    Ok(step) => return step,
                    Err(found) => (error, has_read) = (found, true),
                },
                Response::AwaitRetries => return StepOutcome::Wait(None),
                Response::Lose => return self.lost(error),
                Response::Retry => return self.retry(error).await,
                Response::Stop => return self.stopped(error).await,
            }
        }
    }

    fn lost(&self, error: Error) -> StepOutcome {
        tracing::info!(projection = %self.parts.definition().name, partition = self.parts.partition, error = %error, "lost the checkpoint");
        StepOutcome::End(Ended::Lost(error))
    }

    async fn stopped(&self, error: Error) -> StepOutcome {
        metrics::failure(&self.parts.definition().name, error.kind());
        self.parts.shared.stopped(&error);
        self.report(RunnerState::Stopped, &error).await;
        StepOutcome::End(Ended::Stopped(error))
    }

    /// After a lost connection the checkpoint is read again: a commit may have succeeded.
    async fn retry(&mut self, error: Error) -> StepOutcome {
        let name = &self.parts.definition().name;
        metrics::failure(name, error.kind());
        self.parts.shared.failed(&error);
        self.parts.set_state(RunnerState::Retrying);
        tracing::warn!(projection = %name, attempt = self.attempts, error = %error, "retrying");
        self.report(RunnerState::Retrying, &error).await;
        match self.read_again().await {
            Ok(StepOutcome::End(ended)) => StepOutcome::End(ended),
            Ok(_) => StepOutcome::Retry,
            Err(found) if response(&found, false, true) == Response::Lose => self.lost(found),
            Err(_) => {
                // The next step begins with that, and fails the same way or finds out.
                if let Some(claimed) = &mut self.claimed {
                    claimed.session = 0;
                }
                StepOutcome::Retry
            }
        }
    }

    async fn read_again(&mut self) -> Result<StepOutcome> {
        match &mut self.claimed {
            Some(claimed) => claimed.read_again().await,
            None => Ok(StepOutcome::Done),
        }
    }

    /// The instance tries again to renew its lease.
    pub(super) fn waits_for_the_lease(&self) {
        let trouble = self.subscriber.progress.borrow().trouble.clone();
        let trouble = trouble.unwrap_or_else(|| {
            let what = "the lease of this instance could not be renewed";
            Arc::new(Error::new(ErrorKind::ConnectionLost, what))
        });
        self.parts.waits_for_the_source(&trouble);
    }

    /// Best effort: the log and the exit code report it too.
    async fn report(&self, state: RunnerState, error: &Error) {
        let position = self.claimed.as_ref().map_or_else(
            || self.parts.shared.get().position,
            |claimed| claimed.stored,
        );
        let value = checkpoint::error_value(error, position, self.attempts);
        let reported = async {
            // Closed, not returned, if the time runs out while it waits for a lock.
            let client = self.parts.target.client().await?;
            let session = Session::new(client, &InFlight::default());
            let reported = self.write_down(session.client(), state, &value).await;
            session.finish(None).await;
            reported
        };
        match tokio::time::timeout(REPORT_LIMIT, reported).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "the state could not be stored")
            }
            Err(_) => tracing::debug!("the state could not be stored in time"),
        }
    }

    async fn write_down(&self, client: &Client, state: RunnerState, error: &Value) -> Result<()> {
        match &self.owned {
            Some((key, epoch)) => {
                checkpoint::report(client, key, *epoch, state.as_str(), Some(error)).await
            }
            None => Ok(()),
        }
    }
}

impl RunnerParts {
    /// The reader tries again; until then there is nothing to do.
    pub(super) fn waits_for_the_source(&self, trouble: &Error) {
        self.shared.failed(trouble);
        self.set_state(RunnerState::Retrying);
    }
}
