//! A PostgreSQL table as a source: the mark computed with statements in the one right order.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::connect::{Connector, Notifications};
use crate::pg::database::{self, Database, Short};
use crate::pg::sql::{Sql, Template, query, sql};
use crate::pg::{self, Parameter};
use crate::position::{Position, Range};
use crate::source::{
    Batch, BoxFuture, Filter, Follower, KeyedBatch, Keys, Middle, ReadRequest, RemovedIn, Source,
    Standing, Tally, Wakes,
};

mod anchor;
mod durable;
mod follower;
mod gap;
mod lag;
mod primary;
mod read;
mod row;
mod standing;

use primary::SeenPrimary;
use read::EventBytes;

pub use gap::{GapPolicy, HeldBy};

/// The channel that appenders notify after their commit.
pub const WAKE_CHANNEL: &str = "highwater_wake";

/// A table with the columns of `highwater.event`.
#[derive(Clone, Debug)]
pub struct EventTable {
    /// Its name as SQL text, quoted where it must be: `highwater.event`.
    pub relation: String,
    /// How a gap is told dead from alive.
    pub gap: GapPolicy,
    /// What tells this log from any other; `None`: the identity in `highwater.source`.
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
    seen_primary: SeenPrimary,
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
            seen_primary: SeenPrimary::default(),
            event_bytes: EventBytes::default(),
        }
    }

    /// The same table, for read models in another database: the events are read from here, not
    /// inside the server of the read model. Projections of it are in Rust.
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

    async fn middle_of(&self, range: Range, filter: Filter<'_>) -> Result<Option<Middle>> {
        let client = self.client().await?;
        client
            .answered(async {
                let (types, parked) = lists(&filter);
                let query = query!("source/middle.sql");
                let sql = self.keyed_sql(query, &filter.keys, "$4", &[])?;
                let parameters: [(&Parameter<'_>, Type); 4] = [
                    (&range.after().get(), Type::INT8),
                    (&range.through().get(), Type::INT8),
                    (&types, Type::TEXT_ARRAY),
                    (&parked, Type::TEXT_ARRAY),
                ];
                let row = client.query_typed_one(&sql, &parameters).await;
                let row = row.map_err(|e| pg::error("cannot count the events of a range", e))?;
                let count: i64 = pg::column(&row, 0)?;
                if count == 0 {
                    return Ok(None);
                }
                Ok(Some(Middle {
                    count: count.unsigned_abs(),
                    first: Position::new(pg::column(&row, 1)?),
                    middle: Position::new(pg::column(&row, 2)?),
                }))
            })
            .await
    }

    async fn tally_of(&self, range: Range, events_max: u64) -> Result<(Position, Tally)> {
        let client = self.client().await?;
        let sql = self.sql(query!("source/tally.sql"))?;
        let most = i64::try_from(events_max).unwrap_or(i64::MAX);
        let parameters: [(&Parameter<'_>, Type); 3] = [
            (&range.after().get(), Type::INT8),
            (&range.through().get(), Type::INT8),
            (&most, Type::INT8),
        ];
        let counting = async {
            let row = client.query_typed_one(&sql, &parameters).await;
            row.map_err(|e| pg::error("cannot count the events of a range", e))
        };
        let row = client.within(counting).await?;
        let tally = Tally {
            events: pg::column::<i64>(&row, 0)?.cast_unsigned(),
            digest: pg::column::<i64>(&row, 1)?.cast_unsigned(),
        };
        let last = pg::column::<Option<i64>>(&row, 2)?.map(Position::new);
        let through = match last {
            Some(last) if tally.events >= events_max => last,
            _ => range.through(),
        };
        Ok((through, tally))
    }

    async fn first_in(&self, range: Range) -> Result<Option<Position>> {
        let client = self.client().await?;
        client
            .within(async {
                let sql = self.sql(query!("source/following.sql"))?;
                let parameters: [(&Parameter<'_>, Type); 2] = [
                    (&range.after().get(), Type::INT8),
                    (&range.through().get(), Type::INT8),
                ];
                let row = client.query_typed_one(&sql, &parameters).await;
                let row = row.map_err(|e| pg::error("cannot read the next position", e))?;
                Ok(pg::column::<Option<i64>>(&row, 0)?.map(Position::new))
            })
            .await
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

    /// Who the transactions are that hold the mark, by their names in the lock table.
    pub async fn explain(&self, names: &[String]) -> Result<Vec<HeldBy>> {
        let client = self.client().await?;
        client
            .within(async { gap::explain(&client, names).await })
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

    fn standing(&self, at: Position, known: Option<Position>) -> BoxFuture<'_, Result<Standing>> {
        Box::pin(async move {
            let client = self.client().await?;
            let standing = async {
                self.seen_primary.check(&client, &self.name).await?;
                standing::of(&client, &self.table, at, known).await
            };
            client.within(standing).await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let client = self.client().await?;
            let check = async {
                self.seen_primary.check(&client, &self.name).await?;
                standing::given(&client, &self.table).await.map(drop)
            };
            client.within(check).await
        })
    }

    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        Box::pin(async move {
            let client = self.database.own().await?;
            let seen = self.seen_primary.check(&client, &self.name);
            client.within(seen).await?;
            let follower = follower::TableFollower::start(client, &self.table, floor).await?;
            Ok(Box::new(follower) as Box<dyn Follower>)
        })
    }

    fn read<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<Batch>> {
        Box::pin(self.read_batch(request))
    }

    fn read_keyed<'a>(&'a self, request: ReadRequest<'a>) -> BoxFuture<'a, Result<KeyedBatch>> {
        Box::pin(self.read_with_keys(request))
    }

    fn middle<'a>(
        &'a self,
        range: Range,
        filter: Filter<'a>,
    ) -> BoxFuture<'a, Result<Option<Middle>>> {
        Box::pin(self.middle_of(range, filter))
    }

    fn tally(&self, range: Range, events_max: u64) -> BoxFuture<'_, Result<(Position, Tally)>> {
        Box::pin(self.tally_of(range, events_max))
    }

    fn removed_in(&self, range: Range) -> BoxFuture<'_, Result<RemovedIn>> {
        Box::pin(async move {
            // Only our own table has the triggers that write it down.
            match &self.table.identity {
                Some(_) => Ok(RemovedIn::default()),
                None => {
                    let client = self.client().await?;
                    client.within(standing::removed_in(&client, range)).await
                }
            }
        })
    }

    fn first(&self, range: Range) -> BoxFuture<'_, Result<Option<Position>>> {
        Box::pin(self.first_in(range))
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
            let (_, removed) = standing::removed(&client, &[]).await?;
            Ok(removed.through)
        })
    }

    fn check_unread(&self, read_up_to: Position) -> Option<String> {
        let is_ours = self.table.identity.is_none();
        let check = |position| {
            sql!(
                "select highwater.check_unread({position})",
                position = position
            )
        };
        is_ours.then(|| check(Sql::number(read_up_to.get())).into())
    }

    fn server(&self) -> BoxFuture<'_, Result<Option<String>>> {
        Box::pin(async move {
            let client = self.client().await?;
            client.within(database::server(&client)).await.map(Some)
        })
    }

    fn relation(&self) -> Option<&str> {
        (!self.is_elsewhere).then_some(self.table.relation.as_str())
    }
}

/// The types and the parked keys of a filter, as parameters.
fn lists(filter: &Filter<'_>) -> (Option<Vec<String>>, Vec<String>) {
    let types = filter.types.map(<[String]>::to_vec);
    (types, Keys::listed(filter.keys.named()))
}

struct TableWakes(Notifications);

impl Wakes for TableWakes {
    fn next(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.0.recv().await.map(drop) })
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
    /// Of a log with more types than this, the names are allocated again now and then.
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
