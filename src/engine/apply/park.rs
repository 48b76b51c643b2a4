//! Dead letters: how events become dead letters and are applied later, each in one transaction.

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::failpoint::failpoint;
use crate::pg;
use crate::pg::checkpoint;
use crate::pg::connect::PooledClient;
use crate::pg::dead_letter::{self, Cause};
use crate::pg::sql::Sql;
use crate::pg::transaction::COMMIT;
use crate::position::Range;
use crate::source::{EventKey, Parked, ReadRequest};

use super::batch::BatchText;
use super::{Applier, Session};

impl Applier {
    /// Stores one event as a dead letter and parks its key. The checkpoint moves over this event
    /// alone.
    pub(in crate::engine) async fn park(
        &self,
        client: PooledClient,
        dead_letter: (EventKey, RecordedEvent),
        cause: &Cause,
    ) -> Result<()> {
        let session = Session::new(client, &self.in_flight);
        let done = self.park_on(&session, dead_letter, cause).await;
        session.finish(done.as_ref().err()).await;
        done
    }

    async fn park_on(
        &self,
        session: &Session,
        dead_letter: (EventKey, RecordedEvent),
        cause: &Cause,
    ) -> Result<()> {
        let (position, id) = (dead_letter.1.position, dead_letter.1.id);
        let range = Range::new(position.previous(), position);
        let fence = self.fence().text(range, Some((position, id)));
        let begin = Sql::message([self.prologue.sql(), fence]);
        let begun = session.client().batch_execute(&begin).await;
        begun.map_err(|e| pg::error("cannot begin to park", e))?;
        dead_letter::insert(session.client(), &self.key, &[dead_letter], Some(cause)).await?;
        failpoint!("park.inserted");
        let end = Sql::message([
            dead_letter::raise_parking(&self.key),
            self.parking.check(&self.key),
            checkpoint::end_batch(range),
            COMMIT,
        ]);
        let ended = session.client().batch_execute(&end).await;
        ended.map_err(|e| self.explain_full(pg::error("cannot park the key", e)))
    }

    /// Applies a dead letter, and deletes it. The checkpoint stays where it is.
    pub(in crate::engine) async fn apply_dead_letter(
        &self,
        client: PooledClient,
        event: RecordedEvent,
    ) -> Result<()> {
        let session = Session::new(client, &self.in_flight);
        let done = self.executor().apply_dead_letter(&session, event).await;
        session.finish(done.as_ref().err()).await;
        done
    }

    /// The key of an event, as the source sees it.
    pub(in crate::engine) async fn key_of(&self, event: &RecordedEvent) -> Result<EventKey> {
        let range = Range::new(event.position.previous(), event.position);
        let keys = self.filter().parked(Parked::With).keys;
        let request = ReadRequest {
            range,
            types: None,
            events_max: 1,
            bytes_max: usize::MAX,
        };
        let read = self.source.read_keyed(request, keys).await?.events.pop();
        let gone = || {
            let what = format!("the event at position {} no longer exists", event.position);
            // Deleted just now: the next attempt does not find it.
            Error::new(ErrorKind::Serialization, what)
        };
        read.map(|(key, _)| key).ok_or_else(gone)
    }

    /// The statements that store a batch's events of parked keys as dead letters, where the server
    /// can read the log itself; none where no key is parked.
    pub(super) fn park_events(&self, batch: &BatchText<'_>, range: Range) -> Result<Vec<Sql>> {
        if self.partition_filter.parked.is_empty() {
            return Ok(Vec::new());
        }
        let most = u64::from(self.parking.dead_letters_max) + 1;
        let insert = batch.park_events(range, &self.key, most)?;
        Ok(vec![insert, self.parking.check(&self.key)])
    }

    /// What to do when a limit of parking is reached.
    pub(super) fn explain_full(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::ParkedFull {
            return error;
        }
        let name = &self.key.projection;
        error.with_hint(format!(
            "highwater dead-letters list {name} --by-error shows why; fix it, then highwater \
             dead-letters retry {name} --all, or discard them, or raise the limit in \
             highwater.toml; then highwater run {name} resumes"
        ))
    }
}
