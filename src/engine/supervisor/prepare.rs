//! Before the first view: the read model is created or recognised, with retries.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::Supervisor;
use crate::engine::prepare::{Prepared, prepare};
use crate::engine::transaction::{begin, end};
use crate::engine::{apply, divergence, runner};
use crate::error::{Error, Result};
use crate::pg::action::{self, OperatorAction};
use crate::pg::{checkpoint, projection};
use crate::position::Position;
use crate::projection::Definition;
use crate::retry::{Verdict, delays, verdict};
use crate::runner_state::RunnerState;

impl Supervisor {
    /// Creates or recognises the read model and returns its generation. `None` if it was asked to stop before.
    pub(super) async fn prepared(&self, stop: &CancellationToken) -> Result<Option<i32>> {
        let prepared = self.retried(stop, || self.prepare()).await;
        if let Err(error) = &prepared {
            self.report_unstarted(error).await;
        }
        prepared
    }

    async fn prepare(&self) -> Result<i32> {
        let parts = &self.parts;
        let definition = self.definition();
        let limit = parts.settings.batch_timeout;
        let prepared = prepare(&parts.target, &*parts.projection, &*parts.source, limit);
        // The user's own code: it may panic.
        let prepared = AssertUnwindSafe(prepared).catch_unwind().await;
        let prepared = prepared.unwrap_or_else(|panic| Err(apply::panicked(&*panic)))?;
        // A new one is compared when a runner claims it; no runner does where there is nothing to
        // apply.
        let is_new = matches!(prepared, Prepared::New);
        if !is_new || parts.until == Some(Position::START) {
            divergence::check_live(&parts.target, &definition.name, &*parts.source).await?;
        }
        if is_new {
            return Ok(prepared.generation());
        }
        let client = parts.target.short().await?;
        client.within(set_partitions(&client, definition)).await?;
        Ok(prepared.generation())
    }

    /// How many partitions a generation has. `None` if it was asked to stop before.
    pub(super) async fn partitions_of(
        &self,
        generation: i32,
        stop: &CancellationToken,
    ) -> Result<Option<i32>> {
        let name = &self.definition().name;
        let reading = || async {
            let client = self.parts.target.short().await?;
            let reading = checkpoint::partitions(&client, name, generation);
            client.within(reading).await
        };
        self.retried(stop, reading).await
    }

    /// Retries until it succeeds or fails for good. `None` if it was asked to stop before.
    async fn retried<T, F: Future<Output = Result<T>>>(
        &self,
        stop: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> Result<Option<T>> {
        let longest = self.parts.settings.retry_delay_max;
        let mut pauses = delays(longest);
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                done = attempt() => match done {
                    Ok(done) => return Ok(Some(done)),
                    Err(error) if verdict(error.kind()) == Verdict::Transient => error,
                    Err(error) => return Err(error),
                },
            };
            tracing::warn!(projection = %self.definition().name, error = %error, "retrying");
            self.parts.progress.failed(&error);
            self.parts.progress.set_state(RunnerState::Retrying);
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(pauses.next().unwrap_or(longest)) => {}
            }
        }
    }

    /// Best effort: the log and the exit code report it too.
    async fn report_unstarted(&self, error: &Error) {
        let name = &self.definition().name;
        let reported = async {
            let client = self.parts.target.short().await?;
            let position = client.within(checkpoint::lowest(&client, name)).await?;
            self.parts.progress.set_position(position, position);
            let value = checkpoint::error_value(error, position, 1);
            let instance = self.parts.instance;
            let reporting = checkpoint::report_unstarted(&client, name, instance, &value);
            client.within(reporting).await
        };
        match tokio::time::timeout(runner::REPORT_LIMIT, reported).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error, "the stop was not stored"),
            Err(_) => tracing::debug!("the stop was not stored in time"),
        }
    }
}

/// Takes the number of partitions, and the key that they are cut by, from the definition.
async fn set_partitions(client: &Client, definition: &Definition) -> Result<()> {
    let (name, partitions) = (&definition.name, i32::from(definition.partitions));
    begin(client).await?;
    let done = async {
        let is_new = projection::set_partitions(client, name, partitions, &definition.key).await?;
        match is_new {
            true => action::record(client, name, OperatorAction::PartitionsSet(partitions)).await,
            false => Ok(()),
        }
    };
    end(client, done.await).await
}
