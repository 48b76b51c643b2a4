//! What a live engine costs the writers: appends of 32 writers with `highwater run` beside them, in a
//! process of its own, against the same without it. The two take turns, so that drift meets both; what the
//! engine and its sessions take of the processors is told beside.

mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use highwater::internal::event_store;
use highwater::{ExpectedVersion, NewEvent, Result};
use support::live::{self, LiveProcess};
use support::processor;
use support::{Bench, Budget, Db, Report, events, failed};
use tokio::task::JoinSet;

const WRITERS: usize = 32;

fn main() -> ExitCode {
    support::run("writers_cost", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let time = bench
        .form
        .size(Duration::from_millis(600), Duration::from_secs(5));
    let turns = bench.form.size(2, 4);
    for (count, what, event_type, budget) in [
        (3, "3 projections filter the events", "Other", Some(0.95)),
        (1, "1 projection applies the events", "Booked", Some(0.8)),
        (3, "3 projections apply the events", "Booked", None),
    ] {
        if !bench.form.wants(what) {
            continue;
        }
        let db = bench.database().await?;
        let directory = projections(count)?;
        // Once for whoever comes first, so that nobody does.
        rate(&db, event_type, time).await?;
        for _ in 0..bench.form.runs() {
            let (mut with, mut without) = (0.0, 0.0);
            let mut beside = Beside::default();
            for turn in 0..turns {
                // Each goes first as often as the other: the log grows, and a server gets warm.
                if turn % 2 == 0 {
                    without += rate(&db, event_type, time).await?;
                }
                with += beside
                    .rate(&db, event_type, time, directory.path(), count)
                    .await?;
                if turn % 2 == 1 {
                    without += rate(&db, event_type, time).await?;
                }
            }
            beside.report(what, report);
            let turns = f64::from(turns);
            report.sample(
                &format!("{WRITERS} writers, {what}"),
                "appends/s",
                with / turns,
                Some(("without an engine", without / turns)),
                budget.map(Budget::RatioAtLeast),
            );
        }
    }
    Ok(())
}

/// What the engine took of the processors while the writers wrote, in seconds of a core.
#[derive(Default)]
struct Beside {
    process: f64,
    sessions: f64,
    time: f64,
}

impl Beside {
    /// Appends a second beside an engine.
    async fn rate(
        &mut self,
        db: &Db,
        event_type: &'static str,
        time: Duration,
        directory: &Path,
        projections: i64,
    ) -> Result<f64> {
        let others = processor::sessions(db).await?;
        let engine = LiveProcess::start(db, directory)?;
        live::at_head(db, projections).await?;
        let mut sessions = processor::sessions(db).await?;
        sessions.retain(|pid| !others.contains(pid));
        let process: Vec<_> = engine.pid().into_iter().collect();
        self.process -= processor::seconds(&process);
        self.sessions -= processor::seconds(&sessions);
        let began = Instant::now();
        let rate = rate(db, event_type, time).await?;
        self.time += began.elapsed().as_secs_f64();
        self.process += processor::seconds(&process);
        self.sessions += processor::seconds(&sessions);
        engine.stop().await?;
        Ok(rate)
    }

    fn report(&self, what: &str, report: &mut Report) {
        report.note(format!(
            "{what}: of each second the engine took {:.3} s of a core, its sessions {:.3} s",
            self.process / self.time,
            self.sessions / self.time
        ));
    }
}

fn projections(count: i64) -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir().map_err(failed)?;
    let files = directory.path().join("projections");
    std::fs::create_dir(&files).map_err(failed)?;
    for n in 0..count {
        let text = events::sums_text(r#"events = ["Booked"]"#);
        let file: &Path = &files.join(format!("sums_{n}.sql"));
        std::fs::write(file, text).map_err(failed)?;
    }
    Ok(directory)
}

/// Appends a second.
async fn rate(db: &Db, event_type: &'static str, time: Duration) -> Result<f64> {
    let store = event_store::in_database(db.sessions(WRITERS)?);
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let data = serde_json::json!({ "amount": 1, "note": "n".repeat(60) });
            let event = [NewEvent::new(event_type, &data)?];
            let mut appended = 0;
            while began.elapsed() < time {
                // A stream of moderate length, as there are many of them.
                let stream = format!("account-{writer}-{}", appended / 20);
                store.append(&stream, ExpectedVersion::Any, &event).await?;
                appended += 1;
            }
            Ok::<_, highwater::Error>(appended)
        });
    }
    let mut appended = 0;
    while let Some(writer) = writers.join_next().await {
        appended += writer.map_err(failed)??;
    }
    store.wakes_sent().await;
    Ok(f64::from(appended) / began.elapsed().as_secs_f64())
}
