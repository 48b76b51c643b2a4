//! evento: a subscription whose handlers keep the read model, writers that append at an original version.

mod event;

use std::process::ExitCode;

use anyhow::{Result, bail};
use evento::Executor;
use evento::metadata::Event;
use evento::migrator::{Migrate, Plan};
use evento::subscription::{Context, SubscriptionBuilder};
use peer_kit::order::{Change, READ_MODEL, UPSERT};
use peer_kit::{Append, Peer, Writer};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::event::{ItemAdded, Line, OrderPlaced, OrderShipped};

async fn apply(pool: &PgPool, stream: &str, kind: &str, line: &Line) -> Result<()> {
    let change = Change::of(kind, &line.into());
    sqlx::query(UPSERT)
        .bind(stream)
        .bind(change.items)
        .bind(change.cents)
        .bind(change.status)
        .bind(change.last)
        .execute(pool)
        .await?;
    Ok(())
}

#[evento::subscription]
async fn on_placed<E: Executor>(ctx: &Context<'_, E>, event: Event<OrderPlaced>) -> Result<()> {
    apply(
        &ctx.extract(),
        &event.aggregate_id,
        "OrderPlaced",
        &event.data.line,
    )
    .await
}

#[evento::subscription]
async fn on_added<E: Executor>(ctx: &Context<'_, E>, event: Event<ItemAdded>) -> Result<()> {
    apply(
        &ctx.extract(),
        &event.aggregate_id,
        "ItemAdded",
        &event.data.line,
    )
    .await
}

#[evento::subscription]
async fn on_shipped<E: Executor>(ctx: &Context<'_, E>, event: Event<OrderShipped>) -> Result<()> {
    apply(
        &ctx.extract(),
        &event.aggregate_id,
        "OrderShipped",
        &event.data.line,
    )
    .await
}

struct Own(evento::Postgres);

impl Writer for Own {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let mut write = evento::append(&append.stream);
        write.original_version(u16::try_from(append.first - 1)?);
        for event in &append.events {
            let line = Line::from(&event.data);
            match event.kind.as_str() {
                "OrderPlaced" => write.event(&OrderPlaced { line }),
                "ItemAdded" => write.event(&ItemAdded { line }),
                "OrderShipped" => write.event(&OrderShipped { line }),
                other => bail!("no event {other}"),
            };
        }
        write.commit(&self.0).await?;
        Ok(())
    }
}

struct Plain(PgPool);

impl Writer for Plain {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let [event] = &append.events[..] else {
            bail!("one event at a time");
        };
        sqlx::query(
            "insert into plain_event
                (id, name, aggregator_type, aggregator_id, version, data, metadata, tenant, timestamp, timestamp_subsec)
             values ($1, $2, 'shop/Order', $3, $4, $5, $6, '', extract(epoch from now())::bigint, 0)",
        )
        .bind(ulid::Ulid::generate().to_string())
        .bind(&event.kind)
        .bind(&append.stream)
        .bind(append.first as i32)
        .bind(bitcode::encode(&Line::from(&event.data)))
        .bind(Vec::<u8>::new())
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

struct Evento;

impl Peer for Evento {
    type Own = Own;
    type Plain = Plain;

    async fn setup(&self, url: &str) -> Result<()> {
        let pool = pool(url, 1).await?;
        let mut session = pool.acquire().await?;
        evento::sql_migrator::new::<sqlx::Postgres>()?
            .run(&mut *session, &Plan::apply_all())
            .await?;
        drop(session);
        sqlx::raw_sql(READ_MODEL).execute(&pool).await?;
        Ok(())
    }

    async fn project(&self, url: &str) -> Result<()> {
        let pool = pool(url, 10).await?;
        let executor: evento::Postgres = pool.clone().into();
        let subscription = SubscriptionBuilder::new("orders")
            .data(pool)
            .handler(on_placed())
            .handler(on_added())
            .handler(on_shipped())
            .start(&executor)
            .await?;
        bail!("{}", subscription.stopped().await)
    }

    async fn own(&self, url: &str, _way: &str) -> Result<Own> {
        Ok(Own(pool(url, 1).await?.into()))
    }

    async fn plain(&self, url: &str) -> Result<Plain> {
        Ok(Plain(pool(url, 1).await?))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    peer_kit::run(Evento).await
}
