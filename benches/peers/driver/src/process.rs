//! Processes that end with what began them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A process that runs until it is told to end, with a group of its own, so that what it starts ends too.
pub struct Background {
    child: Child,
    group: Pid,
}

impl Background {
    pub fn start(command: &mut Command) -> Result<Background> {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let id = child.id().context("it ended at once")?;
        Ok(Background {
            child,
            group: Pid::from_raw(i32::try_from(id)?),
        })
    }

    pub async fn stop(mut self) -> Result<()> {
        // It may have ended by itself; then there is nothing to tell.
        let _ = killpg(self.group, Signal::SIGTERM);
        if timeout(Duration::from_secs(5), self.child.wait())
            .await
            .is_err()
        {
            eprintln!("did not end within 5 s of SIGTERM; killed");
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// Stops what was started, if anything was.
pub async fn stop(process: Option<Background>) -> Result<()> {
    match process {
        Some(process) => process.stop().await,
        None => Ok(()),
    }
}

/// The longest that a command may take: the first build of a peer does.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs a command to its end and gives what it printed.
pub async fn output(command: &mut Command) -> Result<String> {
    let std = command.as_std();
    let name = [std.get_program()].into_iter().chain(std.get_args());
    let name = name
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let id = child.id().context("it ended at once")?;
    let _group = Group(Pid::from_raw(i32::try_from(id)?));
    let output = timeout(LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("{name} did not end in {LIMIT:?}"))??;
    if !output.status.success() {
        bail!("{name}: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Kills whatever is left of a group, also when the wait for it was given up.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}
