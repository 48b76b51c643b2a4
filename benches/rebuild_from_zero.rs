//! A read model built anew beside the live one and swapped: `highwater rebuild`, from its start to its
//! end, against the statement by hand; and how long a reader waits for it at most.

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::events::{self, Log};
use support::{Bench, Db, Project, Report, failed, reference};
use tokio_util::sync::CancellationToken;

use highwater::Result;

fn main() -> ExitCode {
    support::run("rebuild_from_zero", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let log = Log::new(
        bench.form.size(100_000, 1_000_000),
        bench.form.size(5_000, 50_000),
    );
    let db = bench.database().await?;
    log.fill(&db).await?;
    let text = events::sums_text("");
    let project = Project::with(&[("sums", &text)])?;
    project.catch_up(&db).await?;
    let rate = |took: Duration| log.events as f64 / took.as_secs_f64();
    for _ in 0..bench.form.runs() {
        let by_hand = reference::one_statement(&db).await?;
        let alone = longest_read(&db, tokio::time::sleep(Duration::from_millis(500)))
            .await?
            .1;
        let rebuilding = db.highwater(project.path(), &["rebuild", "sums"]);
        let (took, longest) = longest_read(&db, rebuilding).await?;
        let reference = Some(("one statement", rate(by_hand)));
        report.sample("rebuild and swap", "events/s", rate(took?), reference, None);
        let reference = Some(("without a rebuild", alone.as_secs_f64() * 1e3));
        let longest = longest.as_secs_f64() * 1e3;
        report.sample(
            "longest read of the live one meanwhile",
            "ms",
            longest,
            reference,
            None,
        );
    }
    Ok(())
}

/// Reads a row of the read model over and over while `meanwhile` goes on; the longest read.
async fn longest_read<T>(db: &Db, meanwhile: impl Future<Output = T>) -> Result<(T, Duration)> {
    let client = db.client().await?;
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let reading = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !ended.is_cancelled() {
            let began = Instant::now();
            let row = client.query_one(
                "select amount from sums.sums where stream = 'account-1'",
                &[],
            );
            row.await.map_err(failed)?;
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(longest)
    });
    let done = meanwhile.await;
    stop.cancel();
    let longest: Result<Duration> = reading.await.map_err(failed)?;
    Ok((done, longest?))
}
