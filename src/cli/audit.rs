//! `audit`: compares what the log holds with what it held when it was read.

use super::context::Context;
use super::exit::{Done, Exit};
use crate::audit::audit;
use crate::name::ProjectionName;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Compares the log with the record of what was read from it, and names the read models that may lack an \
event or have one too many. Records what was not recorded yet. Runners keep running. \
Exits with 1 if a read model may be wrong.")]
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
    let source = ctx.source().await?;
    let audited = audit(&ctx.target().await?, &[source], args.name.as_ref()).await?;
    if ctx.wants_json() {
        ctx.json(&audited.to_json())?;
    } else {
        ctx.write(audited.render().as_bytes())?;
        if audited.read_models.is_empty() {
            ctx.ui().say("no projection has a read model here");
        }
    }
    Ok(match audited.agrees() {
        true => Exit::Done,
        false => Exit::Failed,
    })
}
