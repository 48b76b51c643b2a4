//! A running cluster, and how to get one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::error::{Error, ErrorKind, Result};
use crate::locate::Binaries;
use crate::probe::Running;
use crate::running::Found;
use crate::server::{LOOK_AGAIN, START_LIMIT, Supervisor};
use crate::{place, probe, running, start};

/// The database that every cluster has, empty at first.
pub const DATABASE: &str = "highwater";

/// The variable that names another directory for the data of all projects' clusters.
const HOME_VARIABLE: &str = "HIGHWATER_HOME";
/// How often an adopted server is polled.
const ADOPTED_LOOK: Duration = Duration::from_millis(500);

/// A running private PostgreSQL, started by this process or shared with the one that did.
///
/// Dropping an owner's cluster brings the server down, but does not wait; [`Cluster::stop`] does.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) binaries: Binaries,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) server_pid: i32,
    /// None: another process owns it.
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) scratch: Option<PathBuf>,
}

impl Cluster {
    /// Starts a new cluster in a temporary directory, which is removed with it.
    pub async fn temporary() -> Result<Cluster> {
        Cluster::temporary_with(&[]).await
    }

    /// Starts a temporary cluster with these server settings.
    pub async fn temporary_with(settings: &[(&str, &str)]) -> Result<Cluster> {
        let (launch, root) = start::temporary(settings).await?;
        let cluster = start::own(&launch).await?;
        // From here on the supervisor removes it.
        let _ = root.keep();
        Ok(cluster)
    }

    /// The cluster of a project: adopts the one that runs, or starts it.
    pub async fn for_project(project_dir: &Path) -> Result<Cluster> {
        Cluster::for_project_in(&home()?, project_dir).await
    }

    /// Like [`Cluster::for_project`], with the data below `home` instead of the user's data
    /// directory.
    pub async fn for_project_in(home: &Path, project_dir: &Path) -> Result<Cluster> {
        let root = place::project_root(home, project_dir)?;
        let limit = Instant::now() + START_LIMIT;
        loop {
            let why = match running::find(&root).await {
                Found::Up(data_dir, running) => {
                    match start::make_database(&running.socket_dir).await {
                        Ok(()) => return adopt(data_dir, running),
                        // It went down between the two.
                        Err(error) if error.kind() == ErrorKind::Lost => error.to_string(),
                        Err(error) => return Err(error),
                    }
                }
                Found::Busy(why) => why,
                Found::Nothing => match start::project(&root).await? {
                    Some(cluster) => return Ok(cluster),
                    None => "it is starting or stopping".to_owned(),
                },
            };
            if Instant::now() > limit {
                return Err(running::unsettled(&root, &why));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The cluster of a project if it runs now, whichever process owns it; never starts one.
    pub async fn running_for_project(project_dir: &Path) -> Result<Option<Cluster>> {
        Cluster::running_for_project_in(&home()?, project_dir).await
    }

    /// Like [`Cluster::running_for_project`], with the data below `home`.
    pub async fn running_for_project_in(
        home: &Path,
        project_dir: &Path,
    ) -> Result<Option<Cluster>> {
        let root = place::project_root(home, project_dir)?;
        match running::settled(&root).await? {
            Some((data_dir, running)) => {
                // Its owner may have got no further than the server.
                start::make_database(&running.socket_dir).await?;
                adopt(data_dir, running).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Stops the server of a project, even if another process owns it, and waits until it is down.
    /// False if none ran.
    pub async fn stop_running(project_dir: &Path) -> Result<bool> {
        Cluster::stop_running_in(&home()?, project_dir).await
    }

    /// Like [`Cluster::stop_running`], with the data below `home`.
    pub async fn stop_running_in(home: &Path, project_dir: &Path) -> Result<bool> {
        let root = place::project_root(home, project_dir)?;
        let Some((data_dir, running)) = running::settled(&root).await? else {
            return Ok(false);
        };
        running::stop(&data_dir, running.pid).await?;
        Ok(true)
    }

    /// A URL of this database, for every PostgreSQL client.
    pub fn url(&self, database: &str) -> String {
        format!(
            // The port too: a PGPORT of the user's is about another server.
            "postgresql://{}@/{}?host={}&port={}",
            probe::SUPERUSER,
            percent_encoded(database),
            percent_encoded(&self.socket_dir.to_string_lossy()),
            probe::PORT
        )
    }

    /// The directory of the server's socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The directory of the server's programs.
    pub fn bin_dir(&self) -> &Path {
        self.binaries.bin_dir()
    }

    /// The server's major version and the full one: `(15, "15.18")`.
    pub fn version(&self) -> (u32, String) {
        self.binaries.version()
    }

    /// Whether this process started the server, so that it ends with it.
    pub fn is_owner(&self) -> bool {
        self.supervisor.is_some()
    }

    /// The line for stderr that says what this database is.
    pub fn notice(&self) -> String {
        format!(
            "embedded PostgreSQL {} in {} (development only; set DATABASE_URL for production)",
            self.binaries.full(),
            self.data_dir.display()
        )
    }

    /// Waits until the server is down, even if another process stopped it. An adopted one ends with
    /// its owner, and is polled every half second.
    pub async fn ended(&self) {
        if let Some(supervisor) = &self.supervisor {
            return supervisor.ended().await;
        }
        while !probe::is_gone(&self.data_dir, self.server_pid).await {
            tokio::time::sleep(ADOPTED_LOOK).await;
        }
    }

    /// Stops the server and waits until it is down, and a temporary cluster's directory is gone. An
    /// adopted server keeps running.
    pub async fn stop(mut self) -> Result<()> {
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        supervisor.stop().await?;
        // Usually it is by now; not if the supervisor was killed alone.
        running::wait_until_gone(&self.data_dir, self.server_pid).await?;
        match &self.scratch {
            Some(scratch) => remove_rest(scratch),
            None => Ok(()),
        }
    }
}

/// `HIGHWATER_HOME`, or the directory for this user's data.
fn home() -> Result<PathBuf> {
    match std::env::var_os(HOME_VARIABLE).filter(|home| !home.is_empty()) {
        None => place::home_of(&Account::for_server()?),
        Some(home) => std::path::absolute(home).map_err(|error| {
            Error::new(
                ErrorKind::Io,
                format!("cannot find the current directory: {error}"),
            )
            .with_location(HOME_VARIABLE)
        }),
    }
}

/// The supervisor removed it, unless its account may not write in the directory above.
fn remove_rest(scratch: &Path) -> Result<()> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(place::io_error(
            "cannot remove the temporary directory",
            scratch,
            error,
        )),
        _ => Ok(()),
    }
}

fn adopt(data_dir: PathBuf, running: Running) -> Result<Cluster> {
    let bin_dir = match probe::bin_dir_of(&data_dir) {
        Some(bin_dir) => bin_dir,
        None => Binaries::locate()?.bin_dir().to_owned(),
    };
    Ok(Cluster {
        binaries: Binaries::of_running(bin_dir, &running.version),
        data_dir,
        socket_dir: running.socket_dir,
        server_pid: running.pid,
        supervisor: None,
        scratch: None,
    })
}

/// Everything but what a URL never needs to escape.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_socket_so_that_the_driver_finds_it() {
        let cluster = Cluster {
            binaries: Binaries::of_running("/bin".into(), "15.18 (Debian)"),
            data_dir: "/data".into(),
            socket_dir: "/tmp/a b/%".into(),
            server_pid: 1,
            supervisor: None,
            scratch: None,
        };
        let url = cluster.url("my shop");
        assert_eq!(
            url,
            "postgresql://postgres@/my%20shop?host=%2Ftmp%2Fa%20b%2F%25&port=5432"
        );
        let config: tokio_postgres::Config = url.parse().unwrap();
        assert_eq!(config.get_dbname(), Some("my shop"));
        let host = tokio_postgres::config::Host::Unix("/tmp/a b/%".into());
        assert_eq!(config.get_hosts(), [host]);
        assert!(
            cluster
                .notice()
                .starts_with("embedded PostgreSQL 15.18 in /data (")
        );
    }
}
