//! What becomes of a runner after an error: it tries again, goes on, or ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use super::{Ended, Next, Runner, Turn};
use crate::engine::apply::{InFlight, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics;
use crate::pg::checkpoint;
use crate::retry::{Verdict, verdict};
use crate::runner_state::RunnerState;

/// How long writing a state down may take: the log and the exit code say it too.
pub(in crate::engine) const REPORT_LIMIT: Duration = Duration::from_secs(2);

impl Runner {
    /// What becomes of the runner after an error.
    pub(super) async fn failed(&mut self, error: Error) -> Next {
        self.attempts = self.attempts.saturating_add(1);
        if error.kind() == ErrorKind::Fenced && error.sqlstate().is_some() {
            return match self.read_again().await {
                Ok(Turn::Ended(ended)) => Next::Ended(ended),
                Ok(_) => Next::AtOnce,
                Err(error) if error.kind() == ErrorKind::Fenced => self.lost(error),
                Err(error) => self.retry_or_stop(error).await,
            };
        }
        if error.kind() == ErrorKind::Fenced {
            return self.lost(error);
        }
        self.retry_or_stop(error).await
    }

    fn lost(&self, error: Error) -> Next {
        tracing::info!(projection = %self.definition().name, partition = self.parts.partition, error = %error, "lost the checkpoint");
        Next::Ended(Ended::Lost(error))
    }

    /// The instance tries again to renew its lease.
    pub(super) fn waits_for_the_lease(&self) {
        let trouble = self.parts.following.progress.borrow().trouble.clone();
        let trouble = trouble.unwrap_or_else(|| {
            let what = "the lease of this instance could not be renewed";
            Arc::new(Error::new(ErrorKind::ConnectionLost, what))
        });
        self.waits_for_the_source(&trouble);
    }

    /// The reader tries again; until then there is nothing to do.
    pub(super) fn waits_for_the_source(&self, trouble: &Error) {
        self.parts.shared.failed(trouble);
        self.set_state(RunnerState::Retrying);
    }

    async fn retry_or_stop(&mut self, error: Error) -> Next {
        self.parts.shared.failed(&error);
        metrics::failure(&self.definition().name, error.kind());
        if verdict(error.kind()) == Verdict::Transient {
            self.set_state(RunnerState::Retrying);
            tracing::warn!(projection = %self.definition().name, attempt = self.attempts, error = %error, "trying again");
            self.report(RunnerState::Retrying, &error).await;
            // What the connection took with it is read again: a commit may have gone through.
            return match self.forget_position().await {
                Ok(Turn::Ended(ended)) => Next::Ended(ended),
                Ok(_) => Next::Retry,
                Err(error) => self.lost(error),
            };
        }
        self.set_state(RunnerState::Stopped);
        tracing::error!(projection = %self.definition().name, kind = %error.kind(), error = %error, "stopped");
        self.report(RunnerState::Stopped, &error).await;
        Next::Ended(Ended::Stopped(error))
    }

    /// After a transient error the stored position is not known until it is read again.
    async fn forget_position(&mut self) -> Result<Turn> {
        match self.read_again().await {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(_) => {
                // The next turn begins with it, and fails the same way or finds out.
                if let Some(claim) = &mut self.claim {
                    claim.session = 0;
                }
                Ok(Turn::Again)
            }
            turn => turn,
        }
    }

    /// Best effort: the log and the exit code say it too.
    async fn report(&self, state: RunnerState, error: &Error) {
        let position = self
            .claim
            .as_ref()
            .map_or_else(|| self.parts.shared.get().position, |claim| claim.stored);
        let value = checkpoint::error_value(error, position, self.attempts);
        let told = async {
            // Closed, not given back, if the time runs out while a lock keeps it waiting.
            let client = self.parts.target.client().await?;
            let mut session = Session::new(client, &InFlight::default());
            let told = self.write_down(session.client(), state, &value).await;
            session.finish(None).await;
            told
        };
        match tokio::time::timeout(REPORT_LIMIT, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "the state could not be written down")
            }
            Err(_) => tracing::debug!("the state could not be written down in time"),
        }
    }

    async fn write_down(&self, client: &Client, state: RunnerState, error: &Value) -> Result<()> {
        match &self.held {
            Some((key, epoch)) => {
                checkpoint::report(client, key, *epoch, state.as_str(), Some(error)).await
            }
            None => Ok(()),
        }
    }
}
