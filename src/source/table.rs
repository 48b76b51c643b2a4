//! A PostgreSQL table as a source: the mark computed with statements in the one right order.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::pg;
use crate::pg::connect::{Connector, Notifications};
use crate::pg::database::{Database, Short};
use crate::pg::sql::{Sql, Template, query};
use crate::position::Position;
use crate::source::{
    Batch, BoxFuture, Follower, Keys, Lag, LogState, PostgresLog, ReadRequest, Source, Wakes,
};

mod durable;
mod follower;
mod gap;
mod lag;
mod last_passed;
mod locks;
mod log_state;
mod postgres;
mod primary;
mod read;
mod row;
mod rows;

use primary::PrimaryCheck;
use read::EventBytes;

pub use gap::GapPolicy;

/// The channel that appenders notify after their commit.
pub const WAKE_CHANNEL: &str = "highwater_wake";

/// A table with the columns of `highwater.event`.
#[derive(Clone, Debug)]
pub struct EventTable {
    /// Its name as SQL text, quoted where it must be: `highwater.event`.
    pub relation: String,
    /// How a dead gap is distinguished from a live one.
    pub gap: GapPolicy,
    /// The identity of this log; `None`: the one in `highwater.source`.
    pub identity: Option<String>,
}

impl EventTable {
    /// highwater's own event table.
    pub fn own() -> EventTable {
        EventTable {
            relation: "highwater.event".into(),
            gap: GapPolicy::Sequence { named: None },
            identity: None,
        }
    }

    /// The query of its last event at or before the position `$1`.
    fn last_sql(&self) -> Result<Sql> {
        query!("source/last.sql")
            .fill(&[("events", &self.sql()?), ("position", &Sql::trusted("$1"))])
    }

    /// Its name, checked.
    fn sql(&self) -> Result<Sql> {
        Sql::relation(&self.relation)
    }
}

/// A PostgreSQL table as a source.
pub struct TableSource {
    name: String,
    database: Database,
    direct: Option<Connector>,
    table: EventTable,
    is_elsewhere: bool,
    seen_primary: PrimaryCheck,
    event_bytes: EventBytes,
}

impl fmt::Debug for TableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSource")
            .field("name", &self.name)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl TableSource {
    /// The table `table` in `database`. `direct` is where LISTEN goes; `None` leaves it out, and
    /// the source is only polled.
    pub fn new(
        name: impl Into<String>,
        database: Database,
        direct: Option<Connector>,
        table: EventTable,
    ) -> TableSource {
        TableSource {
            name: name.into(),
            database,
            direct,
            table,
            is_elsewhere: false,
            seen_primary: PrimaryCheck::default(),
            event_bytes: EventBytes::default(),
        }
    }

    /// The same table, for read models in another database: the events are read from here, not
    /// inside the server of the read model. Its projections are in Rust.
    #[must_use]
    pub fn elsewhere(self) -> TableSource {
        TableSource {
            is_elsewhere: true,
            ..self
        }
    }

    async fn client(&self) -> Result<Short> {
        self.database.short().await
    }

    /// A query of the table.
    fn sql(&self, query: Template) -> Result<Sql> {
        query.fill(&[("events", &self.table.sql()?)])
    }

    /// A query of the table with conditions for the key; `list` is where it has the parked keys.
    fn keyed_sql(
        &self,
        query: Template,
        keys: &Keys<'_>,
        list: &'static str,
        others: &[(&str, &Sql)],
    ) -> Result<Sql> {
        let (events, partition) = (self.table.sql()?, keys.in_partition()?);
        let parked = keys.by_list(list)?;
        let mut values = vec![
            ("events", &events),
            ("partition", &partition),
            ("parked", &parked),
        ];
        values.extend(others);
        query.fill(&values)
    }

    async fn last_event_at(&self, position: Position) -> Result<Option<(Position, Uuid)>> {
        let client = self.client().await?;
        client
            .within(async {
                let sql = self.table.last_sql()?;
                let row = client
                    .query_typed_opt(&sql, &[(&position.get(), Type::INT8)])
                    .await
                    .map_err(|e| pg::error("cannot read the event at a position", e))?;
                row.map(|row| Ok((Position::new(pg::column(&row, 0)?), pg::column(&row, 1)?)))
                    .transpose()
            })
            .await
    }
}

impl Source for TableSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            if let Some(identity) = &self.table.identity {
                return Ok(identity.clone());
            }
            let client = self.client().await?;
            client.within(identity(&client)).await
        })
    }

    fn head(&self) -> BoxFuture<'_, Result<Position>> {
        Box::pin(async move {
            let client = self.client().await?;
            client.within(head(&client, &self.table)).await
        })
    }

    fn log_state(&self, at: Position, known: Option<Position>) -> BoxFuture<'_, Result<LogState>> {
        Box::pin(async move {
            let client = self.client().await?;
            let state = async {
                self.seen_primary.check(&client, &self.name).await?;
                log_state::of(&client, &self.table, at, known).await
            };
            client.within(state).await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let client = self.client().await?;
            let check = async {
                self.seen_primary.check(&client, &self.name).await?;
                log_state::given(&client, &self.table).await.map(drop)
            };
            client.within(check).await
        })
    }

    fn follow(&self, proven: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        Box::pin(async move {
            let client = self.database.own().await?;
            let seen = self.seen_primary.check(&client, &self.name);
            client.within(seen).await?;
            let follower = follower::TableFollower::start(client, &self.table, proven).await?;
            Ok(Box::new(follower) as Box<dyn Follower>)
        })
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>> {
        Box::pin(self.read_keys_of(request, Keys::ALL))
    }

    fn last_at(&self, position: Position) -> BoxFuture<'_, Result<Option<(Position, Uuid)>>> {
        Box::pin(self.last_event_at(position))
    }

    fn wakes(&self) -> BoxFuture<'_, Result<Option<Box<dyn Wakes>>>> {
        Box::pin(async move {
            let Some(direct) = &self.direct else {
                return Ok(None);
            };
            let notifications = direct.listen(WAKE_CHANNEL).await?;
            Ok(Some(Box::new(TableWakes(notifications)) as Box<dyn Wakes>))
        })
    }

    fn removed_through(&self) -> BoxFuture<'_, Result<Position>> {
        Box::pin(async move {
            if self.table.identity.is_some() {
                return Ok(Position::START);
            }
            let client = self.client().await?;
            let (_, removed) = log_state::removed(&client, &[]).await?;
            Ok(removed.through)
        })
    }

    fn lag<'a>(&'a self, positions: &'a [Position]) -> BoxFuture<'a, Result<Lag>> {
        Box::pin(self.lag_behind(positions))
    }

    fn postgres(&self) -> Option<&dyn PostgresLog> {
        Some(self)
    }
}

struct TableWakes(Notifications);

impl Wakes for TableWakes {
    fn next(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.recv().await?;
            Ok(())
        })
    }
}

/// The identity that our own schema holds.
pub(crate) async fn identity(client: &Client) -> Result<String> {
    let row = client
        .query_typed_opt(include_str!("../../sql/queries/source/identity.sql"), &[])
        .await
        .map_err(|e| pg::error("cannot read the identity of the event table", e))?;
    let Some(row) = row else {
        return Err(no_identity());
    };
    let identity: Uuid = pg::column(&row, 0)?;
    Ok(identity.to_string())
}

fn no_identity() -> Error {
    Error::new(
        ErrorKind::Database,
        "highwater.source is empty: the event table has lost its identity",
    )
    .with_hint("restore the row from a backup; projections cannot be compared without it")
}

/// The highest committed position of a table.
pub(crate) async fn head(client: &Client, table: &EventTable) -> Result<Position> {
    let sql = query!("source/head.sql").fill(&[("events", &table.sql()?)])?;
    let row = client
        .query_typed_one(&sql, &[])
        .await
        .map_err(|e| pg::error("cannot read the head of the log", e))?;
    Ok(Position::new(pg::column(&row, 0)?))
}

/// The names of types, each allocated once: they repeat.
#[derive(Default)]
struct TypeNames(HashSet<Arc<str>>);

impl TypeNames {
    /// With more types than this, the names are allocated again now and then.
    const MAX: usize = 4_096;

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        if self.0.len() >= TypeNames::MAX {
            self.0.clear();
        }
        let new: Arc<str> = name.into();
        self.0.insert(new.clone());
        new
    }
}
