//! eventcore: its transactional projection runner, writers that append with expected versions.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use eventcore::postgres::PostgresEventStore;
use eventcore::postgres::projections::{
    DeliveryPosition, DeliverySourceId, EventTypeName, NoopAfterCommit, Postgres,
    PostgresProjectionConfig, PostgresProjectionSource, PostgresProjectionStore, PostgresProjector,
    ProjectionSelection, ProjectionSelectionId, ProjectionStreamFilter, ProjectorName, Transaction,
    run_transactional_projection,
};
use eventcore_types::{EventStore, StreamId, StreamVersion, StreamWrites};
use peer_kit::order::{Change, READ_MODEL, UPSERT};
use peer_kit::workload::Data;
use peer_kit::{Append, Peer, Writer};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use sqlx::types::Json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Clone, Debug, Deserialize, Serialize)]
struct OrderEvent {
    stream: StreamId,
    kind: String,
    data: Data,
}

impl eventcore::Event for OrderEvent {
    fn stream_id(&self) -> &StreamId {
        &self.stream
    }

    fn event_type_name() -> &'static str {
        "order-event"
    }
}

impl OrderEvent {
    fn all(append: &Append) -> Result<(StreamId, Vec<OrderEvent>)> {
        let stream = StreamId::try_new(append.stream.clone())?;
        let event = |event: &peer_kit::Event| OrderEvent {
            stream: stream.clone(),
            kind: event.kind.clone(),
            data: event.data.clone(),
        };
        let events = append.events.iter().map(event).collect();
        Ok((stream, events))
    }
}

struct Summary {
    name: ProjectorName,
}

impl PostgresProjector for Summary {
    type Event = OrderEvent;
    type Error = sqlx::Error;
    type AfterCommit = NoopAfterCommit;

    fn name(&self) -> &ProjectorName {
        &self.name
    }

    async fn apply<'a, 'c>(
        &'a mut self,
        event: &'a OrderEvent,
        _position: DeliveryPosition,
        tx: &'a mut Transaction<'c, Postgres>,
    ) -> Result<NoopAfterCommit, sqlx::Error>
    where
        'c: 'a,
    {
        let change = Change::of(&event.kind, &event.data);
        sqlx::query(UPSERT)
            .bind(event.stream.as_ref())
            .bind(change.items)
            .bind(change.cents)
            .bind(change.status)
            .bind(change.last)
            .execute(&mut **tx)
            .await?;
        Ok(NoopAfterCommit)
    }
}

struct Own(PostgresEventStore);

impl Writer for Own {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let (stream, events) = OrderEvent::all(append)?;
        let before = StreamVersion::new(append.first as usize - 1);
        let mut writes = StreamWrites::new().register_stream(stream, before)?;
        for event in events {
            writes = writes.append(event)?;
        }
        self.0.append_events(writes).await?;
        Ok(())
    }
}

struct Plain(PgPool);

impl Writer for Plain {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let (_, events) = OrderEvent::all(append)?;
        let [event] = &events[..] else {
            bail!("one event at a time");
        };
        sqlx::query(
            "insert into plain_event
                (event_id, stream_id, stream_version, event_type, event_data)
             values ($1, $2, $3, 'order-event', $4)",
        )
        .bind(Uuid::now_v7())
        .bind(&append.stream)
        .bind(i64::from(append.first))
        .bind(Json(event))
        .execute(&self.0)
        .await?;
        Ok(())
    }
}

async fn pool(url: &str, sessions: u32) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(sessions)
        .connect(url)
        .await?)
}

fn source(pool: PgPool) -> Result<PostgresProjectionSource> {
    let id = DeliverySourceId::try_new("orders")?;
    Ok(PostgresProjectionSource::from_pool(pool, id))
}

struct Eventcore;

impl Peer for Eventcore {
    type Own = Own;
    type Plain = Plain;

    async fn setup(&self, url: &str) -> Result<()> {
        let pool = pool(url, 5).await?;
        PostgresEventStore::from_pool(pool.clone()).migrate().await;
        source(pool.clone())?.migrate().await?;
        PostgresProjectionStore::from_pool(pool.clone())
            .migrate()
            .await?;
        sqlx::raw_sql(READ_MODEL).execute(&pool).await?;
        Ok(())
    }

    async fn project(&self, url: &str) -> Result<()> {
        let selection = ProjectionSelection::try_new(
            ProjectionSelectionId::try_new("orders-v1")?,
            ProjectionStreamFilter::All,
            vec![EventTypeName::try_new("order-event")?],
        )?;
        let config = PostgresProjectionConfig::new(selection)
            .continuous(CancellationToken::new())
            .with_continuous_poll_interval(Duration::from_millis(10))?;
        let summary = Summary {
            name: ProjectorName::try_new("orders")?,
        };
        let source = source(pool(url, 5).await?)?;
        let store = PostgresProjectionStore::from_pool(pool(url, 5).await?);
        run_transactional_projection(summary, &source, &store, config)
            .await
            .map_err(|e| anyhow!("{e:?}"))?;
        Ok(())
    }

    async fn own(&self, url: &str, _way: &str) -> Result<Own> {
        Ok(Own(PostgresEventStore::from_pool(pool(url, 1).await?)))
    }

    async fn plain(&self, url: &str) -> Result<Plain> {
        Ok(Plain(pool(url, 1).await?))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    peer_kit::run(Eventcore).await
}
