//! Many live projections of which each event is of interest to one: how many statements the server gets
//! for each append, against one projection. Counted by pg_stat_statements, the append and the wake
//! included; once with all of the reader's polls, once without them, for these are the same whatever
//! number of projections there is.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use highwater::internal::engine::Settings;
use highwater::internal::event_store;
use highwater::{EventStore, ExpectedVersion, NewEvent, Result};
use support::live::{self, LiveEngine};
use support::statements::{Asked, COUNTING, Statements};
use support::{Bench, Budget, Report};

const PACE: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    support::run_with("fan_out", COUNTING, measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let appends = bench.form.size(200, 2_000);
    for _ in 0..bench.form.runs() {
        let one = asked(bench, 1, appends).await?;
        let many = asked(bench, 100, appends).await?;
        let without_polls = |asked: &Asked| asked.all() - asked.of_kind(POLL);
        let per = appends as f64;
        let rows = [
            ("statements for each append", many.all(), one.all()),
            (
                "the same without the reader's polls",
                without_polls(&many),
                without_polls(&one),
            ),
        ];
        for (what, many, one) in rows {
            report.sample(
                &format!("100 projections: {what}"),
                "statements",
                many / per,
                Some(("1 projection", one / per)),
                Some(Budget::RatioAtMost(2.0)),
            );
        }
        report.note(format!(
            "for each append, 1 projection: {}",
            one.listing(per)
        ));
        report.note(format!(
            "for each append, 100 projections: {}",
            many.listing(per)
        ));
    }
    Ok(())
}

/// How the reader's statement begins.
const POLL: &str = "what stands after the mark";

async fn asked(bench: &Bench, projections: usize, appends: u64) -> Result<Asked> {
    let db = bench.database().await?;
    let settings = Settings::default();
    let all = (0..projections).map(|n| {
        let header = format!("events = [\"Type{n}\"]");
        let text = support::events::sums_text(&header);
        support::events::sql_projection(&format!("sums_{n}"), &text)
    });
    let all: Result<Vec<_>> = all.collect();
    let engine = LiveEngine::start(db.engine(&settings, all?)?);
    live::at_head(&db, projections as i64).await?;
    let store = event_store::in_database(db.pooled(&settings)?);
    let statements = Statements::of(&db).await?;
    append(&store, projections, appends / 10).await?;
    statements.begin().await?;
    append(&store, projections, appends).await?;
    let asked = statements.asked().await?;
    engine.stop().await?;
    Ok(asked)
}

async fn append(store: &EventStore, projections: usize, appends: u64) -> Result<()> {
    let mut ticks = tokio::time::interval(PACE);
    for n in 0..appends {
        ticks.tick().await;
        let event_type = format!("Type{}", n % projections as u64);
        let event = NewEvent::new(&event_type, &serde_json::json!({ "amount": 1 }))?;
        let stream = format!("account-{}", n % 50);
        store
            .append(&stream, ExpectedVersion::Any, &[event])
            .await?;
    }
    store.wakes_sent().await;
    Ok(())
}
