//! From the moment an append's commit has returned until the event is visible in the read model, at
//! 200 appends a second: woken (LISTEN; [`EventStore`] sends the wake), and only polled. Before each
//! append one bare row is committed on the same server, which is what the figures are held against.
//!
//! A reader asks the read model itself, with short pauses between, so each figure holds the time of
//! about one such question too. It has a thread of its own, as writers and readers mostly have a process.

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::internal::engine::Settings;
use highwater::internal::event_store;
use highwater::internal::projection::DynProjection;
use highwater::{EventStore, ExpectedVersion, NewEvent, Result};
use support::breakdown::Breakdown;
use support::live::{self, LiveEngine};
use support::{Bench, Budget, Db, Report, failed, sums};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

const PACE: Duration = Duration::from_millis(5);
const STREAMS: u64 = 50;
const BARE: &str = "create table bare (position bigint generated always as identity primary key,
                                       stream text not null, data jsonb not null)";

fn main() -> ExitCode {
    support::run("live_latency", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let appends = bench.form.size(400, 4_000);
    let breakdown = Breakdown::install()?;
    for run in 0..bench.form.runs() {
        for (view, listen) in [(false, true), (false, false), (true, true), (true, false)] {
            let kind = if view { "keyed Rust view" } else { "SQL" };
            let how = if listen { "woken" } else { "only polled" };
            let what = format!("{kind}, {how}");
            if !bench.form.wants(&what) {
                continue;
            }
            let db = bench.database().await?;
            db.time(BARE).await?;
            let projection = match view {
                true => sums::keyed("sums")?,
                false => sums::in_sql("sums")?,
            };
            let times = measured(&db, projection, listen, appends, &breakdown).await?;
            times.report(&what, listen, report);
            if run == 0 {
                breakdown.report(&what, report);
            }
        }
    }
    if bench.form.wants("burst") {
        burst(bench, &breakdown, report).await?;
    }
    Ok(())
}

async fn measured(
    db: &Db,
    projection: Arc<dyn DynProjection>,
    listen: bool,
    appends: u64,
    breakdown: &Breakdown,
) -> Result<Times> {
    let settings = listening(listen);
    let engine = LiveEngine::start(db.engine(&settings, [projection])?);
    let (db, breakdown) = (db.clone(), breakdown.clone());
    let paced = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().map_err(failed)?;
        runtime.block_on(paced(&db, &settings, appends, &breakdown))
    });
    let times = paced.await.map_err(failed)??;
    engine.stop().await?;
    Ok(times)
}

async fn paced(db: &Db, settings: &Settings, appends: u64, breakdown: &Breakdown) -> Result<Times> {
    let store = event_store::in_database(db.pooled(settings)?);
    let client = db.client().await?;
    let mut times = Times::default();
    // Caches and plans are warm then, as those of a server that has run for a while.
    for n in 0..appends / 10 {
        once(&client, &store, n, &mut Times::default()).await?;
    }
    breakdown.begin();
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..appends {
        ticks.tick().await;
        once(&client, &store, n, &mut times).await?;
    }
    store.wakes_sent().await;
    Ok(times)
}

fn listening(listen: bool) -> Settings {
    let mut settings = Settings::default();
    settings.listen = listen;
    settings
}

async fn once(client: &Client, store: &EventStore, n: u64, times: &mut Times) -> Result<()> {
    let insert = "insert into bare (stream, data) values ($1, $2)";
    let stream = format!("account-{}", n % STREAMS);
    let data = serde_json::json!({ "account": n % STREAMS, "amount": 1, "note": "n".repeat(60) });
    let began = Instant::now();
    client
        .execute_typed(insert, &[(&stream, Type::TEXT), (&data, Type::JSONB)])
        .await
        .map_err(failed)?;
    times.bare.push(began.elapsed());
    let event = NewEvent::new("Booked", &data)?;
    let began = Instant::now();
    let appended = store
        .append(&stream, ExpectedVersion::Any, &[event])
        .await?;
    let committed = Instant::now();
    times.append.push(committed - began);
    let position = appended.last().map_or(0, highwater::Position::get);
    visible(client, &stream, position).await?;
    times.visible.push(committed.elapsed());
    Ok(())
}

async fn visible(client: &Client, stream: &str, position: i64) -> Result<()> {
    let sql = "select 1 from sums.sums where stream = $1 and last_position >= $2";
    loop {
        // Before the projection's first batch there is no table yet.
        let rows = client
            .query_typed(sql, &[(&stream, Type::TEXT), (&position, Type::INT8)])
            .await;
        match rows {
            Ok(rows) if rows.is_empty() => {
                // The wake goes its way meanwhile; nobody else is on this thread.
                tokio::task::yield_now().await;
                std::thread::sleep(Duration::from_micros(20));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.code().is_some() => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// How long things took, one after the other.
#[derive(Default)]
struct Times {
    bare: Vec<Duration>,
    append: Vec<Duration>,
    visible: Vec<Duration>,
}

impl Times {
    fn report(mut self, what: &str, listen: bool, report: &mut Report) {
        let bare = live::quantile(&mut self.bare, 0.5);
        let append = live::quantile(&mut self.append, 0.5);
        let (p50, p99) = if listen {
            (Some(3.0), Some(10.0))
        } else {
            (Some(5.0), None)
        };
        for (name, q, budget) in [("p50", 0.5, p50), ("p99", 0.99, p99), ("max", 1.0, None)] {
            report.sample(
                &format!("{what}: {name}"),
                "ms",
                live::quantile(&mut self.visible, q),
                Some(("p50 of a bare commit, ms", bare)),
                budget.map(Budget::RatioAtMost),
            );
        }
        report.sample(
            &format!("{what}: the append itself, p50"),
            "ms",
            append,
            Some(("p50 of a bare commit, ms", bare)),
            None,
        );
    }
}

/// Many appends at once: how many wakes they cause, and how often the reader steps for them.
async fn burst(bench: &Bench, breakdown: &Breakdown, report: &mut Report) -> Result<()> {
    const APPENDS: u64 = 10_000;
    const WRITERS: u64 = 16;
    let appends = bench.form.size(APPENDS / 5, APPENDS);
    let db = bench.database().await?;
    let settings = listening(true);
    let wakes = live::Wakes::count(&db).await?;
    let engine = LiveEngine::start(db.engine(&settings, [sums::in_sql("sums")?])?);
    live::at_head(&db, 1).await?;
    let store = event_store::in_database(db.pooled(&settings)?);
    let before = wakes.so_far();
    breakdown.begin();
    let began = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let data = serde_json::json!({ "account": writer, "amount": 1 });
            for _ in 0..appends / WRITERS {
                let event = [NewEvent::new("Booked", &data)?];
                let stream = format!("account-{writer}");
                store.append(&stream, ExpectedVersion::Any, &event).await?;
            }
            Ok::<_, highwater::Error>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written.map_err(failed)??;
    }
    store.wakes_sent().await;
    let took = began.elapsed();
    live::at_head(&db, 1).await?;
    let steps = breakdown.steps();
    engine.stop().await?;
    let appended = (appends / WRITERS * WRITERS) as f64;
    let rows = [
        ("wakes", wakes.so_far() - before),
        ("steps of the reader", steps),
    ];
    for (name, count) in rows {
        report.sample(
            &format!("burst by {WRITERS} writers: {name}"),
            name,
            count as f64,
            Some(("appends", appended)),
            None,
        );
    }
    report.note(format!(
        "the burst of {appended} appends took {:.2} s",
        took.as_secs_f64()
    ));
    Ok(())
}
