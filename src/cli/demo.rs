//! `demo`: real events, the shipped projections and their read models, in a temporary PostgreSQL.
//!
//! Everything it needs is in the binary, so it works in any directory, and it uses no
//! configuration, projection or database of the user's.

mod show;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::exit::{Done, Exit};
use super::run::Watch;
use super::text::count;
use crate::append::{BATCH_EVENTS, Progress, append_ndjson_until};
use crate::cluster::{Cluster, DATABASE};
use crate::engine::{Engine, Report, Settings, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::event_store;
use crate::ndjson::NdjsonReader;
use crate::pg::connect::{self, Connector};
use crate::pg::database::Database;
use crate::pg::{self, migrate};
use crate::projection::SqlProjection;
use crate::projection::file::ProjectionFile;
use crate::source::table::{EventTable, TableSource};

const EVENTS: &[u8] = include_bytes!("../../data/tokio-history.ndjson.gz");
const TRUTH: &str = include_str!("../../data/tokio-history.truth.json");
const PROJECTIONS: [(&str, &str); 3] = [
    (
        "projections/files.sql",
        include_str!("../../projections/files.sql"),
    ),
    (
        "projections/authors.sql",
        include_str!("../../projections/authors.sql"),
    ),
    (
        "projections/hotspots.sql",
        include_str!("../../projections/hotspots.sql"),
    ),
];
const SESSIONS: usize = 4;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The events are the history of the tokio repository: each is a commit or a change of a file. The \
read model `files` is compared with what git itself says.")]
pub(super) struct Args {}

/// The results of the demo.
struct Findings {
    events: u64,
    append_time: Duration,
    run_time: Duration,
    files: FileComparison,
    tables: Vec<show::Table>,
}

/// The read model `files` beside git's own list.
struct FileComparison {
    files: usize,
    equal: usize,
}

pub(super) async fn run(_args: Args, ctx: &Context) -> Done {
    // From here on a signal waits until the server is up, so that it can be brought down again.
    let stop = ctx.stop().drain();
    let spinner = ctx.ui().bar("{spinner} {msg}");
    spinner.set_message("starting a temporary PostgreSQL");
    let cluster = Cluster::temporary().await?;
    spinner.finish_and_clear();
    ctx.ui().say(&cluster.notice());
    let findings = tokio::select! {
        findings = perform(&cluster, &stop, ctx) => findings.map(Some),
        () = stop.cancelled() => Ok(None),
    };
    let stopped = cluster.stop().await;
    let findings = findings?;
    stopped?;
    if let Some(findings) = findings {
        show::show(&findings, ctx)?;
        verify(&findings.files)?;
    }
    Ok(Exit::Done)
}

async fn perform(cluster: &Cluster, stop: &CancellationToken, ctx: &Context) -> Result<Findings> {
    let connector = connect::parse(&cluster.url(DATABASE))?;
    migrate::migrate(&mut connector.connect().await?).await?;
    let database = Database::new(connector.clone(), SESSIONS)?;
    let began = Instant::now();
    let events = append(&database, stop, ctx).await?;
    let append_time = began.elapsed();
    let began = Instant::now();
    let report = project(&connector, database.clone(), stop, ctx).await?;
    let run_time = began.elapsed();
    refuse_stopped(report)?;
    Ok(Findings {
        events,
        append_time,
        run_time,
        files: compare(&database).await?,
        tables: show::tables(&database).await?,
    })
}

async fn append(database: &Database, stop: &CancellationToken, ctx: &Context) -> Result<u64> {
    let bar = ctx.ui().bar("events {bar:24} {msg}");
    bar.set_length(EVENTS.len() as u64);
    let show = |progress: Progress| {
        bar.set_position(progress.bytes_read);
        bar.set_message(count(progress.appended, "event"));
    };
    let store = event_store::in_database(database.clone());
    let reader = NdjsonReader::new("tokio-history.ndjson.gz", Cursor::new(EVENTS));
    let summary = append_ndjson_until(&store, reader, BATCH_EVENTS, show, stop).await;
    bar.finish_and_clear();
    store.wakes_sent().await;
    Ok(summary?.appended)
}

/// Runs the shipped projections to the head.
async fn project(
    connector: &Connector,
    target: Database,
    stop: &CancellationToken,
    ctx: &Context,
) -> Result<Report> {
    let database = Database::new(connector.clone(), SESSIONS)?;
    let source = TableSource::new("default", database, None, EventTable::own());
    let mut engine = Engine::new(target, Settings::default()).source(Arc::new(source));
    for (path, text) in PROJECTIONS {
        let file = ProjectionFile::parse(Path::new(path), text)?;
        engine = engine.projection(Arc::new(SqlProjection::new(file)));
    }
    let watch = Watch::start(engine.monitor(), ctx.ui());
    let report = engine.run(Until::CaughtUp, stop.clone()).await;
    watch.end();
    report
}

fn refuse_stopped(report: Report) -> Result<()> {
    for (name, outcome) in report.outcomes {
        if let Some(error) = outcome.error() {
            let what = format!("the projection {name} did not reach the head: {error}");
            return Err(Error::new(ErrorKind::Internal, what).with_hint("report it"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct GitFiles {
    /// The files alive at the end, with their blob ids.
    alive: BTreeMap<String, String>,
}

async fn compare(database: &Database) -> Result<FileComparison> {
    let truth: GitFiles = serde_json::from_str(TRUTH).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("the truth cannot be read: {e}"),
        )
        .with_source(e)
    })?;
    let client = database.client().await?;
    let sql = include_str!("../../sql/queries/demo/alive.sql");
    let rows = client.query_typed(sql, &[]).await;
    let mut equal = 0;
    let rows = rows.map_err(|e| pg::error("cannot read the read model", e))?;
    for row in &rows {
        let (path, blob): (String, String) = (pg::column(row, 0)?, pg::column(row, 1)?);
        equal += usize::from(truth.alive.get(&path) == Some(&blob));
    }
    // A file on one side only counts as a difference too.
    let files = rows.len().max(truth.alive.len());
    Ok(FileComparison { files, equal })
}

fn verify(compared: &FileComparison) -> Result<()> {
    if compared.equal == compared.files {
        return Ok(());
    }
    let what = format!(
        "{} of {} files are not as git has them",
        compared.files - compared.equal,
        compared.files
    );
    Err(Error::new(ErrorKind::Internal, what).with_hint("this is a bug in highwater: report it"))
}
