//! `status`: how far everything is, and what blocks it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::error::Result;
use crate::pg::database::Database;
use crate::projection::Definition;
use crate::retry::{Verdict, verdict};
use crate::source::Source;
use crate::status::{self, Status};

/// How often `--watch` reads the status.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Repeat it once a second until ctrl-c; with --json, one line each time
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    if !args.watch {
        let reader = status_reader(ctx).await?;
        show(&reader.read().await?, false, ctx)?;
        return Ok(Exit::Done);
    }
    let stop = ctx.stop().drain();
    tokio::select! {
        watched = watch(ctx) => watched?,
        // A status is written at once, so none is cut.
        () = stop.cancelled() => {}
    }
    Ok(Exit::Done)
}

async fn watch(ctx: &Context) -> Result<()> {
    let reader = status_reader(ctx).await?;
    loop {
        match reader.read().await {
            Ok(status) => show(&status, true, ctx)?,
            // `--watch` waits for a server that restarts.
            Err(error) if verdict(error.kind()) == Verdict::Transient => {
                ctx.ui().warn(&error.to_string());
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// Reads a status.
struct StatusReader {
    target: Database,
    sources: [Arc<dyn Source>; 1],
    known: Vec<Definition>,
}

async fn status_reader(ctx: &Context) -> Result<StatusReader> {
    ctx.verified().await?;
    Ok(StatusReader {
        target: ctx.target().await?,
        sources: [ctx.source().await?],
        known: ctx.known(),
    })
}

impl StatusReader {
    async fn read(&self) -> Result<Status> {
        status::read(&self.target, &self.sources, &self.known).await
    }
}

fn show(status: &Status, watch: bool, ctx: &Context) -> Result<()> {
    if ctx.wants_json() {
        return ctx.json(&status.to_json());
    }
    let on_terminal = std::io::stdout().is_terminal();
    let color = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let clear = if watch && on_terminal { CLEAR } else { "" };
    ctx.write(format!("{clear}{}", status.render(color)).as_bytes())
}
