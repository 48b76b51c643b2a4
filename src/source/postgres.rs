//! What a log can do because it is in a PostgreSQL database: the server evaluates keys, counts, and
//! names who holds the mark. In the database of the read models it is also read inside the server.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Batch, BoxFuture, Filter, KeyedBatch, Keys, OpenGap, ReadRequest, Tally};
use crate::error::Result;
use crate::pg::column;
use crate::position::{Position, Range};

/// A log in a PostgreSQL database.
///
/// A source without it works too: its events have the key `stream`, ranges are halved and counted
/// by reading them ([`super::Source`]), and it cannot name who holds the mark.
pub trait PostgresLog: Send + Sync {
    /// The relation that holds the events, as SQL text with the columns of `highwater.event`, if
    /// that is the database of the read models and the relation may be read there.
    fn relation(&self) -> Option<&str>;

    /// Whether `highwater.check_unread` there raises HW104 if events of this log were removed that a
    /// transaction did not read.
    fn records_removals(&self) -> bool {
        false
    }

    /// As [`super::Source::read`], only the events whose key is wanted.
    fn read_keys<'a>(
        &'a self,
        request: ReadRequest<'a>,
        keys: Keys<'a>,
    ) -> BoxFuture<'a, Result<Batch>>;

    /// As [`PostgresLog::read_keys`], with the key of each event.
    fn read_keyed<'a>(
        &'a self,
        request: ReadRequest<'a>,
        keys: Keys<'a>,
    ) -> BoxFuture<'a, Result<KeyedBatch>>;

    /// The position of the first event of a range, of any type.
    fn first(&self, range: Range) -> BoxFuture<'_, Result<Option<Position>>>;

    /// How many wanted events a range holds, and the one in the middle.
    fn middle<'a>(
        &'a self,
        range: Range,
        filter: Filter<'a>,
    ) -> BoxFuture<'a, Result<Option<Midpoint>>>;

    /// How many events of any type a range holds, at most `events_max`, and how far they were
    /// counted.
    fn tally(&self, range: Range, events_max: u64) -> BoxFuture<'_, Result<(Position, Tally)>>;

    /// What was removed on purpose from a range; `None` if that is not recorded.
    fn removed_in(&self, _range: Range) -> BoxFuture<'_, Result<Option<RemovedIn>>> {
        Box::pin(async { Ok(None) })
    }

    /// The name of the running server that has the events: everything that crashes together has one
    /// name.
    fn server(&self) -> BoxFuture<'_, Result<String>>;

    /// The transactions that may still fill a gap.
    fn blockers<'a>(&'a self, gap: &'a OpenGap) -> BoxFuture<'a, Result<Vec<Blocker>>>;

    /// When the first event after `position` was recorded.
    fn recorded_after(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>>>;
}

/// The events of a range, counted: for halving a batch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Midpoint {
    /// How many wanted events the range holds, at least 1.
    pub count: u64,
    /// The first of them.
    pub first: Position,
    /// The one in the middle; the first of two.
    pub middle: Position,
}

/// What was removed on purpose from a range of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedIn {
    /// The oldest events were removed up to this position; which ones is not known.
    pub through: Position,
    /// Other removed events of the range.
    pub others: Vec<(Position, Uuid)>,
}

/// A transaction that others wait for: it holds the mark, or a lock. Fields that the role may not
/// see are `None`; `pg_monitor` sees all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Blocker {
    /// Its name in the lock table, or that of the batch that waits for it.
    #[serde(skip)]
    pub name: String,
    /// The server process; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The role.
    pub user: Option<String>,
    /// The name that the client gave itself.
    pub application: Option<String>,
    /// The query it runs or ran last.
    pub query: Option<String>,
    /// When the transaction began, or was prepared.
    pub since: Option<Timestamp>,
    /// The name it was prepared under.
    pub prepared: Option<String>,
    /// What its session does: `active`, `idle in transaction`. Only for messages.
    #[serde(skip)]
    pub state: Option<String>,
}

impl Blocker {
    /// From a row with the columns in the order of the fields.
    pub(crate) fn read(row: &Row) -> Result<Blocker> {
        Ok(Blocker {
            name: column(row, 0)?,
            pid: column(row, 1)?,
            user: column(row, 2)?,
            application: column(row, 3)?,
            query: column(row, 4)?,
            since: column(row, 5)?,
            prepared: column(row, 6)?,
            state: column(row, 7)?,
        })
    }
}
