//! `db`: the private PostgreSQL of a project.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use clap::Subcommand;
use serde_json::json;
use tokio::process::{Child, Command as Process};

use super::context::Context;
use super::exit::{Done, Exit};
use crate::cluster::{Cluster, DATABASE};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::redact;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run it in the foreground until ctrl-c or `db stop`; other commands share it meanwhile
    Start,
    /// Print its URL, or that of the configured database without its password
    Url,
    /// Open psql on it, and start it for that time if it does not run
    Psql {
        /// Arguments for psql besides the URL, for example: -- -c 'select * from streams.streams'
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Stop it, also if another process started it
    Stop,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    match args.command {
        Command::Start => start(ctx).await,
        Command::Url => url(ctx).await,
        Command::Psql { arguments } => psql(&arguments, ctx).await,
        Command::Stop => stop(ctx).await,
    }
}

async fn start(ctx: &Context) -> Done {
    refuse_configured(ctx, "highwater does not start that database")?;
    let token = ctx.stop().drain();
    let cluster = Cluster::for_project(&ctx.project_dir()?).await?;
    if !cluster.is_owner() {
        let error = Error::new(
            ErrorKind::Config,
            "the private PostgreSQL of this project already runs, started by another process",
        );
        let error = error.with_hint("use it, or stop it first with highwater db stop");
        return Err(error.with_kind(ErrorKind::Io).into());
    }
    ctx.ui().say(&cluster.notice());
    let url = cluster.url(DATABASE);
    if ctx.wants_json() {
        ctx.json(&json!({ "url": url, "data_directory": cluster.data_dir() }))?;
    } else {
        ctx.line(&url)?;
    }
    tokio::select! {
        () = token.cancelled() => {}
        () = cluster.ended() => ctx.ui().say("it was stopped"),
    }
    cluster.stop().await?;
    Ok(Exit::Done)
}

async fn url(ctx: &Context) -> Done {
    let url = match ctx.named_by()? {
        Some((_, Some(text))) => redact(&text),
        Some((_, None)) => match ctx.configured()? {
            Some(connector) => connector.describe(),
            None => String::new(),
        },
        None => running(ctx).await?.url(DATABASE),
    };
    if ctx.wants_json() {
        ctx.json(&json!({ "url": url }))?;
    } else {
        ctx.line(&url)?;
    }
    Ok(Exit::Done)
}

async fn running(ctx: &Context) -> Result<Cluster> {
    let found = Cluster::running_for_project(&ctx.project_dir()?).await?;
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "no private PostgreSQL runs for this project",
        )
        .with_hint("start it with highwater db start in another terminal")
    })
}

async fn psql(arguments: &[String], ctx: &Context) -> Done {
    refuse_configured(ctx, "open it with psql itself")?;
    let token = ctx.stop().leave_to_child();
    let cluster = Cluster::for_project(&ctx.project_dir()?).await?;
    ctx.ui().say(&cluster.notice());
    let mut child = spawn(&cluster, arguments)?;
    let status = tokio::select! {
        status = child.wait() => status,
        () = token.cancelled() => {
            // It may be gone by itself.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    cluster.stop().await?;
    Ok(exit(status.map_err(|e| failed(&e))?))
}

fn spawn(cluster: &Cluster, arguments: &[String]) -> Result<Child> {
    let beside_server = cluster.bin_dir().join("psql");
    let program = if beside_server.is_file() {
        beside_server
    } else {
        PathBuf::from("psql")
    };
    Process::new(&program)
        .arg(cluster.url(DATABASE))
        .args(arguments)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => no_psql(cluster.bin_dir()),
            _ => failed(&error),
        })
}

fn no_psql(bin_dir: &Path) -> Error {
    let what = format!("there is no psql in {} nor on the PATH", bin_dir.display());
    Error::new(ErrorKind::NotFound, what).with_hint(
        "install PostgreSQL's client programs, or use another client with highwater db url",
    )
}

fn failed(error: &std::io::Error) -> Error {
    let what = format!("cannot run psql: {error}");
    Error::new(ErrorKind::Io, what).with_hint("check its permissions")
}

fn exit(status: ExitStatus) -> Exit {
    if status.success() {
        Exit::Done
    } else {
        Exit::Failed
    }
}

async fn stop(ctx: &Context) -> Done {
    let stopped = Cluster::stop_running(&ctx.project_dir()?).await?;
    if ctx.wants_json() {
        ctx.json(&json!({ "stopped": stopped }))?;
    } else if stopped {
        ctx.line("stopped the private PostgreSQL of this project")?;
    } else {
        ctx.line("no private PostgreSQL runs for this project")?;
    }
    Ok(Exit::Done)
}

/// These are about the private PostgreSQL, and another database is configured.
fn refuse_configured(ctx: &Context, hint: &str) -> Result<()> {
    match ctx.named_by()? {
        None => Ok(()),
        Some((location, _)) => {
            let what = "this names the database, so there is no private PostgreSQL to work with";
            let hint = format!("{hint}, or leave {location} out");
            Err(Error::new(ErrorKind::Config, what)
                .with_location(location)
                .with_hint(hint))
        }
    }
}
