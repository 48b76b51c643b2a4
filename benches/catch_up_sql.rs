//! Catch-up of five ordinary read models as SQL projections, the start of `highwater run` included,
//! against the statements that a person would write for the same tables and run with `psql`.
//!
//! With two partitions the reference is the two halves written by hand, each by a `psql` of its own,
//! side by side. With the path of an older highwater in HIGHWATER_BENCH_BASELINE that one is measured
//! in turns with this one, on the same events, and their ratio reported too.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::breakdown::Breakdown;
use support::events;
use support::model::{Model, ORDINARY};
use support::orders::{Layout, Orders};
use support::paired::{Paired, Times};
use support::{Bench, Budget, Db, Report};

use highwater::Result;

fn main() -> ExitCode {
    support::run("catch_up_sql", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let breakdown = Breakdown::install()?;
    let events = bench.form.size(100_000, 1_000_000);
    for layout in Layout::ALL {
        let mut paths = paths(layout);
        paths.retain(|path| bench.form.wants(&path.name));
        if paths.is_empty() {
            continue;
        }
        let logs = Paired::fill(bench, Orders { events, layout }).await?;
        logs.warm_up(&ORDINARY[0]).await?;
        for run in 0..bench.form.runs() {
            for path in &paths {
                let round = run + path.number;
                let times = logs.measure(path.model, path.partitions, round).await?;
                path.sample(events, &times, report);
            }
        }
        for path in &paths {
            path.break_down(&logs.db, &breakdown, report).await?;
        }
        logs.drop(bench).await?;
    }
    for (what, reference, budget) in SUMMARY {
        report.across(what, reference, budget);
    }
    Ok(())
}

/// What one and two partitions are held against.
const BY_HAND: [&str; 2] = ["by hand", "halves by hand"];
const BASELINE: [&str; 2] = ["baseline", "baseline, two partitions"];

const SUMMARY: [(&str, &str, Option<Budget>); 5] = [
    (
        "one partition, the median of these",
        BY_HAND[0],
        Some(Budget::RatioAtLeast(0.9)),
    ),
    (
        "one partition, the lowest of these",
        BY_HAND[0],
        Some(Budget::EachRatioAtLeast(0.75)),
    ),
    (
        "two partitions, the median of these",
        BY_HAND[1],
        Some(Budget::RatioAtLeast(0.9)),
    ),
    ("one partition, against the baseline", BASELINE[0], None),
    ("two partitions, against the baseline", BASELINE[1], None),
];

/// One read model from one log by so many partitions.
struct Path {
    number: usize,
    name: String,
    model: &'static Model,
    partitions: u32,
}

fn paths(layout: Layout) -> Vec<Path> {
    let mut paths = Vec::new();
    for (number, model) in ORDINARY.iter().enumerate() {
        for partitions in [1, 2] {
            paths.push(Path {
                number,
                name: format!(
                    "{}, {}, partitions = {partitions}",
                    model.name,
                    layout.name()
                ),
                model,
                partitions,
            });
        }
    }
    paths
}

impl Path {
    fn sample(&self, events: u64, times: &Times, report: &mut Report) {
        let rate = |took: Duration| events as f64 / took.as_secs_f64();
        let kind = self.partitions as usize - 1;
        let mut sample = |what: &str, reference: &str, took: Duration| {
            let reference = Some((reference, rate(took)));
            report.sample(what, "events/s", rate(times.highwater), reference, None);
        };
        sample(&self.name, BY_HAND[kind], times.by_hand.process);
        if let Some(took) = times.baseline {
            sample(&format!("the same: {}", self.name), BASELINE[kind], took);
        }
    }

    /// Where the time goes, by an engine in this process.
    async fn break_down(&self, db: &Db, breakdown: &Breakdown, report: &mut Report) -> Result<()> {
        let text = self.model.text(self.partitions);
        breakdown.begin();
        db.catch_up([events::sql_projection(self.model.name, &text)?])
            .await?;
        breakdown.report(&self.name, report);
        self.model.forget(db).await
    }
}
