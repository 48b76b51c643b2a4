//! The commands, for the `highwater` binary and for a program with projections of its own.
//!
//! ```no_run
//! # use highwater::cli::App;
//! # use highwater::{Error, Projection};
//! # fn example(my_view: impl Projection) -> Result<std::process::ExitCode, Error> {
//! // All commands, with the projections of the directory and this one:
//! Ok(App::new().projection(my_view)?.main())
//! # }
//! ```

// How to add a command:
//
// 1. A file `src/cli/NAME.rs` with `#[derive(Debug, clap::Args)] pub(super) struct Args` and
//    `pub(super) async fn run(args: Args, ctx: &Context) -> Done`.
// 2. A variant of `Command` with the sentence that `--help` shows, and a line in `Command::run`.
//
// What a command may rely on:
//
// - `Context` gives, lazily, what it asks for: `config`, `projections`, `migrated` or `verified`
//   (one of the two comes first where the database is used), then `target` and `source`, which
//   have a pool each. A runner holds a session of the target while it reads from the source, so
//   one pool for both would block itself.
// - Results go to stdout by `Context::line` and `Context::json` only; everything else to stderr
//   by `Ui::say` (silent with `-q`), `Ui::warn` and tracing. Nothing prints by itself: bars would
//   be torn, and a closed pipe would panic.
// - It returns an `Exit`, or an error, which `Exit::of` maps to the exit code.
// - A signal drops its future, and the program ends with 1, unless it asks for `Stop::drain`:
//   then the token is cancelled and the command ends by itself; a second signal ends the program
//   at once.

mod accept;
mod append;
mod audit;
mod check;
mod completions;
mod context;
mod db;
mod dead_letters;
mod demo;
mod drop;
mod events;
mod exit;
#[cfg(test)]
mod fuzz;
mod init;
mod logging;
mod options;
mod pause;
mod rebuild;
mod run;
mod signals;
mod status;
mod test;
mod text;
mod ui;
mod wait;

use std::ffi::OsString;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Error, ErrorKind, Result};
use crate::projection::{DynProjection, Keyed, KeyedView, Projection, RustProjection};

use context::Context;
use exit::Done;
use options::Options;
use ui::Ui;

/// A program with all of highwater's commands, and with the projections that are compiled in.
#[derive(Default)]
pub struct App {
    projections: Vec<Arc<dyn DynProjection>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.projections.iter().map(|one| &one.definition().name);
        f.debug_tuple("App")
            .field(&names.collect::<Vec<_>>())
            .finish()
    }
}

impl App {
    /// The commands as `highwater` itself has them.
    pub fn new() -> App {
        App::default()
    }

    /// With a projection in Rust.
    ///
    /// # Errors
    /// If its name cannot name a schema, or its `up` is not SQL that can be run in a transaction.
    pub fn projection(self, projection: impl Projection) -> Result<App> {
        Ok(self.with_built(Arc::new(RustProjection::new(projection)?)))
    }

    /// With a keyed view.
    ///
    /// # Errors
    /// If its name cannot name a schema, its event is no enum, or it has no key column.
    pub fn keyed(self, view: impl KeyedView) -> Result<App> {
        Ok(self.with_built(Arc::new(Keyed::new(view)?)))
    }

    fn with_built(mut self, projection: Arc<dyn DynProjection>) -> App {
        self.projections.push(projection);
        self
    }

    /// Does what the command line says: the whole of a program's own `main`.
    ///
    /// It starts a runtime of its own and sets the process's log subscriber and signal handlers.
    pub fn main(self) -> ExitCode {
        self.main_with(std::env::args_os().collect())
    }

    fn main_with(self, arguments: Vec<OsString>) -> ExitCode {
        let program = program_name(&arguments);
        let cli = match parse(&arguments) {
            Ok(cli) => cli,
            Err(error) => return exit::usage(&error, &arguments).into(),
        };
        let ui = Ui::new(&cli.options);
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
            start(cli, program, self.projections, &ui)
        }));
        // The panic's own message is on stderr already.
        let done = done.unwrap_or_else(|_| Err(exit::panicked().into()));
        ui.finish(done).into()
    }
}

/// Exact, pull-based projections for PostgreSQL: events in, read models out.
///
/// Without a database named by --database-url, DATABASE_URL, highwater.toml or the PG* variables,
/// a private PostgreSQL is started from the server programs on this machine.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 caught up but with parked keys, \
4 a projection is stopped, 124 --timeout ran out.
Results go to stdout, everything else to stderr. RUST_LOG and NO_COLOR are respected.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the schema up to date and create highwater.toml and a first projection
    Init(init::Args),
    /// Append events from a file, one JSON object a line, plain or gz
    Append(append::Args),
    /// Run projections
    Run(run::Args),
    /// Show how far each projection is, why it is behind, and what blocks it
    Status(status::Args),
    /// Print the events of the log, one JSON object a line
    Events(events::Args),
    /// Wait until a read model includes a position
    Wait(wait::Args),
    /// Run the given/expect tests of projections on a scratch database
    Test(test::Args),
    /// Check configuration, files, SQL and the event table without running anything
    Check(check::Args),
    /// Build a read model again beside the live one, then swap the two
    Rebuild(rebuild::Args),
    /// Keep the read model of a changed projection
    Accept(accept::Args),
    /// Pause a projection on all instances
    Pause(pause::Args),
    /// Resume a paused projection
    Resume(pause::ResumeArgs),
    /// Drop a projection's read model and checkpoints
    Drop(drop::Args),
    /// Compare the log with what was read from it
    Audit(audit::Args),
    /// List, show, retry and discard events that could not be applied
    DeadLetters(dead_letters::Args),
    /// Start, stop and open the private PostgreSQL of this project
    Db(db::Args),
    /// Show everything with real events in a temporary PostgreSQL
    Demo(demo::Args),
    /// Print the completions of a shell
    Completions(completions::Args),
}

impl Command {
    async fn run(self, ctx: &Context) -> Done {
        match self {
            Command::Init(args) => init::run(args, ctx).await,
            Command::Append(args) => append::run(args, ctx).await,
            Command::Run(args) => run::run(args, ctx).await,
            Command::Status(args) => status::run(args, ctx).await,
            Command::Events(args) => events::run(args, ctx).await,
            Command::Wait(args) => wait::run(args, ctx).await,
            Command::Test(args) => test::run(args, ctx).await,
            Command::Check(args) => check::run(args, ctx).await,
            Command::Rebuild(args) => rebuild::run(args, ctx).await,
            Command::Accept(args) => accept::run(args, ctx).await,
            Command::Pause(args) => pause::run(args, ctx).await,
            Command::Resume(args) => pause::run_resume(args, ctx).await,
            Command::Drop(args) => drop::run(args, ctx).await,
            Command::Audit(args) => audit::run(args, ctx).await,
            Command::DeadLetters(args) => dead_letters::run(args, ctx).await,
            Command::Db(args) => db::run(args, ctx).await,
            Command::Demo(args) => demo::run(args, ctx).await,
            Command::Completions(args) => completions::run(&args, ctx),
        }
    }

    /// Whether the user watches a run, so that the log reports its progress.
    fn is_observed(&self) -> bool {
        matches!(self, Command::Run(_))
    }
}

fn command(program: &str) -> clap::Command {
    Cli::command().bin_name(program).display_name(program)
}

/// The parsed arguments; or clap's answer: help, the version or an error.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = command(&program_name(arguments));
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn program_name(arguments: &[OsString]) -> String {
    let name = arguments.first().and_then(|path| {
        let name = Path::new(path).file_name()?;
        Some(name.to_string_lossy().into_owned())
    });
    name.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned())
}

fn start(cli: Cli, program: String, projections: Vec<Arc<dyn DynProjection>>, ui: &Ui) -> Done {
    logging::start(&cli.options, cli.command.is_observed(), ui)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot start: {e}")).with_source(e))?;
    let done = runtime.block_on(async {
        let ctx = Context::new(cli.options, program, projections, ui.clone());
        ctx.stop().listen(ui.clone())?;
        let done = tokio::select! {
            done = Box::pin(cli.command.run(&ctx)) => done,
            () = ctx.stop().abandoned() => Err(exit::interrupted().into()),
        };
        ctx.close().await;
        done
    });
    // A thread that cannot be woken may still read standard input.
    runtime.shutdown_background();
    done
}
