//! Catch-up of a SQL projection, the start of `highwater run` included, against the one statement
//! that a person would write for the same read model.

mod support;

use std::process::ExitCode;

use support::breakdown::Breakdown;
use support::events::{self, Log, Upsert};
use support::{Bench, Budget, Project, Report, reference};

use highwater::Result;

fn main() -> ExitCode {
    support::run("catch_up_sql", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let log = Log::new(
        bench.form.size(100_000, 1_000_000),
        bench.form.size(5_000, 50_000),
    );
    let db = bench.database().await?;
    log.fill(&db).await?;
    let rate = |took: std::time::Duration| log.events as f64 / took.as_secs_f64();
    let upserts = Upsert::all(bench.major());
    // Once for whoever comes first, so that nobody does.
    reference::one_statement(&db).await?;
    for _ in 0..bench.form.runs() {
        let by_hand = rate(reference::one_statement(&db).await?);
        for &upsert in upserts {
            for (partitions, budget) in [(1, 0.9), (2, 1.2)] {
                let header = format!("partitions = {partitions}");
                let text = events::sums_text_by(upsert, &header);
                let took = Project::with(&[("sums", &text)])?.catch_up(&db).await?;
                report.sample(
                    &format!("catch-up, SQL, {}, {header}", upsert.name()),
                    "events/s",
                    rate(took),
                    Some(("one statement", by_hand)),
                    Some(Budget::RatioAtLeast(budget)),
                );
                db.forget("sums").await?;
            }
        }
    }
    let breakdown = Breakdown::install()?;
    for partitions in [1, 2] {
        breakdown.begin();
        let upsert = Upsert::fastest(bench.major());
        let text = events::sums_text_by(upsert, &format!("partitions = {partitions}"));
        db.catch_up([events::sql_projection("sums", &text)?])
            .await?;
        breakdown.report(&format!("partitions: {partitions}"), report);
        db.time("drop schema sums cascade; delete from highwater.projection")
            .await?;
    }
    Ok(())
}
