//! How long a live partition stands still when its instance goes: from the moment it is told to stop,
//! or killed, until another instance has applied an event that was appended then.

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::Result;
use highwater::internal::engine::Settings;
use highwater::internal::projection::DynProjection;
use support::live::{self, LiveEngine};
use support::{Bench, Budget, Db, Report, failed};
use tokio_postgres::Client;

const COUNTS: &str = "-- highwater: up
create table counts (stream text primary key, n bigint not null);
-- highwater: apply
insert into counts select stream, count(*) from batch group by stream
on conflict (stream) do update set n = counts.n + excluded.n;
";

fn main() -> ExitCode {
    support::run("hand_over", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let killed = Settings::default().lease + Duration::from_secs(1);
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
        ("killed, with LISTEN", true, true, killed),
        ("killed, without LISTEN", false, true, killed),
    ];
    for (what, listen, kill, budget) in rows {
        if !bench.form.wants(what) || (kill && !listen && !bench.form.full) {
            continue;
        }
        // Of a kill one round takes as long as a lease.
        let rounds = bench.form.size(if kill { 1 } else { 3 }, 11);
        let mut took = rounds_of(bench, listen, kill, rounds).await?;
        report.sample(
            &format!("{what}: longest of {rounds}"),
            "ms",
            live::quantile(&mut took, 1.0),
            None,
            Some(Budget::FigureAtMost(budget.as_secs_f64() * 1e3)),
        );
        report.sample(
            &format!("{what}: median of {rounds}"),
            "ms",
            live::quantile(&mut took, 0.5),
            None,
            None,
        );
    }
    Ok(())
}

fn start(db: &Db, projection: &Arc<dyn DynProjection>, listen: bool) -> Result<LiveEngine> {
    let mut settings = Settings::default();
    settings.listen = listen;
    Ok(LiveEngine::start(
        db.engine(&settings, [projection.clone()])?,
    ))
}

async fn number(client: &Client, sql: &str) -> Result<i64> {
    Ok(client.query_one(sql, &[]).await.map_err(failed)?.get(0))
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

async fn rounds_of(
    bench: &Bench,
    listen: bool,
    kill: bool,
    rounds: usize,
) -> Result<Vec<Duration>> {
    let db = bench.database().await?;
    let client = db.client().await?;
    let projection = support::events::sql_projection("counts", COUNTS)?;
    let mut took = Vec::new();
    let mut first = start(&db, &projection, listen)?;
    for _ in 0..rounds {
        visible(&client).await?;
        let second = start(&db, &projection, listen)?;
        living(&client, 2).await?;
        // Whoever has it goes.
        let owner = "select case when c.owner = (select id from highwater.instance
                                                  where seen_at + lease > clock_timestamp()
                                                  order by started_at limit 1)
                            then 1 else 2 end::bigint from highwater.checkpoint c";
        let (goes, stays) = match number(&client, owner).await? {
            1 => (first, second),
            _ => (second, first),
        };
        if kill {
            goes.abort();
        } else {
            goes.drain();
        }
        took.push(visible(&client).await?);
        goes.ended().await;
        first = stays;
        living(&client, 1).await?;
    }
    first.stop().await?;
    Ok(took)
}
