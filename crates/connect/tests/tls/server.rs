//! A PostgreSQL of the test's own, on a free port and with the certificate it asks for.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use highwater_connect::Connector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::Pair;
use super::process::{as_server, free_port, give, run};

/// Longer than any step takes, on a machine busy with other things.
const LIMIT: Duration = Duration::from_secs(300);

/// Between two looks: often enough, and the processor is left to the server.
const LOOK: Duration = Duration::from_millis(5);

const RULES: &str = "\
local all all trust
hostssl all only_tls all trust
host all only_tls all reject
hostnossl all only_plain all trust
host all only_plain all reject
host all secret all scram-sha-256
";

pub(super) struct Server {
    pub(super) port: u16,
    process: Child,
    directory: TempDir,
}

impl Server {
    pub(super) fn plain() -> Server {
        let mut server = Server::starting();
        server.wait_ready();
        server
    }

    /// One that was told to start and may not answer yet.
    pub(super) fn starting() -> Server {
        Server::start(&[], "host all all all trust\n")
    }

    /// With `clients`, it wants a certificate that this authority signed from everybody.
    pub(super) fn with_tls(pair: &Pair, clients: Option<&str>) -> Server {
        let mut files = vec![
            ("server.crt", pair.certificate.as_str()),
            ("server.key", pair.key.as_str()),
        ];
        files.extend(clients.map(|root| ("clients.crt", root)));
        let rule = match clients {
            None => "host all all all trust\n",
            Some(_) => "hostssl all all all trust clientcert=verify-ca\n",
        };
        let mut server = Server::start(&files, rule);
        server.wait_ready();
        server
    }

    fn start(files: &[(&str, &str)], rule: &str) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        give(directory.path(), 0o700);
        run(as_server("initdb")
            .args(["--auth=trust", "--no-sync", "-U", "postgres", "-D"])
            .arg(&data));
        let mut settings = String::from("fsync = off\nlisten_addresses = '127.0.0.1'\n");
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
            give(&data.join(name), 0o600);
            settings.push_str(match *name {
                "server.crt" => "ssl = on\n",
                "clients.crt" => "ssl_ca_file = 'clients.crt'\n",
                _ => "",
            });
        }
        fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        fs::write(data.join("pg_hba.conf"), format!("{RULES}{rule}")).unwrap();
        let port = free_port();
        let process = as_server("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k"])
            .arg(directory.path())
            .spawn()
            .unwrap();
        Server {
            port,
            process,
            directory,
        }
    }

    fn wait_ready(&mut self) {
        let data = self.directory.path().join("data");
        let end = Instant::now() + LIMIT;
        let is_ready = || {
            let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            text.lines()
                .nth(7)
                .is_some_and(|line| line.trim() == "ready")
        };
        while !is_ready() {
            assert!(
                self.process.try_wait().unwrap().is_none(),
                "the server ended"
            );
            assert!(Instant::now() < end, "the server does not start");
            std::thread::park_timeout(LOOK);
        }
    }

    /// A connector through the server's socket.
    pub(super) fn socket(&self, rest: &str) -> Connector {
        let (host, port) = (self.directory.path().display(), self.port);
        let url = format!("postgresql://postgres@/postgres?host={host}&port={port}&{rest}");
        Connector::parse(&url).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT ends the sessions too; the wait lets the directory go only after the server.
        let pid = i32::try_from(self.process.id()).map(Pid::from_raw);
        if pid.is_ok_and(|pid| kill(pid, Signal::SIGINT).is_ok()) {
            let _ = self.process.wait();
        }
    }
}

/// Looks until it holds, within a limit.
pub(super) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < end, "it does not come about");
        tokio::task::yield_now().await;
    }
}
