//! disintegrate: an event listener with the notifier, writers that append under its validation.

mod event;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use disintegrate::serde::json::Json;
use disintegrate::{EventListener, EventStore, PersistedEvent, StreamQuery, query};
use disintegrate_postgres::{PgEventId, PgEventListener, PgEventListenerConfig, PgEventStore};
use peer_kit::order::{READ_MODEL, UPSERT};
use peer_kit::{Append, Peer, Writer};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::event::OrderEvent;

type Store = PgEventStore<OrderEvent, Json<OrderEvent>>;

async fn pool(url: &str, sessions: u32) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(sessions)
        .connect(url)
        .await?)
}

fn store(pool: PgPool) -> Store {
    PgEventStore::new_uninitialized(pool, Json::default())
}

/// The crate's own schema, from the files that `build` took out of it: as released, one of its functions
/// has a hexadecimal literal, which PostgreSQL 15 does not know.
const SCHEMA: [&str; 5] = [
    "seq_event_event_id.sql",
    "table_event.sql",
    "idx_event_type.sql",
    "fn_event_store_current_epoch.sql",
    "fn_event_store_begin_epoch.sql",
];

/// What the crate adds for an identifier of the events.
const IDENTIFIER: &str = "
    alter table event add column order_id text;
    create index idx_event_order_id on event (order_id) where order_id is not null;";

struct Summary {
    query: StreamQuery<PgEventId, OrderEvent>,
    pool: PgPool,
}

#[async_trait]
impl EventListener<PgEventId, OrderEvent> for Summary {
    type Error = sqlx::Error;

    fn id(&self) -> &'static str {
        "orders"
    }

    fn query(&self) -> &StreamQuery<PgEventId, OrderEvent> {
        &self.query
    }

    async fn handle(
        &self,
        event: PersistedEvent<PgEventId, OrderEvent>,
    ) -> Result<(), sqlx::Error> {
        let change = event.change();
        sqlx::query(UPSERT)
            .bind(event.order_id())
            .bind(change.items)
            .bind(change.cents)
            .bind(change.status)
            .bind(change.last)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

enum Own {
    /// Refuses what was decided on an outdated state of the order, whose last event is kept for that.
    Validated(Store, HashMap<String, PgEventId>),
    Unvalidated(Store),
}

impl Writer for Own {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let events = append
            .events
            .iter()
            .map(|event| OrderEvent::of(&append.stream, event))
            .collect::<Result<Vec<_>>>()?;
        match self {
            Own::Unvalidated(store) => {
                store.append_without_validation(events).await?;
            }
            Own::Validated(store, last) => {
                let decided_on = query!(OrderEvent; order_id == append.stream.clone());
                let version = last.get(&append.stream).copied().unwrap_or_default();
                let appended = store.append(events, decided_on, version).await?;
                if let Some(event) = appended.last() {
                    last.insert(append.stream.clone(), event.id());
                }
            }
        }
        Ok(())
    }
}

struct Plain(PgPool);

impl Writer for Plain {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let [event] = &append.events[..] else {
            bail!("one event at a time");
        };
        let event = OrderEvent::of(&append.stream, event)?;
        sqlx::query("insert into plain_event (event_type, payload, order_id) values ($1, $2, $3)")
            .bind(event.kind())
            .bind(serde_json::to_vec(&event)?)
            .bind(event.order_id())
            .execute(&self.0)
            .await?;
        Ok(())
    }
}

struct Disintegrate;

impl Peer for Disintegrate {
    type Own = Own;
    type Plain = Plain;

    async fn setup(&self, url: &str) -> Result<()> {
        let files = PathBuf::from(env::var_os("PEER_TARGET").context("PEER_TARGET is not set")?)
            .join("disintegrate-sql");
        let pool = pool(url, 1).await?;
        for name in SCHEMA {
            sqlx::raw_sql(&fs::read_to_string(files.join(name))?)
                .execute(&pool)
                .await?;
        }
        sqlx::raw_sql(IDENTIFIER).execute(&pool).await?;
        sqlx::raw_sql(READ_MODEL).execute(&pool).await?;
        Ok(())
    }

    async fn project(&self, url: &str) -> Result<()> {
        let pool = pool(url, 10).await?;
        let summary = Summary {
            query: query!(OrderEvent),
            pool: pool.clone(),
        };
        let config = PgEventListenerConfig::poller(Duration::from_secs(5)).with_notifier();
        PgEventListener::builder(store(pool))
            .register_listener(summary, config)
            .start()
            .await?;
        Ok(())
    }

    async fn own(&self, url: &str, way: &str) -> Result<Own> {
        let store = store(pool(url, 1).await?);
        Ok(match way {
            "append_without_validation" => Own::Unvalidated(store),
            _ => Own::Validated(store, HashMap::new()),
        })
    }

    async fn plain(&self, url: &str) -> Result<Plain> {
        Ok(Plain(pool(url, 1).await?))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    peer_kit::run(Disintegrate).await
}
