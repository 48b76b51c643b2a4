//! Whether a server runs on a data directory: its pid file says where, a connection shows whether.
//!
//! A process id proves nothing: it may be a zombie's, or another program's by now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

/// How long a server may take to answer before it counts as busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The superuser that initdb makes.
pub(crate) const SUPERUSER: &str = "postgres";

/// No port is opened; it is a part of the socket's name.
pub(crate) const PORT: u16 = 5432;

/// The content of `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: i32,
    pub(crate) socket_dir: PathBuf,
    port: u16,
    ready: bool,
}

/// The state of a data directory's server.
#[derive(Debug)]
pub(crate) enum State {
    /// No server listens.
    Down,
    /// A server is there that does not accept connections now; the reason if it gave one.
    Busy(String),
    /// It serves this data directory.
    Up(Running),
}

/// A server that answered.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) socket_dir: PathBuf,
    pub(crate) version: String,
}

/// Asks the server of `data_dir`, if its pid file names one.
pub(crate) async fn state(data_dir: &Path) -> State {
    let Some(file) = read_pid_file(data_dir) else {
        return State::Down;
    };
    match tokio::time::timeout(ANSWER_LIMIT, identity(&file)).await {
        Err(_) => State::Busy("it does not answer".to_owned()),
        Ok(Err(error)) if nobody_listens(&error) => State::Down,
        Ok(Err(error)) => State::Busy(error.to_string()),
        Ok(Ok((served, version))) if is_same(&served, data_dir) => State::Up(Running {
            pid: file.pid,
            socket_dir: file.socket_dir,
            version,
        }),
        // Another cluster has the socket that this stale pid file names.
        Ok(Ok(_)) => State::Down,
    }
}

/// Whether the server that had this process id is gone. Its pid file is the last thing that it
/// removes; after a kill it stays, and no server listens.
pub(crate) async fn is_gone(data_dir: &Path, pid: i32) -> bool {
    match read_pid_file(data_dir) {
        Some(file) if file.pid == pid => matches!(state(data_dir).await, State::Down),
        _ => true,
    }
}

/// Whether the server says in its pid file that it takes connections.
pub(crate) fn says_ready(data_dir: &Path) -> bool {
    read_pid_file(data_dir).is_some_and(|file| file.ready)
}

async fn identity(file: &PidFile) -> Result<(PathBuf, String), tokio_postgres::Error> {
    let client = connect(&file.socket_dir, file.port, SUPERUSER).await?;
    let sql = "select current_setting('data_directory'), current_setting('server_version')";
    let row = client.query_one(sql, &[]).await?;
    let served: String = row.try_get(0)?;
    Ok((PathBuf::from(served), row.try_get(1)?))
}

/// Connects as the superuser; the connection ends with the client.
pub(crate) async fn connect(
    socket_dir: &Path,
    port: u16,
    database: &str,
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = Config::new()
        .host_path(socket_dir)
        .port(port)
        .user(SUPERUSER)
        .dbname(database)
        .application_name("highwater cluster")
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

fn nobody_listens(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            );
        }
        cause = inner.source();
    }
    false
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

fn read_pid_file(data_dir: &Path) -> Option<PidFile> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    parse_pid_file(&text)
}

/// The lines: pid, data directory, start time, port, socket directory, address, shared memory,
/// status. The server writes the later ones as it comes up.
fn parse_pid_file(text: &str) -> Option<PidFile> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pid: i32 = lines.first()?.parse().ok()?;
    let socket_dir = lines.get(4).filter(|line| !line.is_empty())?;
    Some(PidFile {
        // A negative number is a single-user server's, and a signal to it would reach a group.
        pid: (pid > 0).then_some(pid)?,
        socket_dir: PathBuf::from(socket_dir),
        port: lines.get(3)?.parse().ok()?,
        ready: lines.get(7) == Some(&"ready"),
    })
}

/// The directory of the program that runs a server, from the line it left when it started.
pub(crate) fn bin_dir_of(data_dir: &Path) -> Option<PathBuf> {
    let line = fs::read_to_string(data_dir.join("postmaster.opts")).ok()?;
    let (program, _) = line.split_once(" \"")?;
    Path::new(program).parent().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/data/pg15\n1700000000\n5432\n/run/sockets\n\n 123  456\nready   \n";

    #[test]
    fn a_pid_file_says_where_the_server_listens_and_that_it_is_ready() {
        let file = parse_pid_file(READY).unwrap();
        assert_eq!(file.socket_dir, Path::new("/run/sockets"));
        assert_eq!((file.pid, file.port, file.ready), (4711, 5432, true));
    }

    #[test]
    fn a_server_that_is_starting_is_not_ready() {
        let file = parse_pid_file(&READY.replace("ready   ", "starting")).unwrap();
        assert!(!file.ready);
    }

    #[test]
    fn a_pid_file_cut_short_or_of_a_single_user_server_names_nobody() {
        assert_eq!(parse_pid_file(""), None);
        assert_eq!(parse_pid_file("4711\n/data/pg15\n"), None);
        assert_eq!(parse_pid_file(&READY.replace("4711", "-4711")), None);
    }

    #[test]
    fn the_programs_of_a_running_server_are_where_its_options_file_says() {
        let data = tempfile::tempdir().unwrap();
        let line = "/opt/my pg/bin/postgres \"-D\" \"/data/pg15\"\n";
        fs::write(data.path().join("postmaster.opts"), line).unwrap();
        assert_eq!(bin_dir_of(data.path()), Some("/opt/my pg/bin".into()));
    }
}
