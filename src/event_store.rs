//! Appends to our own event table, and reads it.

use std::fmt;

use tokio_postgres::GenericClient;

use crate::error::{ErrorKind, Result};
use crate::event::{ExpectedVersion, NewEvent, RecordedEvent};
use crate::failpoint::failpoint;
use crate::ndjson::NdjsonEvent;
use crate::pg::database::Database;
use crate::pg::event::{self, Columns};
use crate::pg::wake::Waker;
use crate::position::Position;

pub use crate::pg::event::AppendedEvent;

/// How often an append of its own transaction is tried when the server chose it as a victim.
const TRIES: usize = 5;

/// The event table `highwater.event` of one database. Clones share the pool and the wakes.
///
/// ```no_run
/// use highwater::{ExpectedVersion, Highwater, NewEvent};
///
/// # async fn example() -> highwater::Result<()> {
/// let store = Highwater::connect("postgresql://app@localhost/shop").await?.event_store();
/// let placed = NewEvent::new("OrderPlaced", &serde_json::json!({ "cents": 2000 }))?;
/// let appended = store.append("order-1", ExpectedVersion::NoStream, &[placed]).await?;
/// assert_eq!(appended.version(), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventStore {
    database: Database,
    waker: Waker,
}

/// The places of the events of one append, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// One for each event.
    pub events: Vec<AppendedEvent>,
}

impl Appended {
    /// The first position that this append took; `None` if every event existed already.
    pub fn first(&self) -> Option<Position> {
        self.new_positions().min()
    }

    /// The last position that this append took; `None` if every event existed already.
    pub fn last(&self) -> Option<Position> {
        self.new_positions().max()
    }

    /// The stream's version after the last event; `None` if there was no event.
    pub fn version(&self) -> Option<i64> {
        self.events.last().map(|event| event.version)
    }

    fn new_positions(&self) -> impl Iterator<Item = Position> {
        let new = self.events.iter().filter(|event| !event.duplicate);
        new.map(|event| event.position)
    }
}

/// A wake that must wait for the caller's commit: see [`EventStore::append_in`].
#[derive(Debug)]
#[must_use = "send it after the commit, or engines notice the events at their next poll only"]
pub struct Wake(Option<Position>);

impl Wake {
    /// Sends it, coalesced with others, in the background. Call it after the commit.
    pub fn send(self, store: &EventStore) {
        if let Some(position) = self.0 {
            store.waker.wake(position);
        }
    }
}

impl fmt::Debug for EventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventStore").field(&self.database).finish()
    }
}

impl EventStore {
    /// Appends events to one stream in a transaction of its own, all or none, then wakes engines.
    ///
    /// `expected` is about the first event; each other one must follow the one before it if a
    /// version is expected at all. Events with ids may be appended again after an error that leaves
    /// open whether they were stored, such as a lost connection: they are stored once.
    ///
    /// # Errors
    /// [`ErrorKind::VersionConflict`], [`ErrorKind::IdConflict`], [`ErrorKind::BadEvent`], and those
    /// of the connection.
    pub async fn append(
        &self,
        stream: &str,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        self.append_columns(&columns(stream, expected, events))
            .await
    }

    /// Appends the events of a file in a transaction of its own, all or none, then wakes engines.
    ///
    /// # Errors
    /// As [`EventStore::append`]; the error does not name the event.
    pub(crate) async fn append_batch(&self, events: &[NdjsonEvent]) -> Result<Appended> {
        let mut columns = Columns::default();
        for event in events {
            columns.push(&event.stream, event.expected.as_sql(), &event.event);
        }
        self.append_columns(&columns).await
    }

    /// Appends events to one stream inside the caller's transaction, so that they are stored with
    /// whatever else it writes, or not at all.
    ///
    /// No wake is sent: before the commit there is nothing to see yet, and a NOTIFY inside the
    /// transaction would make every other appender of the cluster wait for its commit. Send the
    /// [`Wake`] after the commit; if that never happens, engines find the events by polling.
    ///
    /// # Errors
    /// As [`EventStore::append`]; the transaction is then aborted, as after any failed statement.
    pub async fn append_in(
        transaction: &impl GenericClient,
        stream: &str,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<(Appended, Wake)> {
        let columns = columns(stream, expected, events);
        let events = event::append(transaction, &columns).await?;
        let appended = Appended { events };
        let wake = Wake(appended.last());
        Ok((appended, wake))
    }

    /// Up to `limit` events after a position, in the order of positions: of one stream if `stream`
    /// is given, and of these types unless there are none.
    ///
    /// This shows what is committed now. A lower position may still appear: a projection reads
    /// through its source, which stops at the mark.
    ///
    /// # Errors
    /// Those of the connection and the database.
    pub async fn read(
        &self,
        after: Position,
        limit: usize,
        stream: Option<&str>,
        types: &[String],
    ) -> Result<Vec<RecordedEvent>> {
        let client = self.database.client().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        event::read(&**client, after, limit, stream, types).await
    }

    /// Returns when no wake is left to be sent: for a process that ends after its last append.
    /// While others keep appending with a clone of this store it may not return.
    pub async fn wakes_sent(&self) {
        self.waker.idle().await;
    }

    async fn append_columns(&self, columns: &Columns<'_>) -> Result<Appended> {
        let client = self.database.client().await?;
        let mut tries = 1;
        let events = loop {
            match event::append(&**client, columns).await {
                Err(error) if error.kind() == ErrorKind::Serialization && tries < TRIES => {
                    tries += 1
                }
                result => break result?,
            }
        };
        failpoint!("append.committed");
        let appended = Appended { events };
        if let Some(last) = appended.last() {
            self.waker.wake(last);
        }
        Ok(appended)
    }
}

/// The event table of `database`.
pub fn in_database(database: Database) -> EventStore {
    EventStore {
        waker: Waker::new(database.clone()),
        database,
    }
}

fn columns<'a>(stream: &'a str, expected: ExpectedVersion, events: &'a [NewEvent]) -> Columns<'a> {
    let mut columns = Columns::default();
    for (event, index) in events.iter().zip(0_i64..) {
        let expected = expected
            .as_sql()
            .map(|version| version.saturating_add(index));
        columns.push(stream, expected, event);
    }
    columns
}
