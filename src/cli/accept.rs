//! `accept`: a projection that was changed, or whose log differs, goes on with the read model it has.

use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::engine::rebuild::accept;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For a change after which the read model would be the same. What has been applied is not applied \
again: if the change matters for events of the past, use rebuild.

Also for a projection that is stopped as diverged or stranded: it goes on after its checkpoint, \
behind events that were removed, and takes what lies below for what it has applied.")]
pub(super) struct Args {
    /// The projection
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let projection = ctx.projection(&args.name)?;
    ctx.verified().await?;
    let source = ctx.source().await?;
    let accepted = accept(&ctx.target().await?, &*projection, &source).await?;
    let name = &args.name;
    if ctx.wants_json() {
        ctx.json(&json!({ "name": name, "accepted": accepted }))?;
    } else if accepted {
        ctx.line(&format!("{name}: accepted"))?;
    } else {
        ctx.line(&format!("{name}: nothing was changed"))?;
    }
    Ok(Exit::Done)
}
