//! Running servers: finds them, and stops one that another process owns.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::error::{Error, ErrorKind, Result};
use crate::place;
use crate::probe::{self, Running, State};
use crate::server::{LOOK_AGAIN, STOP_LIMIT};

/// A project's live server and the data directory it serves, or why there is none.
pub(crate) enum Found {
    Up(PathBuf, Running),
    /// A server is there that accepts no connections now.
    Busy(String),
    Nothing,
}

/// Looks for a live server on any of a project's data directories.
pub(crate) async fn find(root: &Path) -> Found {
    let mut found = Found::Nothing;
    for (_, data_dir) in data_dirs(root) {
        match probe::state(&data_dir).await {
            State::Up(running) => return Found::Up(data_dir, running),
            State::Busy(why) => found = Found::Busy(why),
            State::Down => {}
        }
    }
    found
}

/// The data directories of a project, one for each major version that was used, the newest first.
pub(crate) fn data_dirs(root: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let major = entry
                .file_name()
                .to_str()?
                .strip_prefix("pg")?
                .parse()
                .ok()?;
            Some((major, entry.path()))
        })
        .filter(|(_, dir)| dir.join("PG_VERSION").is_file())
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found
}

/// Waits while a server is starting or stopping; `None` if there is none in the end.
pub(crate) async fn settled(root: &Path) -> Result<Option<(PathBuf, Running)>> {
    let limit = Instant::now() + STOP_LIMIT;
    loop {
        match find(root).await {
            Found::Up(data_dir, running) => return Ok(Some((data_dir, running))),
            // No server answers, but a process holds the lock: the server is starting or stopping.
            Found::Nothing if !is_locked(root) => return Ok(None),
            Found::Nothing if Instant::now() > limit => {
                return Err(unsettled(root, "it is starting"));
            }
            Found::Busy(why) if Instant::now() > limit => return Err(unsettled(root, &why)),
            Found::Nothing | Found::Busy(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

fn is_locked(root: &Path) -> bool {
    let Ok(lock) = place::open_lock(root) else {
        return false;
    };
    matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

pub(crate) fn unsettled(root: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::TimedOut,
        format!(
            "another process runs this project's PostgreSQL, but it accepts no connections: {why}"
        ),
    )
    .with_location(root.display().to_string())
    .with_hint(
        "see the log beside the data directory, and end the process whose id is in postmaster.pid",
    )
}

/// Stops the server by a fast shutdown and waits until it is down. It answered the caller that it
/// serves `data_dir`, so the process id in its pid file is its own.
pub(crate) async fn stop(data_dir: &Path, pid: i32) -> Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|error| {
        Error::new(
            ErrorKind::Io,
            format!("cannot stop PostgreSQL (process {pid}): {error}"),
        )
        .with_location(data_dir.display().to_string())
        .with_hint("run this as the user that started it")
        .with_source(error)
    })?;
    wait_until_gone(data_dir, pid).await
}

/// Waits until the server that had this process id is down; a new one may be up by then.
pub(crate) async fn wait_until_gone(data_dir: &Path, pid: i32) -> Result<()> {
    let limit = Instant::now() + STOP_LIMIT;
    while !probe::is_gone(data_dir, pid).await {
        if Instant::now() > limit {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("PostgreSQL did not stop within {} s", STOP_LIMIT.as_secs()),
            )
            .with_location(data_dir.display().to_string())
            .with_hint("it is still stopping by itself; its log is beside the data directory"));
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
