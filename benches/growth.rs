//! How the cost of catching up grows: with events, streams, projections, partitions, the size of an
//! event and the share of events that are wanted. Each draws a chart.
//!
//! `cargo bench --bench growth -- --full` takes about a quarter of an hour; a name, such as `events`,
//! measures one of them. The reference is the hand-written statement over the same log.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::chart::{self, Chart};
use support::events::{self, Log, Upsert};
use support::{Bench, Db, Project, Report, reference};

use highwater::Result;

fn main() -> ExitCode {
    support::run("growth", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let form = &bench.form;
    if form.wants("events") {
        with_events(bench, report).await?;
    }
    if form.wants("streams") {
        with_streams(bench, report).await?;
    }
    if form.wants("projections") {
        with_projections(bench, report).await?;
    }
    if form.wants("partitions") {
        with_partitions(bench, report).await?;
    }
    if form.wants("payload") {
        with_payload(bench, report).await?;
    }
    if form.wants("types") {
        with_types(bench, report).await?;
    }
    Ok(())
}

/// One line of points, drawn beside the reference's.
#[derive(Default)]
struct Curve {
    ours: Vec<(f64, f64)>,
    reference: Vec<(f64, f64)>,
}

impl Curve {
    fn add(&mut self, x: f64, ours: f64, reference: f64) {
        self.ours.push((x, ours));
        self.reference.push((x, reference));
    }

    fn draw(self, full: bool, name: &str, title: &str, x: &str, y: &str) -> Result<()> {
        let series = vec![("highwater", self.ours), ("one statement", self.reference)];
        Chart {
            title,
            x,
            y,
            series,
        }
        .draw(&chart::place(full, name))
    }
}

/// Medians of a catch-up, and of the statement by hand, over the runs of the form.
async fn both(bench: &Bench, db: &Db, header: &str, wanted: &str) -> Result<(f64, f64)> {
    let text = events::sums_text_by(Upsert::fastest(bench.major()), header);
    let project = Project::with(&[("sums", &text)])?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..bench.form.runs() {
        by_hand.push(reference::one_statement_over(db, wanted).await?);
        ours.push(project.catch_up(db).await?);
        db.forget("sums").await?;
    }
    Ok((median(ours), median(by_hand)))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

const ALL: &str = "highwater.event";

fn add(report: &mut Report, what: String, ours: f64, by_hand: f64) {
    report.sample(&what, "s", ours, Some(("one statement", by_hand)), None);
}

async fn with_events(bench: &Bench, report: &mut Report) -> Result<()> {
    let db = bench.database().await?;
    let most = bench.form.size(100_000, 10_000_000);
    let (mut curve, mut there, mut events) = (Curve::default(), 0, 10_000);
    while events <= most {
        Log::new(events, 50_000).fill_from(there, &db).await?;
        there = events;
        let (ours, by_hand) = both(bench, &db, "", ALL).await?;
        add(report, format!("{events} events"), ours, by_hand);
        curve.add(events as f64, ours, by_hand);
        events *= 10;
    }
    let title = "catch-up of a log of so many events, 50,000 streams";
    curve.draw(bench.form.full, "events", title, "events", "seconds")
}

async fn with_streams(bench: &Bench, report: &mut Report) -> Result<()> {
    let events = bench.form.size(50_000, 1_000_000);
    let (mut curve, mut streams) = (Curve::default(), 10);
    while streams <= bench.form.size(1_000, 1_000_000) {
        let db = bench.database().await?;
        Log::new(events, streams).fill(&db).await?;
        let (ours, by_hand) = both(bench, &db, "", ALL).await?;
        add(report, format!("{streams} streams"), ours, by_hand);
        curve.add(streams as f64, ours, by_hand);
        streams *= 10;
        bench.drop(db).await?;
    }
    let title = format!("catch-up of {events} events in so many streams");
    curve.draw(bench.form.full, "streams", &title, "streams", "seconds")
}

async fn with_projections(bench: &Bench, report: &mut Report) -> Result<()> {
    let db = bench.database().await?;
    let log = Log::new(bench.form.size(10_000, 100_000), 5_000);
    log.fill(&db).await?;
    let counts: &[usize] = bench.form.size(&[1, 10], &[1, 2, 5, 10, 20, 50, 100, 200]);
    let mut curve = Curve::default();
    let text = events::sums_text_by(Upsert::fastest(bench.major()), "");
    for &count in counts {
        let names: Vec<String> = (0..count).map(|n| format!("sums_{n}")).collect();
        let all: Vec<(&str, &str)> = names
            .iter()
            .map(|name| (name.as_str(), text.as_str()))
            .collect();
        let project = Project::with(&all)?;
        let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..bench.form.runs() {
            let mut sum = Duration::ZERO;
            for _ in 0..count {
                sum += reference::one_statement(&db).await?;
            }
            by_hand.push(sum);
            ours.push(project.catch_up(&db).await?);
            for name in &names {
                db.forget(name).await?;
            }
        }
        let (ours, by_hand) = (median(ours), median(by_hand));
        add(report, format!("{count} projections"), ours, by_hand);
        curve.add(count as f64, ours, by_hand);
    }
    let title = format!("catch-up of {} events by so many projections", log.events);
    curve.draw(
        bench.form.full,
        "projections",
        &title,
        "projections",
        "seconds",
    )
}

async fn with_partitions(bench: &Bench, report: &mut Report) -> Result<()> {
    let db = bench.database().await?;
    let log = Log::new(bench.form.size(50_000, 1_000_000), 50_000);
    log.fill(&db).await?;
    let mut curve = Curve::default();
    for partitions in [1, 2, 4, 8] {
        let header = format!("partitions = {partitions}");
        let (ours, by_hand) = both(bench, &db, &header, ALL).await?;
        add(report, format!("{partitions} partitions"), ours, by_hand);
        curve.add(f64::from(partitions), ours, by_hand);
    }
    let title = format!("catch-up of {} events by so many partitions", log.events);
    curve.draw(
        bench.form.full,
        "partitions",
        &title,
        "partitions",
        "seconds",
    )
}

async fn with_payload(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut curve = Curve::default();
    for (bytes, events) in [
        (100, 500_000),
        (1_000, 200_000),
        (10_000, 20_000),
        (100_000, 2_000),
    ] {
        let db = bench.database().await?;
        let events = bench.form.size(events / 20, events);
        let mut log = Log::new(events, (events / 20).max(1));
        log.note = bytes - 90;
        log.fill(&db).await?;
        let (ours, by_hand) = both(bench, &db, "", ALL).await?;
        add(
            report,
            format!("{events} events of {bytes} bytes"),
            ours,
            by_hand,
        );
        let per_event = 1e6 / events as f64;
        curve.add(bytes as f64, ours * per_event, by_hand * per_event);
        bench.drop(db).await?;
    }
    let title = "catch-up with events of so many bytes";
    curve.draw(
        bench.form.full,
        "payload",
        title,
        "bytes of an event",
        "microseconds for an event",
    )
}

async fn with_types(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut curve = Curve::default();
    for every in [1, 10, 100, 1_000] {
        let db = bench.database().await?;
        let mut log = Log::new(bench.form.size(50_000, 1_000_000), 49_999);
        log.booked_every = every;
        log.fill(&db).await?;
        let header = "events = [\"Booked\"]";
        let wanted = "highwater.event where type = 'Booked'";
        let (ours, by_hand) = both(bench, &db, header, wanted).await?;
        let share = 100.0 / every as f64;
        add(
            report,
            format!("{share} % of the events wanted"),
            ours,
            by_hand,
        );
        curve.add(share, ours, by_hand);
        bench.drop(db).await?;
    }
    let title = "catch-up where so many of the events are wanted";
    curve.draw(
        bench.form.full,
        "types",
        title,
        "percent of the events",
        "seconds",
    )
}
