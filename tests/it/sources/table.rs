//! Tables under test: the built-in one, in the database of the read models and in another one, and
//! one that somebody else made.

use std::sync::Arc;

use highwater::internal::source::table::{EventTable, GapPolicy, TableSource};
use highwater::internal::source::{BoxFuture, Source};
use highwater::testing::TestDatabase;
use highwater::testing::conformance::{Pending, PendingAppend, SourceUnderTest};
use highwater::{NewEvent, Position};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::support::one;

/// A table with the columns of ours, whose positions come from a sequence of its own.
const MAPPED: &str = "
    create schema shop;
    create table shop.\"Journal\" (
        position bigint generated always as identity primary key, stream text not null,
        version bigint not null, type text not null, data jsonb not null,
        metadata jsonb not null default '{}', id uuid not null unique default gen_random_uuid(),
        recorded_at timestamptz not null default clock_timestamp())";

pub(super) struct InTable {
    database: TestDatabase,
    client: Client,
    table: EventTable,
    is_elsewhere: bool,
}

impl InTable {
    pub(super) async fn own() -> InTable {
        InTable::with(EventTable::own()).await
    }

    pub(super) async fn elsewhere() -> InTable {
        let own = InTable::own().await;
        InTable {
            is_elsewhere: true,
            ..own
        }
    }

    pub(super) async fn mapped() -> InTable {
        let mapped = InTable::with(EventTable {
            relation: "shop.\"Journal\"".to_owned(),
            gap: GapPolicy::Sequence { named: None },
            identity: Some("the journal of a shop".to_owned()),
        });
        let mapped = mapped.await;
        mapped.client.batch_execute(MAPPED).await.unwrap();
        mapped
    }

    async fn with(table: EventTable) -> InTable {
        let database = TestDatabase::new().await;
        InTable {
            client: database.client().await,
            database,
            table,
            is_elsewhere: false,
        }
    }

    async fn sequence(&self) -> String {
        let sql = format!(
            "select pg_get_serial_sequence('{}', 'position')",
            self.table.relation
        );
        one(&self.client, &sql).await
    }

    /// As anybody's plain insert.
    async fn insert(&self, client: &Client, stream: &str, event: &NewEvent) -> Position {
        let relation = &self.table.relation;
        let sql = format!(
            "insert into {relation} (stream, version, type, data, id)
             select $1, coalesce(max(version), 0) + 1, $2, $3::text::jsonb,
                    coalesce($4, gen_random_uuid())
               from {relation} where stream = $1
             returning position"
        );
        let (event_type, data) = (&event.event_type, event.data.get());
        let parameters: [&(dyn ToSql + Sync); 4] = [&stream, event_type, &data, &event.id];
        let row = client.query_one(&sql, &parameters).await.unwrap();
        Position::new(row.get(0))
    }
}

impl SourceUnderTest for InTable {
    fn source(&self) -> Arc<dyn Source> {
        let database = self.database.pooled();
        let direct = Some(database.connector().clone());
        let source = TableSource::new("default", database, direct, self.table.clone());
        match self.is_elsewhere {
            true => Arc::new(source.elsewhere()),
            false => Arc::new(source),
        }
    }

    fn append<'a>(&'a self, stream: &'a str, event: NewEvent) -> BoxFuture<'a, Position> {
        Box::pin(async move {
            let position = self.insert(&self.client, stream, &event).await;
            let wake = self.client.batch_execute("select highwater.wake()");
            wake.await.unwrap();
            position
        })
    }

    fn begin<'a>(&'a self, stream: &'a str, event: NewEvent) -> BoxFuture<'a, Option<Pending>> {
        Box::pin(async move {
            let client = self.database.client().await;
            client.batch_execute("begin").await.unwrap();
            let position = self.insert(&client, stream, &event).await;
            let ending = Box::new(Transaction(client));
            Some(Pending { position, ending })
        })
    }

    fn burn(&self, count: u32) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let sequence = self.sequence().await;
            let sql = format!("select nextval('{sequence}') from generate_series(1, {count})");
            self.client.batch_execute(&sql).await.unwrap();
            true
        })
    }

    fn rewind(&self, to: Position) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let (relation, sequence) = (&self.table.relation, self.sequence().await);
            // As a restored backup: no trigger hears of it.
            let sql = format!(
                "set session_replication_role = replica;
                 delete from {relation} where position > {to};
                 reset session_replication_role;
                 select setval('{sequence}', {to})"
            );
            self.client.batch_execute(&sql).await.unwrap();
            true
        })
    }

    fn remove_through(&self, position: Position) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let relation = &self.table.relation;
            let sql = format!("delete from {relation} where position <= {position}");
            self.client.batch_execute(&sql).await.unwrap();
            true
        })
    }

    fn disconnect(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let sql = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
                       where datname = current_database() and pid <> pg_backend_pid()";
            self.client.batch_execute(sql).await.unwrap();
            true
        })
    }
}

struct Transaction(Client);

impl Transaction {
    async fn end(self, how: &str) {
        self.0.batch_execute(how).await.unwrap();
    }
}

impl PendingAppend for Transaction {
    fn commit(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.end("commit"))
    }

    fn roll_back(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.end("rollback"))
    }
}
