//! A pgbouncer in transaction mode between an engine and its server, as an old one is: it knows no
//! prepared statements, and each transaction gets another session of the server.

use std::env;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, geteuid};
use tempfile::TempDir;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;

use super::eventually;

/// Names the program where it is not on the PATH.
const VARIABLE: &str = "HIGHWATER_PGBOUNCER";

/// A running pgbouncer. It ends when it is dropped.
pub(crate) struct Pooler {
    process: Child,
    port: u16,
    database: String,
    _directory: TempDir,
}

impl Pooler {
    /// In front of the database of this URL. None, and it says so, if pgbouncer is not installed.
    pub(crate) async fn start(url: &str) -> Option<Pooler> {
        let Some(program) = program() else {
            // Straight to stderr: what a test prints is shown only if it fails.
            let skipped = format!(
                "\nSKIPPED: pgbouncer is not installed (apt-get install pgbouncer, or set {VARIABLE})\n"
            );
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            return None;
        };
        // What the engine asks for in the options of a session, which this pooler leaves out.
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let hides_nothing = "do $$ begin
            execute format('alter database %I set row_security = off', current_database()); end $$";
        client.batch_execute(hides_nothing).await.unwrap();
        let port = free_port();
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, configuration(url, port)).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&file).current_dir("/");
        command.stdin(Stdio::null()).stderr(Stdio::null());
        // It does not run as root, and the server's socket is for the server's account only.
        if geteuid().is_root() {
            let user = ["postgres", "nobody"].map(|name| User::from_name(name).unwrap());
            let user = user.into_iter().flatten().next().unwrap();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let config: tokio_postgres::Config = url.parse().unwrap();
        let pooler = Pooler {
            process: command.spawn().unwrap(),
            port,
            database: config.get_dbname().unwrap().to_owned(),
            _directory: directory,
        };
        let limit = crate::support::PATIENCE;
        eventually("pgbouncer lets us through", limit, async || {
            tokio_postgres::connect(&pooler.url(), NoTls).await.is_ok()
        })
        .await;
        Some(pooler)
    }

    /// The database through it.
    pub(crate) fn url(&self) -> String {
        format!(
            "postgresql://pooled@127.0.0.1:{}/{}?sslmode=disable",
            self.port, self.database
        )
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on, for now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn program() -> Option<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut programs = directories.map(|directory| directory.join("pgbouncer"));
    programs.find(|program| program.is_file())
}

fn configuration(url: &str, port: u16) -> String {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let host = match &config.get_hosts()[0] {
        Host::Unix(directory) => directory.display().to_string(),
        Host::Tcp(host) => host.clone(),
    };
    let password = config.get_password().map_or_else(String::new, |password| {
        format!(" password={}", String::from_utf8_lossy(password))
    });
    format!(
        "[databases]\n* = host={host} port={server} user={user}{password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = 12\nmax_client_conn = 200\n\
         server_round_robin = 1\nignore_startup_parameters = options\nserver_reset_query =\nserver_idle_timeout = 5\n",
        server = config.get_ports().first().unwrap_or(&5432),
        user = config.get_user().unwrap(),
    )
}
