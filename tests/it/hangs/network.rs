//! The network and the processes at its ends.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use highwater::cluster::Cluster;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{Projection, RustProjection};
use highwater::internal::source::Batch;
use highwater::testing::TestDatabase;
use highwater::{BoxError, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::config::Host;

use super::{LIMIT, are_exact, connect, engine, is_live, is_retrying, settings};
use crate::exactness::{LEDGER, Running, Storm, ledger_in_rust, ledger_in_sql, positions};
use crate::support::proxy::{Mode, Proxy, Upstream};
use crate::support::{append_rows, eventually, one, sql_projection};

/// A proxy before the server of a URL, and the URL that leads through it.
async fn proxied(url: &str) -> (Proxy, String) {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let upstream = match config.get_hosts().first() {
        Some(Host::Unix(path)) => Upstream::Socket(path.join(format!(".s.PGSQL.{port}"))),
        other => panic!("no socket: {other:?}"),
    };
    let proxy = Proxy::start(upstream).await.unwrap();
    let through = format!(
        "postgresql://{}@{}/{}?sslmode=disable&connect_timeout=2",
        config.get_user().unwrap(),
        proxy.address(),
        config.get_dbname().unwrap()
    );
    (proxy, through)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_silent_cut_or_refused_are_given_up_and_opened_again() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let (proxy, url) = proxied(database.url()).await;
    let engine = engine(&url)
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    let storm = Storm::start(database.url(), 10).await;
    let sum = "select coalesce(sum(position), 0)::bigint from highwater.checkpoint";
    for round in 0..3 {
        let before = positions(&client, sum).await[0];
        eventually("the engine goes on", LIMIT, async || {
            positions(&client, sum).await[0] > before + 50
        })
        .await;
        // A batch that was sent whole before its connection was cut is applied without one.
        eventually("it goes through the proxy", LIMIT, async || {
            proxy.connections() > 0
        })
        .await;
        match round {
            0 => {
                proxy.set(Mode::Freeze);
                is_retrying(&monitor, "").await;
                is_retrying(&monitor, "answer").await;
            }
            1 => {
                proxy.set(Mode::Refuse);
                proxy.cut();
                is_retrying(&monitor, "").await;
            }
            _ => proxy.cut(),
        }
        proxy.set(Mode::Pass);
    }
    storm.stop().await;
    are_exact(&client, &["in_sql", "in_rust"]).await;
    is_live(&monitor).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_while_a_read_model_is_made_is_given_up() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    let (proxy, url) = proxied(database.url()).await;
    let engine = engine(&url).projection(ledger_in_sql("in_sql"));
    let monitor = engine.monitor();
    // Its making waits for this, and is silenced there.
    let holder = connect(database.url()).await;
    let lock = "begin; lock table highwater.projection in share mode";
    holder.batch_execute(lock).await.unwrap();
    let running = Running::start(engine);
    let waiting = "select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and datname = current_database()";
    eventually("the read model is being made", LIMIT, async || {
        one::<i64>(&client, waiting).await == 1
    })
    .await;
    proxy.set(Mode::Freeze);
    is_retrying(&monitor, "the read model was not created within 3s").await;
    holder.batch_execute("rollback").await.unwrap();
    proxy.set(Mode::Pass);
    are_exact(&client, &["in_sql"]).await;
    running.stop().await;
}

/// Every process of a server, stopped; they continue when this is dropped.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn server(cluster: &Cluster) -> Stopped {
        let file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
        let postmaster = Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
        // The first cannot start further ones while the others are looked for.
        kill(postmaster, Signal::SIGSTOP).unwrap();
        let mut all = vec![postmaster];
        all.extend(children(postmaster));
        Stopped::all(all)
    }

    fn all(pids: Vec<Pid>) -> Stopped {
        for pid in &pids {
            // One may have ended meanwhile.
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        Stopped(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

fn children(of: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in parentheses: the state, then the parent.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&of.to_string())
    })
    .map(Pid::from_raw)
    .collect()
}

/// Runs `highwater status` on a URL, with short limits.
async fn status(url: &str, json: bool) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("highwater.toml");
    std::fs::write(&file, "[engine]\nanswer_timeout = \"1s\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["status", "--database-url", url, "--config"]);
    command.arg(&file);
    if json {
        command.arg("--json");
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(LIMIT, output).await;
    output.expect("status answers").unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_as_a_whole_is_waited_for() {
    let cluster = Cluster::temporary_with(&[("fsync", "off")]).await.unwrap();
    let url = cluster.url("highwater");
    let mut client = connect(&url).await;
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    let engine = engine(&format!("{url}&connect_timeout=2"))
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    is_live(&monitor).await;
    let storm = Storm::start(&url, 10).await;
    let sum = "select coalesce(sum(position), 0)::bigint from highwater.checkpoint";
    for _ in 0..2 {
        let before = positions(&client, sum).await[0];
        eventually("the engine goes on", LIMIT, async || {
            positions(&client, sum).await[0] > before + 50
        })
        .await;
        let stopped = Stopped::server(&cluster);
        is_retrying(&monitor, "").await;
        is_retrying(&monitor, "answer").await;
        let output = status(&format!("{url}&connect_timeout=2"), false).await;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("no answer within 2 s"), "{said}");
        drop(stopped);
    }
    storm.stop().await;
    are_exact(&client, &["in_sql", "in_rust"]).await;
    is_live(&monitor).await;
    running.stop().await;
    cluster.stop().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn one_process_of_the_server_that_is_stopped_in_a_batch_is_left_behind() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let text = format!(
        "-- highwater: up\n{};\n-- highwater: apply\nselect pg_sleep(0.5) from batch limit 1;
         insert into ledger (position, stream, version)
         select position, stream, version from batch order by position;\n",
        LEDGER
    );
    let engine = engine(database.url()).projection(sql_projection("slow", &text));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    is_live(&monitor).await;
    append_rows(&client, "s", 1..=100).await;
    let applying = "select pid::bigint from pg_stat_activity
        where application_name = 'highwater:slow:1:0' and datname = current_database()
          and wait_event = 'PgSleep'";
    let mut pids = Vec::new();
    eventually("a batch is in flight", LIMIT, async || {
        pids = positions(&client, applying).await;
        !pids.is_empty()
    })
    .await;
    let pid = Pid::from_raw(i32::try_from(pids[0]).unwrap());
    let stopped = Stopped::all(vec![pid]);
    assert!(settings().batch_timeout < LIMIT);
    is_retrying(&monitor, "could not be cancelled").await;
    // The row of the checkpoint is still locked in there.
    is_retrying(&monitor, "did not answer a short statement").await;
    drop(stopped);
    are_exact(&client, &["slow"]).await;
    let left = "select count(*) from pg_stat_activity where pid = $1";
    eventually("nobody is left in the server", LIMIT, async || {
        let row = client.query_one(left, &[&pid.as_raw()]).await.unwrap();
        row.get::<_, i64>(0) == 0
    })
    .await;
    running.stop().await;
    assert_eq!(
        one::<i64>(&client, "select count(*) from slow.ledger").await,
        100
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_within_its_limit_that_a_connection_is_half_open() {
    let database = TestDatabase::new().await;
    let (proxy, url) = proxied(database.url()).await;
    let output = status(&url, true).await;
    assert!(output.status.success(), "{output:?}");
    proxy.set(Mode::Freeze);
    let output = status(&url, true).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // A table of highwater's own that somebody has locked.
    proxy.set(Mode::Pass);
    let client = database.client().await;
    let lock = "begin; lock table highwater.checkpoint in access exclusive mode";
    client.batch_execute(lock).await.unwrap();
    let output = status(&url, false).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("did not answer a short statement within 1s"),
        "{said}"
    );
}

/// Code that says nothing to the server for 20 ms an event.
struct Silent;

impl Projection for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn up(&self) -> &str {
        LEDGER
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        let events = u32::try_from(batch.events.len()).unwrap();
        tokio::time::sleep(Duration::from_millis(20) * events).await;
        for event in &batch.events {
            let sql = "insert into ledger (position, stream, version) values ($1, $2, $3)";
            tx.execute(sql, &[&event.position.get(), &event.stream, &event.version])
                .await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_silent_for_longer_than_a_lease_is_given_less() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=100).await;
    let silent = Arc::new(RustProjection::new(Silent).unwrap());
    let engine = engine(database.url()).projection(silent);
    let monitor = engine.monitor();
    let running = Running::start(engine);
    is_retrying(&monitor, "raise the lease").await;
    are_exact(&client, &["silent"]).await;
    running.stop().await;
}
