//! How long a live partition stands still when its instance goes: from the moment it is told to stop,
//! or killed, until another instance has applied an event that was appended then.
//!
//! `cargo bench --bench hand_over`; budgets in milliseconds: 100 clean with LISTEN, 1,000 clean
//! without, the lease and 1,000 after a kill.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::engine::Settings;
use highwater::projection::file::ProjectionFile;
use highwater::projection::{Runnable, SqlProjection};
use highwater::testing::TestDatabase;
use highwater::{Engine, Error, ErrorKind, Result, Until};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 11;
const COUNTS: &str = "-- highwater: up
create table counts (stream text primary key, n bigint not null);
-- highwater: apply
insert into counts select stream, count(*) from batch group by stream
on conflict (stream) do update set n = counts.n + excluded.n;
";

struct Instance {
    stop: CancellationToken,
    task: JoinHandle<Result<highwater::Report>>,
}

fn start(database: &TestDatabase, projection: &Arc<dyn Runnable>, listen: bool) -> Instance {
    let mut settings = Settings::default();
    settings.listen = listen;
    let engine = Engine::new(database.pooled(), settings)
        .source(database.source())
        .projection(projection.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    Instance { stop, task }
}

async fn number(client: &Client, sql: &str) -> Result<i64> {
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(|e| Error::new(ErrorKind::Database, e.to_string()))?;
    Ok(row.get(0))
}

/// Appends an event and waits until it is visible.
async fn visible(client: &Client) -> Result<Duration> {
    let append = "insert into highwater.event (stream, version, type, data)
                  values (gen_random_uuid()::text, 1, 'T', '{}') returning position";
    let began = Instant::now();
    let position = number(client, append).await?;
    let stands = "select coalesce(min(position), 0) from highwater.checkpoint";
    while number(client, stands).await? < position {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(began.elapsed())
}

async fn living(client: &Client, instances: i64) -> Result<()> {
    let sql = "select count(*) from highwater.instance where seen_at + lease > clock_timestamp()
                  and projections <> '{}'";
    while number(client, sql).await? != instances {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn measure(listen: bool, kill: bool) -> Result<Vec<Duration>> {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let file = ProjectionFile::parse(Path::new("projections/counts.sql"), COUNTS)?;
    let projection: Arc<dyn Runnable> = Arc::new(SqlProjection::new(file));
    let mut took = Vec::new();
    let mut first = start(&database, &projection, listen);
    for _ in 0..ROUNDS {
        visible(&client).await?;
        let second = start(&database, &projection, listen);
        living(&client, 2).await?;
        // Whoever has it goes.
        let owner = "select case when c.owner = (select id from highwater.instance where seen_at + lease > clock_timestamp()
                                            order by started_at limit 1)
                            then 1 else 2 end::bigint from highwater.checkpoint c";
        let (goes, stays) = match number(&client, owner).await? {
            1 => (first, second),
            _ => (second, first),
        };
        if kill {
            goes.task.abort();
        } else {
            goes.stop.cancel();
        }
        took.push(visible(&client).await?);
        let _ = goes.task.await;
        first = stays;
        living(&client, 1).await?;
    }
    first.stop.cancel();
    let _ = first.task.await;
    took.sort_unstable();
    Ok(took)
}

#[tokio::main]
async fn main() -> Result<()> {
    let lease = Settings::default().lease;
    let rows = [
        (
            "clean, with LISTEN",
            true,
            false,
            Duration::from_millis(100),
        ),
        (
            "clean, without LISTEN",
            false,
            false,
            Duration::from_secs(1),
        ),
        (
            "killed, with LISTEN",
            true,
            true,
            lease + Duration::from_secs(1),
        ),
        (
            "killed, without LISTEN",
            false,
            true,
            lease + Duration::from_secs(1),
        ),
    ];
    println!("hand-over of a live partition, milliseconds, {ROUNDS} rounds each");
    for (what, listen, kill, budget) in rows {
        let took = measure(listen, kill).await?;
        let ms = |at: usize| took[at].as_millis();
        println!(
            "{what:24} median {:5}  max {:5}  budget {:5}",
            ms(ROUNDS / 2),
            ms(ROUNDS - 1),
            budget.as_millis()
        );
    }
    Ok(())
}
