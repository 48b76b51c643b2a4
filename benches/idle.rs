//! What an engine asks of the server while nothing happens, once its polling has slowed down: queries a
//! second, by kind, and what is written. Counted by pg_stat_statements; with LISTEN and without.

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use highwater::internal::engine::Settings;
use highwater::internal::event_store;
use highwater::{ExpectedVersion, NewEvent, Result};
use support::live::{self, LiveEngine};
use support::statements::{COUNTING, Statements};
use support::{Bench, Budget, Report, sums};

/// How the statements of the instance begin.
const RENEWAL: &str = "an instance says that it";
const LOOK: &str = "what an instance needs to";
/// After this the reader polls at its slowest.
const SLOWED: Duration = Duration::from_millis(2_500);

fn main() -> ExitCode {
    support::run_with("idle", COUNTING, measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    // A whole number of leases' thirds and of the reader's slower checks.
    let time = bench
        .form
        .size(Duration::from_millis(3_340), Duration::from_secs(25));
    for run in 0..bench.form.runs() {
        for listen in [true, false] {
            idle(bench, report, run, listen, time).await?;
        }
    }
    Ok(())
}

async fn idle(
    bench: &Bench,
    report: &mut Report,
    run: usize,
    listen: bool,
    time: Duration,
) -> Result<()> {
    let db = bench.database().await?;
    let mut settings = Settings::default();
    settings.listen = listen;
    let all = (0..3).map(|n| sums::in_sql(&format!("sums_{n}")));
    let all: Result<Vec<_>> = all.collect();
    let store = event_store::in_database(db.pooled(&settings)?);
    let event = [NewEvent::new(
        "Booked",
        &serde_json::json!({ "amount": 1 }),
    )?];
    store
        .append("account-1", ExpectedVersion::Any, &event)
        .await?;
    let engine = LiveEngine::start(db.engine(&settings, all?)?);
    live::at_head(&db, 3).await?;
    tokio::time::sleep(SLOWED).await;
    let statements = Statements::of(&db).await?;
    let before = written(&db).await?;
    statements.begin().await?;
    let began = Instant::now();
    tokio::time::sleep(time).await;
    let seconds = began.elapsed().as_secs_f64();
    let asked = statements.asked().await?;
    let written = written(&db).await? - before;
    let thirds = |seconds: f64| seconds / (settings.lease.as_secs_f64() / 3.0);
    // Rows are counted a little longer.
    let written = written / thirds(began.elapsed().as_secs_f64());
    engine.stop().await?;
    let how = if listen {
        "with LISTEN"
    } else {
        "without LISTEN"
    };
    let instance = asked.of_kind(RENEWAL) + asked.of_kind(LOOK);
    let most = Some(Budget::FigureAtMost(5.0));
    let rows = [
        (
            "queries of one source",
            "/s",
            (asked.all() - instance) / seconds,
            most,
        ),
        ("queries in all", "/s", asked.all() / seconds, None),
        (
            "statements of the instance in a third of a lease",
            "",
            instance / thirds(seconds),
            None,
        ),
        ("rows written in a third of a lease", "", written, None),
    ];
    for (what, unit, figure, budget) in rows {
        report.sample(&format!("{how}: {what}"), unit, figure, None, budget);
    }
    if run == 0 {
        report.note(format!("{how}, a second: {}", asked.listing(seconds)));
    }
    Ok(())
}

/// Rows written in this database so far, but for those of the catalogue.
async fn written(db: &support::Db) -> Result<f64> {
    let sql = "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint from pg_stat_user_tables";
    // The server's sessions tell of what they did once a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    Ok(db.number(sql).await? as f64)
}
