//! A failover to a streaming replica: planned, unplanned, with and without the newest events. What
//! was read is exact, or the projection stops and says why.

mod node;
#[path = "../../crates/connect/tests/tls/process.rs"]
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::cluster::Cluster;
use highwater::internal::engine::{Engine, Settings};
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::Source;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::exactness::{Running, assert_exact, ledger_in_rust, ledger_in_sql, positions};
use crate::support::{append_rows, crash, eventually, one};
use node::{LIMIT, Node, either};

const LOG: &str = "select position from highwater.event order by 1";

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(1);
    settings.retry_delay_max = Duration::from_millis(200);
    settings
}

fn events(database: Database) -> TableSource {
    TableSource::new("default", database, None, EventTable::own())
}

/// Events and read model are both in whichever of the two is the primary.
fn together(one: &Node, other: &Node) -> Running {
    let source: Arc<dyn Source> = Arc::new(events(either(one, other)));
    Running::start(
        Engine::new(either(one, other), settings())
            .source(source)
            .projection(ledger_in_sql("in_sql")),
    )
}

/// The read model is in a database of another cluster.
fn apart(target: &TestDatabase, source: Database) -> Running {
    Running::start(
        Engine::new(target.pooled(), settings())
            .source(Arc::new(events(source).elsewhere()))
            .projection(ledger_in_rust("in_rust")),
    )
}

async fn applied(client: &Client, ledger: &str) -> Vec<i64> {
    let there = format!("select count(*) from pg_tables where schemaname = '{ledger}'");
    if positions(client, &there).await[0] == 0 {
        return Vec::new();
    }
    let sql = format!("select position from {ledger}.ledger order by applied");
    positions(client, &sql).await
}

async fn has_applied(client: &Client, ledger: &str, log: &[i64]) {
    eventually("the log is applied", LIMIT, async || {
        applied(client, ledger).await.len() >= log.len()
    })
    .await;
    assert_eq!(applied(client, ledger).await, log);
}

async fn drained(running: Running) {
    for (name, outcome) in &running.stop().await.outcomes {
        assert!(matches!(outcome, Outcome::Drained), "{name}: {outcome:?}");
    }
}

/// Appends one event after the other, wherever it can, until it is stopped. Returns the acknowledged
/// positions.
fn writer(url: String, stop: Arc<AtomicBool>) -> JoinHandle<Vec<i64>> {
    tokio::spawn(async move {
        let mut committed = Vec::new();
        let sql = "insert into highwater.event (stream, version, type, data)
                   values (gen_random_uuid()::text, 1, 'T', '{}') returning position";
        let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
            return committed;
        };
        tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) {
            match client.query_one(sql, &[]).await {
                Ok(row) => committed.push(row.get(0)),
                Err(_) => break,
            }
        }
        committed
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_loses_nothing_and_the_engine_resumes_by_itself() {
    let mut old = Node::primary().await;
    let new = old.replica().await;
    let running = together(&old, &new);
    append_rows(&old.client().await, "before", 1..=20).await;
    has_applied(&old.client().await, "in_sql", &(1..=20).collect::<Vec<_>>()).await;
    append_rows(&old.client().await, "just before", 1..=20).await;
    old.end(Signal::SIGINT);
    new.promote().await;
    let client = new.client().await;
    append_rows(&client, "after", 1..=5).await;
    let log = positions(&client, LOG).await;
    assert_eq!(log.len(), 45, "nothing was lost");
    has_applied(&client, "in_sql", &log).await;
    assert_exact(&client, "in_sql", &log).await;
    drained(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_with_a_synchronous_replica_loses_nothing_that_was_committed() {
    let mut old = Node::primary().await;
    let new = old.replica().await;
    let client = old.client().await;
    for sql in [
        "alter system set synchronous_standby_names = '*'",
        "select pg_reload_conf()",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    eventually("the replica is synchronous", LIMIT, async || {
        let sql = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        one::<i64>(&client, sql).await == 1
    })
    .await;
    let running = together(&old, &new);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4).map(|_| writer(old.url(), stop.clone())).collect();
    eventually("it is in full traffic", LIMIT, async || {
        applied(&client, "in_sql").await.len() > 100
    })
    .await;
    old.end(Signal::SIGKILL);
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    new.promote().await;
    let client = new.client().await;
    append_rows(&client, "after", 1..=5).await;
    let log = positions(&client, LOG).await;
    let lost: Vec<&i64> = acknowledged.iter().filter(|p| !log.contains(p)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    has_applied(&client, "in_sql", &log).await;
    assert_exact(&client, "in_sql", &log).await;
    drained(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_beside_the_log_go_back_with_it_to_a_replica_that_was_behind() {
    let mut old = Node::primary().await;
    let new = old.replica().await;
    let running = together(&old, &new);
    append_rows(&old.client().await, "before", 1..=20).await;
    has_applied(&old.client().await, "in_sql", &(1..=20).collect::<Vec<_>>()).await;
    new.catches_up_with(&old).await;
    new.fall_behind().await;
    append_rows(&old.client().await, "lost", 1..=20).await;
    has_applied(&old.client().await, "in_sql", &(1..=40).collect::<Vec<_>>()).await;
    old.end(Signal::SIGKILL);
    new.promote().await;
    let client = new.client().await;
    append_rows(&client, "after", 1..=5).await;
    let log = positions(&client, LOG).await;
    assert_eq!(log.len(), 25, "the replica was behind");
    has_applied(&client, "in_sql", &log).await;
    assert_exact(&client, "in_sql", &log).await;
    drained(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_elsewhere_is_diverged_from_a_replica_that_was_behind() {
    let target = TestDatabase::new().await;
    let beside = target.client().await;
    let mut old = Node::primary().await;
    let new = old.replica().await;
    let running = apart(&target, either(&old, &new));
    append_rows(&old.client().await, "before", 1..=20).await;
    new.catches_up_with(&old).await;
    new.fall_behind().await;
    append_rows(&old.client().await, "lost", 1..=5).await;
    has_applied(&beside, "in_rust", &(1..=25).collect::<Vec<_>>()).await;
    old.end(Signal::SIGKILL);
    new.promote().await;
    append_rows(&new.client().await, "after", 1..=50).await;
    let report = tokio::time::timeout(LIMIT, running.ended()).await;
    let report = report.expect("it stops");
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
    assert!(error.to_string().contains("at position 25"), "{error}");
    assert!(
        error.to_string().contains("highwater rebuild in_rust"),
        "{error}"
    );
    assert_eq!(applied(&beside, "in_rust").await.len(), 25, "nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_elsewhere_continues_after_a_failover_that_lost_nothing() {
    let target = TestDatabase::new().await;
    let beside = target.client().await;
    let mut old = Node::primary().await;
    let new = old.replica().await;
    let running = apart(&target, either(&old, &new));
    append_rows(&old.client().await, "before", 1..=20).await;
    has_applied(&beside, "in_rust", &(1..=20).collect::<Vec<_>>()).await;
    old.end(Signal::SIGINT);
    new.promote().await;
    let client = new.client().await;
    append_rows(&client, "after", 1..=5).await;
    has_applied(&beside, "in_rust", &positions(&client, LOG).await).await;
    drained(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_source_unless_it_is_the_middle_of_a_failover() {
    let target = TestDatabase::new().await;
    let beside = target.client().await;
    let mut primary = Node::primary().await;
    append_rows(&primary.client().await, "before", 1..=5).await;
    let replica = primary.replica().await;
    let at = |node: &Node| Database::new(Connector::parse(&node.url()).unwrap(), 8).unwrap();
    let ended = apart(&target, at(&replica)).ended();
    let report = tokio::time::timeout(LIMIT, ended).await;
    let report = report.expect("it stops");
    let error = report.outcomes[0].1.error().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    assert!(error.to_string().contains("is a replica"), "{error}");
    assert_eq!(applied(&beside, "in_rust").await, [0_i64; 0]);

    let running = apart(&target, at(&primary));
    has_applied(&beside, "in_rust", &[1, 2, 3, 4, 5]).await;
    primary.end(Signal::SIGINT);
    primary.start_as_replica().await;
    let sessions = "select count(*) from pg_stat_activity where application_name = 'highwater'";
    let client = primary.client().await;
    eventually("the engine is there again", LIMIT, async || {
        one::<i64>(&client, sessions).await > 0 || running.is_finished()
    })
    .await;
    assert!(!running.is_finished(), "it waits for the promotion");
    primary.promote().await;
    append_rows(&client, "after", 1..=5).await;
    has_applied(&beside, "in_rust", &positions(&client, LOG).await).await;
    drained(running).await;
}

/// Commits are answered before they are on disk, and stay in memory as long as they can.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_crash_undoes_was_not_applied_in_another_cluster() {
    let target = TestDatabase::new().await;
    let beside = target.client().await;
    let settings = [
        ("wal_writer_delay", "10s"),
        ("wal_writer_flush_after", "1GB"),
        ("synchronous_commit", "off"),
    ];
    let cluster = Cluster::temporary_with(&settings).await.unwrap();
    let url = cluster.url("highwater");
    let connect = async || {
        let mut opened = None;
        eventually("the server is back", LIMIT, async || {
            opened = tokio_postgres::connect(&url, NoTls).await.ok();
            opened.is_some()
        })
        .await;
        let (client, connection) = opened.unwrap();
        tokio::spawn(connection);
        client
    };
    highwater::internal::pg::migrate::migrate(&mut connect().await)
        .await
        .unwrap();
    let source = Database::new(Connector::parse(&url).unwrap(), 8).unwrap();
    let running = apart(&target, source);
    let mut taken_back = 0;
    for round in 1..=8 {
        let client = connect().await;
        let before = applied(&beside, "in_rust").await.len();
        append_rows(&client, &format!("settled {round}"), 1..=1).await;
        eventually("the projection goes on", LIMIT, async || {
            applied(&beside, "in_rust").await.len() > before || running.is_finished()
        })
        .await;
        append_rows(&client, &format!("in memory {round}"), 1..=3).await;
        let head: i64 = one(
            &client,
            "select coalesce(max(position), 0) from highwater.event",
        )
        .await;
        crash(&url).await;
        let client = connect().await;
        let left: i64 = one(
            &client,
            "select coalesce(max(position), 0) from highwater.event",
        )
        .await;
        taken_back += i64::from(left < head);
    }
    assert!(taken_back > 0, "no crash took anything back");
    let client = connect().await;
    append_rows(&client, "last", 1..=1).await;
    has_applied(&beside, "in_rust", &positions(&client, LOG).await).await;
    drained(running).await;
    cluster.stop().await.unwrap();
}
