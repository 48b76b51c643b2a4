//! `drop`: drops a projection's read model and checkpoints.

use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::engine::operate::drop_projection;
use crate::name::ProjectionName;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Drops the schema NAME with everything in it, and the checkpoints. The events stay: highwater run \
builds the read model again. Runners of the projection stop.")]
pub(super) struct Args {
    /// The projection; its file need not exist
    #[arg(value_name = "NAME")]
    name: ProjectionName,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    ctx.verified().await?;
    ctx.refuse_unknown(&args.name).await?;
    drop_projection(&ctx.target().await?, &args.name).await?;
    if ctx.wants_json() {
        ctx.json(&json!({ "dropped": args.name }))?;
    } else {
        ctx.line(&format!("{}: dropped", args.name))?;
    }
    Ok(Exit::Done)
}
