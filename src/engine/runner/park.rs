//! Parking: an event that cannot be applied becomes a dead letter, and its key is parked.

use super::claimed::Claimed;
use super::decide::{self, Poisoned};
use super::limit;
use crate::engine::apply::PartitionFilter;
use crate::engine::isolate::{self, IsolationResult, reference};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::metrics;
use crate::mutation;
use crate::name::ProjectionName;
use crate::pg::checkpoint::{self, Checkpoint, Key};
use crate::pg::database::Database;
use crate::pg::dead_letter::{self, Cause};
use crate::position::{Position, Range};
use crate::retry::{Verdict, verdict};

impl Claimed {
    /// A batch failed: halved if an event may be the reason.
    pub(super) async fn batch_failed(&mut self, error: Error, range: Range) -> Result<()> {
        if verdict(error.kind()) != Verdict::Poison {
            return Err(self.ease(error, range));
        }
        let filter = self.applier.filter();
        let failed = self.isolation.failed(range, &*self.parts.source, filter);
        match limit::at_most(self.parts.settings.batch_timeout, failed).await? {
            IsolationResult::Several => {
                tracing::debug!(projection = %self.definition().name, range = %range, error = %error, "looking for the event that fails");
                Ok(())
            }
            IsolationResult::None => Err(error),
            IsolationResult::One(event) => self.poisoned(error, range, *event).await,
        }
    }

    /// The events up to `position` are done: tries the next half of the rest of a range that
    /// failed.
    pub(super) async fn narrow_down(&mut self, position: Position) -> Result<()> {
        if !self.isolation.is_open() {
            return Ok(());
        }
        let filter = self.applier.filter();
        let source = &*self.parts.source;
        let passed = self.isolation.passed(position, source, filter);
        limit::at_most(self.parts.settings.batch_timeout, passed).await
    }

    /// An event cannot be applied: the projection stops before it, or its key is parked.
    async fn poisoned(&mut self, error: Error, range: Range, event: RecordedEvent) -> Result<()> {
        match decide::poisoned(self.definition().on_error, range, event.position) {
            Poisoned::Stop => {
                return Err(isolate::poison(error, &self.definition().name, &event));
            }
            Poisoned::PassBefore => {
                self.isolation.pass_before(event.position);
                return Ok(());
            }
            Poisoned::Park => {}
        }
        let position = event.position;
        self.park(error, event).await?;
        self.store(position);
        self.read_parked_keys().await?;
        self.narrow_down(position).await
    }

    async fn park(&self, error: Error, event: RecordedEvent) -> Result<()> {
        let name = &self.definition().name;
        let error = parked(error, name, &event);
        let cause = cause(&error, &event);
        let _row = self.retries.row().await;
        let _permit = self.parts.permit().await;
        let key = self.applier.key_of(&event).await?;
        let client = self.covered_session().await?;
        let parking = self.applier.park(client, (key, event), &cause);
        let (in_flight, limit) = (&self.applier.in_flight, self.parts.settings.batch_timeout);
        let done = self.parts.in_time(in_flight, limit, parking).await;
        done.map_err(|e| with_cause(e, &error))?;
        failpoint!("park.committed");
        metrics::failure(name, error.kind());
        tracing::warn!(projection = %name, error = %error, "parked");
        Ok(())
    }

    /// Reads which keys are parked now, after this process has changed it.
    pub(super) async fn read_parked_keys(&mut self) -> Result<()> {
        let key = &self.applier.key;
        let checkpoint = {
            let client = self.parts.target.short().await?;
            client.within(checkpoint::read(&client, key)).await?
        };
        // The fence finds any other change of the row. `parking` shows whether any key was parked
        // or released: after most dead letters of a key none was.
        let known = &self.applier.partition_filter;
        let is_known =
            |c: &Checkpoint| c.parking == known.parking && c.partitions == known.partitions;
        if let Some(checkpoint) = checkpoint.filter(|c| !is_known(c)) {
            self.applier.partition_filter =
                partition_filter(&self.parts.target, key, &checkpoint).await?;
        }
        Ok(())
    }
}

/// The events of a runner, by the row of its checkpoint and the dead letters, which are read after
/// the row: parking or releasing a key since then raised `parking`, and the fence compares that.
pub(super) async fn partition_filter(
    target: &Database,
    key: &Key,
    checkpoint: &Checkpoint,
) -> Result<PartitionFilter> {
    let client = target.short().await?;
    let reading = dead_letter::parked_keys(&client, key, checkpoint.partitions);
    let mut parked = client.within(reading).await?;
    if mutation::on("parking.followers") {
        parked.clear();
    }
    Ok(PartitionFilter {
        partitions: checkpoint.partitions,
        parking: checkpoint.parking,
        parked: parked.into(),
    })
}

pub(super) fn cause(error: &Error, event: &RecordedEvent) -> Cause {
    Cause {
        error: checkpoint::error_value(error, event.position, 1),
        fingerprint: error.fingerprint(),
    }
}

/// The error of an event that becomes a dead letter: it names the event and what to do.
pub(super) fn parked(error: Error, name: &ProjectionName, event: &RecordedEvent) -> Error {
    let next = format!(
        "the key is parked. Fix the cause (after a file change: highwater accept {name}, then restart \
         highwater run), then highwater dead-letters retry {name} --event {}",
        event.id
    );
    let hint = match error.hint() {
        Some(hint) => format!("{hint}; {next}"),
        None => next,
    };
    error.with_event(reference(event)).with_hint(hint)
}

/// Where nothing more may be parked, the error of the event says why it had to be.
fn with_cause(error: Error, cause: &Error) -> Error {
    if error.kind() != ErrorKind::ParkedFull {
        return error;
    }
    let what = format!("{}; the next one: {}", error.message(), cause.message());
    let mut full = Error::new(ErrorKind::ParkedFull, what);
    if let Some(event) = cause.event() {
        full = full.with_event(event.clone());
    }
    if let Some(code) = error.sqlstate() {
        full = full.with_sqlstate(code);
    }
    match error.hint() {
        Some(hint) => full.with_hint(hint),
        None => full,
    }
}
