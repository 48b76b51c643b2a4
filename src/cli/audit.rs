//! `audit`: recounts what was scanned and applied.

use std::sync::Arc;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::audit::audit;
use crate::name::ProjectionName;
use crate::source::Source;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Counts the events of the log up to each checkpoint again, and compares with what the ledger of each \
partition says became of them. Runners may go on meanwhile. Ends with 1 if anything differs.")]
pub(super) struct Args {
    /// The projection; all if none is named
    #[arg(value_name = "NAME")]
    name: Option<ProjectionName>,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    ctx.verified().await?;
    if let Some(name) = &args.name {
        ctx.refuse_unknown(name).await?;
    }
    let source: Arc<dyn Source> = Arc::new(ctx.source().await?);
    let known = ctx.known();
    let audited = audit(&ctx.target().await?, &[source], &known, args.name.as_ref()).await?;
    if ctx.wants_json() {
        ctx.json(&audited.to_json())?;
    } else {
        ctx.write(audited.render().as_bytes())?;
        if audited.ledgers.is_empty() {
            ctx.ui().say("no projection has a read model here");
        }
    }
    Ok(match audited.agrees() {
        true => Exit::Done,
        false => Exit::Failed,
    })
}
