//! `completions`: the completions of a shell, to be sourced by it.

use clap_complete::Shell;

use super::context::Context;
use super::exit::{Done, Exit};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell, for example: source <(highwater completions bash)
    shell: Shell,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Done {
    let mut script = Vec::new();
    let program = ctx.program();
    let mut command = super::command(program);
    clap_complete::generate(args.shell, &mut command, program, &mut script);
    ctx.write(&script)?;
    Ok(Exit::Done)
}
