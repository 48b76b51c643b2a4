//! `rebuild`: builds a read model again beside the live one, then swaps the two.

use std::sync::Arc;

use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use super::run::Watch;
use super::text::at;
use crate::engine::rebuild::{Rebuild, Rebuilt};
use crate::error::Result;
use crate::projection::DynProjection;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The live read model stays readable and up to date until the swap, which renames two schemas in one \
transaction. Ctrl-c leaves the live one as it is; the same command resumes the rebuild.")]
pub(super) struct Args {
    /// The projection
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let projection = ctx.projection(&args.name)?;
    let stop = ctx.stop().drain();
    let rebuild = tokio::select! {
        rebuild = begin(projection, ctx) => rebuild?,
        () = stop.cancelled() => return Ok(Exit::Done),
    };
    let watch = Watch::start(rebuild.monitor(), ctx.ui());
    let done = rebuild.run(stop).await;
    watch.end();
    let name = &args.name;
    match done? {
        Rebuilt::Swapped {
            generation,
            position,
        } => {
            if ctx.wants_json() {
                ctx.json(&json!({ "name": name, "generation": generation, "position": position }))?;
            } else {
                let position = at(position);
                ctx.line(&format!(
                    "{name}: generation {generation} is live at position {position}"
                ))?;
            }
        }
        Rebuilt::Interrupted { position } => {
            let position = at(position);
            ctx.ui().say(&format!(
                "{name}: not swapped, the next generation is at position {position}; run the same \
                 command again to continue"
            ));
        }
    }
    Ok(Exit::Done)
}

async fn begin(projection: Arc<dyn DynProjection>, ctx: &Context) -> Result<Rebuild> {
    ctx.verified().await?;
    let settings = ctx.config()?.engine.clone();
    let source = ctx.source().await?;
    Ok(Rebuild::new(
        ctx.target().await?,
        source,
        projection,
        settings,
    ))
}
