//! Programs that end with this one, however it ends.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::Outcome;

const SCRIPT: &str = include_str!("leash.sh");

/// A running program.
pub(crate) struct Leashed {
    shell: Child,
    pid: Pid,
    /// Its end is the end of the program.
    leash: Option<ChildStdin>,
}

/// How a program is to be run.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'a str, String)>,
    pub(crate) directory: &'a Path,
    /// Where it says what it says.
    pub(crate) log: File,
    /// The account it runs as, if not this one.
    pub(crate) account: Option<&'a User>,
    /// What it gets when it is to end.
    pub(crate) signal: Signal,
    /// What is removed after that if this process is gone.
    pub(crate) scratch: Option<&'a Path>,
}

impl Leashed {
    pub(crate) async fn start(start: Start<'_>) -> Outcome<Leashed> {
        let mut command = Command::new("/bin/sh");
        let signal = start.signal.as_str().trim_start_matches("SIG");
        let scratch = start.scratch.map(|path| path.display().to_string());
        command
            .args(["-c", SCRIPT, "chaos", signal])
            .arg(scratch.unwrap_or_default())
            .arg(start.program)
            .args(start.arguments)
            .envs(start.environment)
            .current_dir(start.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(start.log)
            // A ctrl-c is for us, who end them in order.
            .process_group(0);
        if let Some(account) = start.account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        let mut shell = command.spawn()?;
        let leash = shell.stdin.take();
        let said = shell.stdout.take().ok_or("a shell without stdout")?;
        let first = BufReader::new(said).lines().next_line().await?;
        let pid = first.ok_or("the shell does not start it")?.parse()?;
        Ok(Leashed {
            shell,
            pid: Pid::from_raw(pid),
            leash,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// An error means that it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome<()> {
        Ok(kill(self.pid, signal)?)
    }

    /// Its exit code if it has ended; 128 and the signal if one ended it.
    pub(crate) fn has_ended(&mut self) -> Outcome<Option<i32>> {
        Ok(self
            .shell
            .try_wait()?
            .map(|status| status.code().unwrap_or(-1)))
    }

    /// Waits for its exit code.
    pub(crate) async fn ended(&mut self) -> Outcome<i32> {
        // A shell's own stdin is closed while it is waited for, and that must not happen here.
        let leash = self.leash.take();
        let status = self.shell.wait().await;
        drop(leash);
        Ok(status?.code().unwrap_or(-1))
    }

    /// Sends the signal and waits for its exit code.
    pub(crate) async fn end(&mut self, signal: Signal) -> Outcome<i32> {
        // It may just have ended by itself.
        let _ = self.signal(signal);
        self.ended().await
    }
}
