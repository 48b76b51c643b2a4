//! `accept`: a changed projection keeps its read model, and a changed log is accepted.

use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use super::text::at;
use crate::engine::operate::accept;
use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg::checkpoint;
use crate::pg::database::Database;
use crate::position::Position;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For a change that leaves the read model as it is. Events that were applied are not applied again: \
if the change matters for past events, use rebuild.

Also for a projection that is stopped as diverged or stranded: it resumes after its checkpoint, or \
after the events that were removed, and counts everything below as applied.")]
pub(super) struct Args {
    /// The projection
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let projection = ctx.projection(&args.name)?;
    ctx.verified().await?;
    let source = ctx.source().await?;
    let target = ctx.target().await?;
    let name = &projection.definition().name;
    let before = lowest(&target, name).await?;
    let accepted = accept(&target, &*projection, &*source).await?;
    let after = lowest(&target, name).await?;
    if ctx.wants_json() {
        ctx.json(&json!({ "name": name, "accepted": accepted, "position": after }))?;
    } else if after > before {
        let [before, after] = [before, after].map(at);
        ctx.line(&format!(
            "{name}: accepted; it resumes after position {after}, and events after {before} up to \
             there are not in its read model"
        ))?;
    } else if accepted {
        ctx.line(&format!("{name}: accepted"))?;
    } else {
        ctx.line(&format!("{name}: nothing was changed"))?;
    }
    Ok(Exit::Done)
}

/// The position of the partition that is furthest behind.
async fn lowest(target: &Database, name: &ProjectionName) -> Result<Position> {
    let client = target.short().await?;
    client.within(checkpoint::lowest(&client, name)).await
}
