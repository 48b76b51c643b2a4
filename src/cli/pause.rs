//! `pause` and `resume`: an operator pauses a projection on all instances.

use std::time::Duration;

use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use super::text::at;
use crate::name::ProjectionName;
use crate::pause::{pause, resume};

/// Beyond the grace of a batch in flight and the lease of an instance that died.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every instance finishes the batch in flight and pauses until the projection is resumed, also after \
a restart. No event is lost: they wait in the log.")]
pub(super) struct Args {
    /// The projection
    #[arg(value_name = "NAME")]
    name: ProjectionName,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    ctx.verified().await?;
    ctx.refuse_unknown(&args.name).await?;
    let engine = ctx.config()?.engine.clone();
    let limit = engine.stop_grace + engine.lease + PATIENCE;
    let name = &args.name;
    let paused = pause(&ctx.target().await?, name, limit).await?;
    if paused.is_held {
        ctx.ui().warn(&format!(
            "{name}: paused, but an instance still holds a partition; highwater status shows which"
        ));
    }
    if ctx.wants_json() {
        ctx.json(&json!({ "name": name, "paused": true, "position": paused.position }))?;
    } else {
        let at = at(paused.position);
        let word = if paused.is_new { "is" } else { "was already" };
        ctx.line(&format!(
            "{name}: {word} paused at position {at}; highwater resume {name} resumes it"
        ))?;
    }
    Ok(Exit::Done)
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// The projection
    #[arg(value_name = "NAME")]
    name: ProjectionName,
}

pub(super) async fn run_resume(args: ResumeArgs, ctx: &Context) -> Done {
    ctx.verified().await?;
    ctx.refuse_unknown(&args.name).await?;
    let name = &args.name;
    let resumed = resume(&ctx.target().await?, name).await?;
    if ctx.wants_json() {
        ctx.json(&json!({ "name": name, "paused": false, "resumed": resumed }))?;
    } else if resumed {
        ctx.line(&format!("{name}: resumed"))?;
    } else {
        ctx.line(&format!("{name}: was not paused"))?;
    }
    Ok(Exit::Done)
}
