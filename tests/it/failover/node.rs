//! A primary and its streaming replica, each a server of the test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::process::{as_server, free_port, give, run};
use crate::support::eventually;

pub(super) const LIMIT: Duration = crate::support::PATIENCE;

const SETTINGS: &str = "fsync = off\nlisten_addresses = '127.0.0.1'\nwal_level = replica\n\
    max_wal_senders = 8\nmax_connections = 60\nwal_receiver_timeout = 5s\n\
    wal_retrieve_retry_interval = 100ms\n";

pub(super) struct Node {
    port: u16,
    directory: TempDir,
    process: Option<Child>,
}

impl Node {
    fn empty() -> Node {
        let directory = tempfile::tempdir().unwrap();
        give(directory.path(), 0o700);
        Node {
            port: free_port(),
            directory,
            process: None,
        }
    }

    /// With highwater's schema in its database.
    pub(super) async fn primary() -> Node {
        let mut node = Node::empty();
        run(as_server("initdb")
            .args(["--auth=trust", "--no-sync", "-U", "postgres", "-D"])
            .arg(node.data()));
        fs::write(node.data().join("postgresql.auto.conf"), SETTINGS).unwrap();
        let rules = "local all all trust\nhost all all all trust\nhost replication all all trust\n";
        fs::write(node.data().join("pg_hba.conf"), rules).unwrap();
        node.start().await;
        highwater::internal::pg::migrate::migrate(&mut node.client().await)
            .await
            .unwrap();
        node
    }

    /// A copy that streams what comes; it has everything that is there now.
    pub(super) async fn replica(&self) -> Node {
        let mut node = Node::empty();
        run(as_server("pg_basebackup")
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(self.port.to_string())
            .args(["-c", "fast", "-X", "stream", "-R", "-D"])
            .arg(node.data()));
        node.start().await;
        node
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(super) async fn start(&mut self) {
        let process = as_server("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.directory.path())
            .spawn();
        self.process = Some(process.unwrap());
        let url = self.url();
        eventually("the server answers", LIMIT, async || {
            tokio_postgres::connect(&url, NoTls).await.is_ok()
        })
        .await;
    }

    /// As a replica of nobody, which is how a primary looks that was taken out of service.
    pub(super) async fn start_as_replica(&mut self) {
        let signal = self.data().join("standby.signal");
        fs::write(&signal, "").unwrap();
        give(&signal, 0o600);
        self.start().await;
    }

    /// SIGINT: a clean end, after which replicas have everything. SIGKILL: no end at all.
    pub(super) fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
        kill(pid, signal).unwrap();
        process.wait().unwrap();
    }

    pub(super) fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(super) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(super) async fn promote(&self) {
        let sql = "select pg_promote(true, 60)";
        let done: bool = self
            .client()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0);
        assert!(done, "not promoted");
    }

    /// It receives nothing more.
    pub(super) async fn fall_behind(&self) {
        let client = self.client().await;
        for sql in [
            "alter system set primary_conninfo = ''",
            "select pg_reload_conf()",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        eventually("it receives nothing", LIMIT, async || {
            let sql = "select count(*) from pg_stat_wal_receiver";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }

    /// It has replayed all that `primary` has.
    pub(super) async fn catches_up_with(&self, primary: &Node) {
        let written = "select pg_current_wal_lsn()::text";
        let written: String = primary
            .client()
            .await
            .query_one(written, &[])
            .await
            .unwrap()
            .get(0);
        let client = self.client().await;
        let sql = format!("select pg_last_wal_replay_lsn() >= '{written}'");
        eventually("it has replayed everything", LIMIT, async || {
            client.query_one(&sql, &[]).await.unwrap().get(0)
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(Signal::SIGINT);
    }
}

/// Whichever of the two is the primary.
pub(super) fn either(one: &Node, other: &Node) -> Database {
    let text = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres \
         target_session_attrs=read-write",
        one.port, other.port
    );
    Database::new(Connector::parse(&text).unwrap(), 8).unwrap()
}
