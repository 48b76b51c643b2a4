//! `wait`: until a read model includes a position.

use std::time::Duration;

use super::context::Context;
use super::exit::{Done, Exit};
use super::run::duration;
use crate::error::ErrorKind;
use crate::position::Position;
use crate::wait::{Target, Waited, until_visible};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when the position is visible, at once if it already is; with 124 when the time runs \
out; with 4 when the projection is stopped before it; with 3 when the event at the position is \
parked or was discarded.")]
pub(super) struct Args {
    /// The projection
    #[arg(value_name = "NAME")]
    name: String,
    /// The position, or the highest committed one as of now
    #[arg(long, value_name = "POSITION", default_value = "head", value_parser = target)]
    position: Target,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

/// For clap: a position, or `head`.
fn target(text: &str) -> Result<Target, String> {
    if text == "head" {
        return Ok(Target::Head);
    }
    match text.parse::<i64>() {
        Ok(number) if number >= 0 => Ok(Target::At(Position::new(number))),
        _ => Err("a position is a whole number from 0, or head".to_owned()),
    }
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    ctx.verified().await?;
    let target = ctx.target().await?;
    let sources = [ctx.source().await?];
    let known = ctx.known();
    let (name, goal) = (&args.name, args.position);
    let waited = until_visible(&target, &sources, &known, name, goal, args.timeout).await;
    // An unknown name is a usage error, as for every command.
    let waited = waited.map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::Usage),
        _ => error,
    })?;
    if ctx.wants_json() {
        ctx.json(&waited)?;
    } else if let Waited::Visible { .. } = waited {
        ctx.line(&waited.to_string())?;
    } else {
        ctx.ui().warn(&format!("{name}: {waited}"));
    }
    Ok(match waited {
        Waited::Visible { .. } => Exit::Done,
        Waited::Parked { .. } | Waited::Discarded { .. } => Exit::Parked,
        Waited::TimedOut { .. } => Exit::TimedOut,
        Waited::Stopped { .. } => Exit::Stopped,
    })
}
