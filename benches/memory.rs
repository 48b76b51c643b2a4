//! How much memory catching up takes: the peak of a process of its own, beyond what the same process
//! has resident when it has nothing to do.

mod support;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use highwater::internal::engine::Settings;
use highwater::{Error, ErrorKind, Result, Until};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use support::events::{self, Log};
use support::{Bench, Budget, Db, Project, Report, failed, sums};

/// The process to be measured is this program again, called with this and the address of a database.
const KEYED_VIEW: &str = "run-keyed-view";
/// The largest that the budget is promised for.
const LARGEST: &str = "events of 8 MiB";
const MIB: f64 = 1024.0 * 1024.0;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let (Some(KEYED_VIEW), Some(url)) = (arguments.next().as_deref(), arguments.next()) {
        return match keyed_view(url) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    support::run("memory", measure)
}

/// Runs the keyed view until somebody ends the process.
fn keyed_view(url: String) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let db = Db::made(url);
        let engine = db.engine(&Settings::default(), [sums::keyed("sums")?])?;
        let run = engine.run(Until::Stopped, CancellationToken::new());
        run.await.map(drop)
    })
}

/// Who catches up.
#[derive(Clone, Copy)]
enum Kind {
    Sql,
    KeyedView,
}

impl Kind {
    fn start(self, db: &Db, project: &Project) -> Result<Child> {
        let mut command = match self {
            Kind::Sql => db.command(project.path(), &["run"]),
            Kind::KeyedView => {
                let mut command = Command::new(std::env::current_exe().map_err(failed)?);
                command.args([KEYED_VIEW, &db.url]).kill_on_drop(true);
                command
            }
        };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(failed)
    }
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let small = Log::new(
        bench.form.size(100_000, 1_000_000),
        bench.form.size(5_000, 50_000),
    );
    let of_size = |note, short, full| Log {
        events: bench.form.size(short, full),
        streams: 20,
        note,
        booked_every: 1,
    };
    let logs = [
        ("small events", small),
        ("events of 100 KB", of_size(100_000, 1_100, 5_000)),
        ("events of 1 MB", of_size(1_000_000, 30, 1_000)),
        (LARGEST, of_size(8 * 1024 * 1024, 5, 100)),
    ];
    let kinds = [("SQL", Kind::Sql), ("keyed view", Kind::KeyedView)];
    let empty = bench.database().await?;
    let mut idle = Vec::new();
    for (_, kind) in kinds {
        idle.push(resident(&empty, kind, "true").await?);
    }
    for (what, log) in logs {
        if !bench.form.wants(what) {
            continue;
        }
        let db = bench.database().await?;
        // A range as wide as this is applied in several batches, however few events it holds.
        let holes = "select nextval('highwater.event_position_seq') from generate_series(1, 2000)";
        db.time(holes).await?;
        log.fill(&db).await?;
        for _ in 0..bench.form.runs() {
            for ((name, kind), idle) in kinds.into_iter().zip(&idle) {
                let caught_up = "position >= (select max(position) from highwater.event)";
                let peak = resident(&db, kind, caught_up).await?;
                report.sample(
                    &format!("{name}, {} {what}, above idle", log.events),
                    "MiB",
                    (peak - idle) / MIB,
                    Some(("idle", idle / MIB)),
                    Some(Budget::FigureAtMost(64.0)),
                );
            }
        }
        bench.drop(db).await?;
    }
    Ok(())
}

/// The most that a process had resident until its checkpoint was like this. Its read model goes away.
async fn resident(db: &Db, kind: Kind, checkpoint: &str) -> Result<f64> {
    let project = Project::with(&[("sums", &events::sums_text(""))])?;
    let mut child = kind.start(db, &project)?;
    let done = format!("select count(*) from highwater.checkpoint where {checkpoint}");
    while db.number(&done).await? == 0 {
        if let Some(status) = child.try_wait().map_err(failed)? {
            let what = format!("the process to be measured ended with {status}");
            return Err(Error::new(ErrorKind::Internal, what));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What follows the last commit, or the start.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bytes = peak_of(child.id())?;
    child.kill().await.map_err(failed)?;
    let drop = "drop schema sums cascade; delete from highwater.projection;
        delete from highwater.instance";
    db.time(drop).await?;
    Ok(bytes)
}

fn peak_of(id: Option<u32>) -> Result<f64> {
    let unknown = || {
        Error::new(
            ErrorKind::Internal,
            "the process says nothing of its memory",
        )
    };
    let path = format!("/proc/{}/status", id.ok_or_else(unknown)?);
    let status = std::fs::read_to_string(path).map_err(failed)?;
    let kib = status.lines().find_map(|text| text.strip_prefix("VmHWM:"));
    let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB"));
    let kib: f64 = kib.and_then(|kib| kib.parse().ok()).ok_or_else(unknown)?;
    Ok(kib * 1024.0)
}
