//! `status`: how everything fares, and who blocks.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::error::{ErrorKind, Result};
use crate::status;

/// How often `--watch` looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on showing it once a second until ctrl-c; with --json a line each time
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    ctx.verified().await?;
    let target = ctx.target().await?;
    let sources = [Arc::new(ctx.source().await?)];
    let known = ctx.known();
    let stop = args.watch.then(|| ctx.stop().drain());
    loop {
        match status::read(&target, &sources, &known).await {
            Ok(status) => show(&status, args.watch, ctx)?,
            // A server that starts again is waited for by who watches.
            Err(error) if args.watch && error.kind() == ErrorKind::ConnectionLost => {
                ctx.ui().warn(&error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        let Some(stop) = &stop else {
            return Ok(Exit::Done);
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(Exit::Done),
            () = tokio::time::sleep(WATCH_PAUSE) => {}
        }
    }
}

fn show(status: &status::Status, watch: bool, ctx: &Context) -> Result<()> {
    if ctx.wants_json() {
        return ctx.json(&status.to_json());
    }
    let on_terminal = std::io::stdout().is_terminal();
    let color = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let clear = if watch && on_terminal { CLEAR } else { "" };
    ctx.write(format!("{clear}{}", status.render(color)).as_bytes())
}
