//! Parking in the loop: an event that cannot be applied is set aside with its key.

use super::{Runner, Turn, limit};
use crate::engine::apply::Slice;
use crate::engine::isolate::{self, reference};
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
use crate::projection::OnError;
use crate::retry::{Verdict, verdict};

impl Runner {
    /// A batch failed: halved if an event may be the reason.
    pub(super) async fn batch_failed(&mut self, error: Error, range: Range) -> Result<Turn> {
        if verdict(error.kind()) != Verdict::Poison {
            return Err(self.ease(error, range));
        }
        let Some(claim) = &self.claim else {
            return Err(error);
        };
        let filter = claim.applier.filter();
        let source = &*self.parts.source;
        let limit = self.parts.settings.batch_timeout;
        let failed = self.isolation.failed(range, source, filter);
        match limit::at_most(limit, failed).await? {
            isolate::Verdict::TryShorter => {
                tracing::debug!(projection = %self.definition().name, range = %range, error = %error, "looking for the event that fails");
                Ok(Turn::Again)
            }
            isolate::Verdict::NoEvent => Err(error),
            isolate::Verdict::Poison(event) => self.poisoned(error, range, *event).await,
        }
    }

    /// The events up to `position` are dealt with: of what is left of a range that failed the next
    /// half is tried.
    pub(super) async fn narrow_down(&mut self, position: Position) -> Result<()> {
        if self.isolation.is_open()
            && let Some(claim) = &self.claim
        {
            let filter = claim.applier.filter();
            let source = &*self.parts.source;
            let limit = self.parts.settings.batch_timeout;
            let passed = self.isolation.passed(position, source, filter);
            limit::at_most(limit, passed).await?;
        }
        Ok(())
    }

    /// An event cannot be applied: the projection stops before it, or its key is parked.
    async fn poisoned(&mut self, error: Error, range: Range, event: RecordedEvent) -> Result<Turn> {
        if self.definition().on_error == OnError::Stop {
            return Err(isolate::poison(error, &self.definition().name, &event));
        }
        if range.after() < event.position.previous() {
            // What lies before it first, so that the checkpoint moves over this event alone.
            self.isolation.pass_before(event.position);
            return Ok(Turn::Again);
        }
        let Some(claim) = &self.claim else {
            return Ok(Turn::Again);
        };
        let name = &self.definition().name;
        let error = parked(error, name, &event);
        let cause = cause(&error, &event);
        let _turn = self.parts.turns.clone().acquire_owned().await.ok();
        let position = event.position;
        let key = claim.applier.key_of(&event).await?;
        let client = self.covered_session(claim).await?;
        let parking = claim.applier.park(client, (key, event), &cause);
        let done = self
            .in_time(self.parts.settings.batch_timeout, parking)
            .await;
        done.map_err(|e| with_cause(e, &error))?;
        failpoint!("park.committed");
        metrics::failure(name, error.kind());
        tracing::warn!(projection = %name, error = %error, "parked");
        self.stored_at(position);
        self.look_at_parked().await?;
        self.narrow_down(position).await?;
        Ok(Turn::Again)
    }

    /// Reads which keys are parked now, after this runner has changed it.
    pub(super) async fn look_at_parked(&mut self) -> Result<()> {
        let Some(claim) = &mut self.claim else {
            return Ok(());
        };
        let key = &claim.applier.key;
        let checkpoint = {
            let client = self.parts.target.short().await?;
            client.within(checkpoint::read(&client, key)).await?
        };
        // What else may have become of the row the fence finds out. What it compares tells whether
        // any key was parked or set free: after most letters of a key none was.
        let is_known = |c: &Checkpoint| {
            let slice = &claim.applier.slice;
            c.parking == slice.parking && c.partitions == slice.partitions
        };
        if let Some(checkpoint) = checkpoint.filter(|c| !is_known(c)) {
            claim.applier.slice = slice(&self.parts.target, key, &checkpoint).await?;
        }
        Ok(())
    }
}

/// Which events are a runner's, by its checkpoint's row and the dead letters, which are read after
/// the row: what is parked or set free since raised `parking`, and the fence compares that.
pub(super) async fn slice(target: &Database, key: &Key, checkpoint: &Checkpoint) -> Result<Slice> {
    let client = target.short().await?;
    let reading = dead_letter::parked_keys(&client, key, checkpoint.partitions);
    let mut parked = client.within(reading).await?;
    if mutation::on("parking.followers") {
        parked.clear();
    }
    Ok(Slice {
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

/// The error of an event that is set aside: it names the event and what to do.
pub(super) fn parked(error: Error, name: &ProjectionName, event: &RecordedEvent) -> Error {
    let next = format!(
        "the key of this event is parked and nothing is lost: mend it (if the file changed: highwater \
         accept {name}, and start highwater run again), then highwater dead-letters retry {name} \
         --event {}",
        event.id
    );
    let hint = match error.hint() {
        Some(hint) => format!("{hint}; {next}"),
        None => next,
    };
    error.with_event(reference(event)).with_hint(hint)
}

/// Where nothing more may be parked, the event's own error says why there was anything to park.
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
