//! Starting a server: what to start and where, the start itself, the default database.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::locate::Binaries;
use crate::place::{self, Place};
use crate::running::Found;
use crate::server::{LOOK_AGAIN, Launch};
use crate::{probe, running};

/// How long the processes of a killed server may take to notice.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(10);

/// Makes a temporary cluster's directory and finds what will run in it.
pub(crate) async fn temporary(settings: &[(&str, &str)]) -> Result<(Launch, TempDir)> {
    let settings = owned(settings);
    blocking(move || {
        let binaries = Binaries::locate()?;
        let account = Account::for_server()?;
        account.reaches(&binaries.bin_dir().join("postgres"))?;
        let root = place::temporary_root(&account)?;
        let place = Place::new(root.path().to_owned(), "data", &account)?;
        let launch = Launch {
            binaries,
            account,
            place,
            lock: None,
            scratch: Some(root.path().to_owned()),
            settings,
        };
        Ok((launch, root))
    })
    .await
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Starts a project's server, or gives `None` if another process holds the lock.
pub(crate) async fn project(root: &Path) -> Result<Option<Cluster>> {
    let owned_root = root.to_owned();
    let Some(launch) = blocking(move || prepare(owned_root)).await? else {
        return Ok(None);
    };
    // The answer from before the lock is too old to remove a pid file on.
    if !matches!(running::find(root).await, Found::Nothing) {
        return Ok(None);
    }
    let stale = launch.place.clear_stale()?;
    let limit = Instant::now() + LEFTOVER_LIMIT;
    loop {
        let error = match own(&launch).await {
            Ok(cluster) => return Ok(Some(cluster)),
            Err(error) => error,
        };
        // After a kill, the sessions of the dead server still hold its memory for a moment.
        if !stale || Instant::now() > limit {
            return Err(error);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Takes the lock and finds the programs; `None` if another process has the lock.
fn prepare(root: PathBuf) -> Result<Option<Launch>> {
    let account = Account::for_server()?;
    // The way to it only: another process may have made the directory and not handed it over yet.
    account.reaches(&root)?;
    place::make_private(&root, &account)?;
    let lock = place::open_lock(&root)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => {
            return Err(place::io_error("cannot lock", &root.join("lock"), error));
        }
    }
    let binaries = programs_for(&root)?;
    account.reaches(&binaries.bin_dir().join("postgres"))?;
    let place = Place::new(root, &format!("pg{}", binaries.major()), &account)?;
    Ok(Some(Launch {
        binaries,
        account,
        place,
        lock: Some(lock),
        scratch: None,
        settings: Vec::new(),
    }))
}

/// A data directory belongs to its major version: with another one, the project would seem empty.
fn programs_for(root: &Path) -> Result<Binaries> {
    let usual = Binaries::locate()?;
    let used = running::data_dirs(root);
    if used.is_empty() || used.iter().any(|(major, _)| *major == usual.major()) {
        return Ok(usual);
    }
    for (major, _) in &used {
        if let Some(binaries) = Binaries::locate_major(*major)? {
            return Ok(binaries);
        }
    }
    let (major, data_dir) = &used[0];
    Err(Error::new(
        ErrorKind::Setup,
        format!(
            "this project's data belongs to PostgreSQL {major}, but this machine has {}",
            usual.full()
        ),
    )
    .with_location(data_dir.display().to_string())
    .with_hint(format!(
        "install PostgreSQL {major}, set HIGHWATER_PG_BINDIR to its programs, or move the \
         directory away and start over"
    )))
}

/// Starts the server and waits until it serves the default database.
pub(crate) async fn own(launch: &Launch) -> Result<Cluster> {
    let supervisor = launch.supervisor()?;
    let running = launch.ready(&supervisor).await?;
    make_database(&launch.place.socket_dir).await?;
    Ok(Cluster {
        binaries: launch.binaries.clone(),
        data_dir: launch.place.data_dir.clone(),
        socket_dir: running.socket_dir,
        server_pid: running.pid,
        supervisor: Some(supervisor),
        scratch: launch.scratch.clone(),
    })
}

pub(crate) async fn make_database(socket_dir: &Path) -> Result<()> {
    let doing = "cannot create the database highwater";
    let client = probe::connect(socket_dir, probe::PORT, "postgres")
        .await
        .map_err(|error| refusal(doing, error))?;
    let exists = "select 1 from pg_database where datname = 'highwater'";
    let is_there = async || match client.query_opt(exists, &[]).await {
        Ok(row) => Ok(row.is_some()),
        Err(error) => Err(refusal(doing, error)),
    };
    if is_there().await? {
        return Ok(());
    }
    match client.batch_execute("create database highwater").await {
        // The owner and an adopter may both come here.
        Err(error) if !is_there().await? => Err(refusal(doing, error)),
        _ => Ok(()),
    }
}

/// The server's own words; without any, the connection was lost.
fn refusal(doing: &str, error: tokio_postgres::Error) -> Error {
    let (kind, said) = match error.as_db_error() {
        // 57 is a server that goes or comes.
        Some(db) if db.code().code().starts_with("57") => {
            (ErrorKind::Lost, db.message().to_owned())
        }
        Some(db) => (ErrorKind::Failed, db.message().to_owned()),
        None => (ErrorKind::Lost, causes(&error)),
    };
    Error::new(kind, format!("{doing}: {said}")).with_source(error)
}

/// The driver does not say what its cause says.
fn causes(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Programs are run and files are made here, which the runtime's own threads must not wait for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "starting PostgreSQL was interrupted").with_source(error)
    })?
}
