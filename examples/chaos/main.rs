//! Everything that can go wrong, at once: instances are killed, stopped, cut off; the server
//! crashes, restarts and is replaced by its replica; events cannot be applied; the number of
//! partitions changes. Meanwhile 16 writers append. In the end each event that was committed must
//! be in each read model, once and in order.
//!
//! ```text
//! cargo build --release
//! cargo run --release --example chaos -- --minutes 20 --seed 7
//! ```
//!
//! It needs the PostgreSQL server programs and nothing else: its servers are its own and go away
//! with it. The same seed draws the same faults at the same times; what they hit is up to the
//! machine. Logs and the schedule as it was played are in `target/release/chaos/SEED`.

mod arena;
mod faults;
mod instances;
mod journal;
mod leash;
mod ledger;
mod proxy;
mod report;
mod schedule;
mod servers;
mod watch;
mod writers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use arena::Arena;
use journal::locked;
use writers::Writers;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A run of everything that can go wrong; ends with 1 if anything is lost, doubled or out of order.
#[derive(Parser)]
struct Arguments {
    /// How long the faults come
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Which faults come when
    #[arg(long)]
    seed: u64,
    /// Leaves out the faults whose name contains this
    #[arg(long, value_name = "TEXT")]
    without: Option<String>,
    /// Breaks something on purpose, to see that it is found
    #[arg(long, hide = true)]
    r#break: Option<Break>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Break {
    /// The fence lets everybody through.
    Fence,
}

fn main() -> ExitCode {
    if let Some(code) = instances::as_program() {
        return code;
    }
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error.into()),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(code) => code,
        Err(error) => failed(error),
    }
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Where logs go: beside the programs.
fn logs(seed: u64) -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let release = own.parent().and_then(Path::parent);
    let release = release.ok_or("no directory of programs")?;
    Ok(release.join("chaos").join(seed.to_string()))
}

async fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let logs = logs(arguments.seed)?;
    let arena = Arc::new(Arena::new(logs.clone()).await?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let code = tokio::select! {
        code = disturbed(&arena, arguments) => code,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    };
    arena.end().await;
    eprintln!("logs and the schedule as it was played: {}", logs.display());
    code
}

/// The run itself.
async fn disturbed(arena: &Arc<Arena>, arguments: &Arguments) -> Outcome<ExitCode> {
    let length = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    let mut schedule = schedule::draw(arguments.seed, length);
    if let Some(text) = &arguments.without {
        schedule.retain(|(_, fault)| !fault.kind().contains(text));
    }
    for (at, fault) in &schedule {
        arena
            .journal
            .note(&format!("planned for {:.2}s: {fault}", at.as_secs_f64()));
    }
    prepare(arena, arguments.r#break).await?;
    for instance in &arena.instances {
        instance.lock().await.start(&arena.project).await?;
    }
    let watching = [
        tokio::spawn(watch::stand_stills(arena.clone())),
        tokio::spawn(watch::keep_running(arena.clone())),
    ];
    let writers = Writers::start(&arena.address, arguments.seed);
    arena
        .journal
        .say(&format!("{} faults are to come", schedule.len()));
    faults::play(arena, &schedule, arguments.seed).await;
    arena.journal.say("the faults are over, the writers stop");
    let answers = writers.stop().await;
    let drained_in = ledger::drain(arena).await?;
    for task in watching {
        task.abort();
    }
    stop_instances(arena).await?;
    let mut verdict = ledger::judge(arena, answers).await?;
    verdict.drained_in = drained_in;
    println!("{}", report::render(arena, &verdict));
    Ok(tell(arena, arguments))
}

/// The schema, what projections refer to, and what is broken on purpose.
async fn prepare(arena: &Arena, broken: Option<Break>) -> Outcome<()> {
    let mut client = arena.address.connected().await?;
    highwater::internal::pg::migrate::migrate(&mut client).await?;
    client
        .batch_execute("create table public.known (kind text primary key)")
        .await?;
    let Some(Break::Fence) = broken else {
        return Ok(());
    };
    let row = client
        .query_one(
            "select pg_get_functiondef('highwater.begin_batch'::regproc)",
            &[],
        )
        .await?;
    let whole: String = row.get(0);
    let mut holed = whole.clone();
    for condition in [
        "and c.epoch = fence.epoch",
        "and c.parking = fence.parking",
        "and c.position = begin_batch.after",
        "and begin_batch.through >= c.position",
    ] {
        if !whole.contains(condition) {
            return Err(format!("the fence has no {condition:?}").into());
        }
        holed = holed.replace(condition, "");
    }
    client.batch_execute(&holed).await?;
    Ok(())
}

async fn stop_instances(arena: &Arena) -> Outcome<()> {
    for instance in &arena.instances {
        let mut instance = instance.lock().await;
        let number = instance.number;
        match instance.drain().await? {
            Some(0) => {}
            Some(code) => arena.violation(format!("instance {number} ends with {code}")),
            None => arena.violation(format!("instance {number} does not end")),
        }
    }
    Ok(())
}

fn tell(arena: &Arena, arguments: &Arguments) -> ExitCode {
    let tally = locked(&arena.tally);
    if tally.violations.is_empty() {
        println!("nothing lost, nothing twice, everything in order");
        return ExitCode::SUCCESS;
    }
    for violation in &tally.violations {
        println!("VIOLATION: {violation}");
    }
    println!(
        "seed {seed}; to repeat it: cargo run --release --example chaos -- --minutes {minutes} --seed {seed}",
        seed = arguments.seed,
        minutes = arguments.minutes,
    );
    ExitCode::FAILURE
}
