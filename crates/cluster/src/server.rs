//! The server's process: its supervisor, the wait until it is ready, the wait until it is down.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::account::Account;
use crate::error::{Error, ErrorKind, Result};
use crate::locate::Binaries;
use crate::place::{self, Place};
use crate::probe::{self, Running, State};

/// Long enough for the recovery of a large database after a crash.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(300);
/// Long enough for its last checkpoint.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(120);
/// The pause between two polls of something that does not report its changes.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

const SCRIPT: &str = include_str!("supervise.sh");

/// `C.UTF-8` sorts by code point on every machine; macOS has no such locale in all its versions,
/// and there `C` sorts alike.
const LOCALE: &str = if cfg!(target_os = "macos") {
    "C"
} else {
    "C.UTF-8"
};

/// What to start.
pub(crate) struct Launch {
    pub(crate) binaries: Binaries,
    pub(crate) account: Account,
    pub(crate) place: Place,
    /// The project's lock; the supervisor inherits it.
    pub(crate) lock: Option<File>,
    /// The directory to remove at the end.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) settings: Vec<(String, String)>,
}

/// A running supervisor. Dropping it brings the server down, without waiting for that.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// The pipe that only we hold: closing it is the order to stop.
    leash: Option<ChildStdin>,
    ended: watch::Receiver<Option<ExitStatus>>,
    log: File,
}

impl Launch {
    /// Starts the supervisor, which starts the server.
    pub(crate) fn supervisor(&self) -> Result<Supervisor> {
        self.place.prepare(&self.account)?;
        let log = place::open_log(&self.place)?;
        let mut child = self.command(&log)?.spawn().map_err(|error| {
            Error::new(
                ErrorKind::Io,
                format!("cannot start PostgreSQL as {}: {error}", self.account.name),
            )
            .with_location("/bin/sh")
            .with_source(error)
        })?;
        let leash = child.stdin.take();
        Ok(Supervisor {
            leash,
            ended: reap(child)?,
            log,
        })
    }

    fn command(&self, log: &File) -> Result<Command> {
        let lock = self.lock.as_ref().map(File::try_clone).transpose();
        let handles = lock.and_then(|lock| Ok((lock, log.try_clone()?)));
        let (lock, log) = handles
            .map_err(|error| place::io_error("cannot share the file", &self.place.log(), error))?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &without_comments(SCRIPT), "highwater-postgres"])
            .args([
                self.binaries.bin_dir(),
                &self.place.data_dir,
                &self.place.socket_dir,
            ])
            .arg(LOCALE)
            .arg(self.scratch.as_deref().unwrap_or(Path::new("")))
            .args(self.server_options())
            // The account may not be allowed to read ours.
            .current_dir("/")
            // Ctrl-C is for the owner, which then still has batches to finish.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(lock.map_or_else(Stdio::null, Stdio::from))
            .stderr(log);
        self.set_environment(&mut command);
        if self.account.is_substitute {
            command.uid(self.account.uid).gid(self.account.gid);
        }
        Ok(command)
    }

    /// PGPORT, PGDATA and the like are meant for another server.
    fn set_environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        // A locale that is not installed would stop the server; its messages are in English.
        command.env("LC_ALL", "C").env_remove("LANGUAGE");
    }

    fn server_options(&self) -> Vec<String> {
        // The setting is a list with commas, so the path is quoted.
        let socket_dir = self.place.socket_dir.to_string_lossy().replace('"', "\"\"");
        let fixed = [
            ("listen_addresses", String::new()),
            ("unix_socket_directories", format!("\"{socket_dir}\"")),
            ("unix_socket_permissions", "0700".to_owned()),
            ("port", "5432".to_owned()),
            ("cluster_name", "highwater".to_owned()),
        ];
        let chosen = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        fixed
            .into_iter()
            .chain(chosen)
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
            .collect()
    }

    /// Waits until the server takes connections.
    pub(crate) async fn ready(&self, supervisor: &Supervisor) -> Result<Running> {
        let data_dir = &self.place.data_dir;
        let limit = Instant::now() + START_LIMIT;
        loop {
            if supervisor.has_ended() {
                return Err(self.failure(ErrorKind::Failed, "did not start", supervisor));
            }
            if probe::says_ready(data_dir)
                && let State::Up(running) = probe::state(data_dir).await
            {
                return Ok(running);
            }
            if Instant::now() > limit {
                return Err(self.failure(ErrorKind::TimedOut, "is not ready yet", supervisor));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn failure(&self, kind: ErrorKind, how: &str, supervisor: &Supervisor) -> Error {
        let said = supervisor.last_words();
        let hint = if said.contains("No space left on device") {
            place::NO_SPACE
        } else {
            "fix what it says, or set DATABASE_URL"
        };
        Error::new(
            kind,
            format!(
                "PostgreSQL {} {how}; the end of its log:\n{said}",
                self.binaries.full()
            ),
        )
        .with_location(self.place.data_dir.display().to_string())
        .with_hint(hint)
    }
}

impl Supervisor {
    fn has_ended(&self) -> bool {
        // A reaper that is gone has nothing left to wait for.
        self.ended.borrow().is_some() || self.ended.has_changed().is_err()
    }

    /// Stops the server and waits until it is down, with everything that ends with it.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        drop(self.leash.take());
        timeout(STOP_LIMIT, self.ended()).await.map_err(|_| {
            Error::new(
                ErrorKind::TimedOut,
                format!(
                    "PostgreSQL did not stop within {} s; the end of its log:\n{}",
                    STOP_LIMIT.as_secs(),
                    self.last_words()
                ),
            )
            .with_hint("it is still stopping by itself")
        })
    }

    /// Waits until the server is down, even if another process stopped it.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error is a reaper that is gone, which is an end too.
        let _ = ended.wait_for(Option::is_some).await;
    }

    /// The end of the server's log; through our own handle, as the file may be gone.
    fn last_words(&self) -> String {
        const ENOUGH: u64 = 2048;
        let length = self.log.metadata().map(|found| found.len()).unwrap_or(0);
        let mut bytes = vec![0; usize::try_from(length.min(ENOUGH)).unwrap_or(0)];
        let from = length.saturating_sub(ENOUGH);
        if length == 0 || self.log.read_exact_at(&mut bytes, from).is_err() {
            return "  (it says nothing)".to_owned();
        }
        last_lines(&String::from_utf8_lossy(&bytes), 12)
    }
}

/// The script as `ps` shows it.
fn without_comments(script: &str) -> String {
    script
        .lines()
        .filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let kept = &lines[lines.len().saturating_sub(count)..];
    kept.iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Waits for the supervisor on a thread of its own, so that no runtime has to live as long as it.
fn reap(mut child: Child) -> Result<watch::Receiver<Option<ExitStatus>>> {
    let (report, ended) = watch::channel(None);
    thread::Builder::new()
        .name("highwater-postgres".to_owned())
        .spawn(move || {
            if let Ok(status) = child.wait() {
                report.send_replace(Some(status));
            }
        })
        .map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot start a thread: {error}")).with_source(error)
        })?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_indented_and_without_empty_ones() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "  b\n  c");
        assert_eq!(last_lines("a", 2), "  a");
    }
}
