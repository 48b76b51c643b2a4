//! Catch-up of a projection of two types that are one event in 1,000 together, with an index on
//! (type, position), against the statement by hand with the same index.
//!
//! The statement is timed by `psql` itself, without its start: the budget allows highwater the 50 ms of
//! a process. HIGHWATER_BENCH_BASELINE is as in `catch_up_sql`.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::model::DISPUTES;
use support::orders::{self, Layout, Orders};
use support::paired::Paired;
use support::{Bench, Budget, Report};

use highwater::Result;

/// What a process takes to start and to end.
const PROCESS: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    support::run("catch_up_sparse", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let events = bench.form.size(500_000, 10_000_000);
    let layout = Layout::Interleaved;
    let logs = Paired::fill(bench, Orders { events, layout }).await?;
    for db in logs.all() {
        db.time("create index on highwater.event (type, position)")
            .await?;
        orders::settle(db).await?;
    }
    logs.warm_up(&DISPUTES).await?;
    for run in 0..bench.form.runs() {
        let times = logs.measure(&DISPUTES, 1, run).await?;
        let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
        let (took, by_hand) = (times.highwater, times.by_hand.statements);
        let allowed = by_hand.mul_f64(1.5) + PROCESS;
        let mut sample = |what: &str, took, reference: Option<(&str, Duration)>, budget| {
            let reference = reference.map(|(name, took)| (name, milliseconds(took)));
            report.sample(what, "ms", milliseconds(took), reference, budget);
        };
        let most = Some(Budget::RatioAtMost(1.0));
        let limit = ("1.5 times the statement and 50 ms", allowed);
        sample("sparse types", took, Some(limit), most);
        sample("the statement", by_hand, None, None);
        if let Some(baseline) = times.baseline {
            sample(
                "the same: sparse types",
                took,
                Some(("baseline", baseline)),
                None,
            );
        }
    }
    Ok(())
}
