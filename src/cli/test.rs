//! `test`: given events, expected rows, on a scratch database.

use super::context::Context;
use super::exit::{Done, Exit};
use crate::given_expect;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The tests of NAME are in NAME.test.toml beside its file, or, for a projection in Rust, in the \
projections' directory. Each case runs twice, with all events in one batch and with one event a \
batch. The scratch database is made on the configured server and dropped at the end.")]
pub(super) struct Args {
    /// The projections to test; all of them, if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let subjects = ctx.subjects(&args.names)?;
    let server = ctx.server().await?;
    let report = given_expect::run(server, &subjects).await?;
    if ctx.wants_json() {
        ctx.json(&report)?;
    } else {
        ctx.write(report.render().as_bytes())?;
    }
    Ok(if report.passed() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
