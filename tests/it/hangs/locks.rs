//! Locks that others hold: on the read model, on the event table, on highwater's own tables.

use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::internal::status::{self, Status};
use highwater::testing::TestDatabase;
use std::sync::Arc;

use super::{LIMIT, are_exact, engine, is_live, is_retrying};
use crate::exactness::{Running, ledger_in_rust, ledger_in_sql};
use crate::support::{COUNTS, append_rows, eventually, one, sql_projection};

async fn read_status(url: &str) -> Status {
    let database = || Database::new(Connector::parse(url).unwrap(), 4).unwrap();
    let source = TableSource::new("default", database(), None, EventTable::own());
    status::read(&database(), &[Arc::new(source)], &[])
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_a_lock_on_the_read_model_says_for_whose() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = engine(database.url())
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    is_live(&monitor).await;
    let other = database.client().await;
    let lock = "set application_name = 'the nightly report'; begin;
                lock table in_sql.ledger in share mode";
    other.batch_execute(lock).await.unwrap();
    let pid: i32 = one(&other, "select pg_backend_pid()").await;
    append_rows(&client, "s", 1..=20).await;
    let mut found = read_status(database.url()).await;
    eventually("the blocker is found", LIMIT, async || {
        found = read_status(database.url()).await;
        let blocked = found.projection("in_sql").unwrap();
        !blocked.blocked_by.is_empty()
    })
    .await;
    let [holder] = &found.projection("in_sql").unwrap().blocked_by[..] else {
        panic!("{found:?}")
    };
    assert_eq!(holder.pid, Some(pid));
    assert_eq!(holder.application.as_deref(), Some("the nightly report"));
    assert!(holder.since.is_some() && holder.user.is_some());
    let free = found.projection("in_rust").unwrap();
    assert!(free.blocked_by.is_empty(), "{free:?}");
    let text = found.render(false);
    let expected = format!("in_sql: its batch waits for a lock held by pid {pid} (user ");
    assert!(text.contains(&expected), "{text}");
    assert!(
        text.contains("application the nightly report, idle in transaction, begun"),
        "{text}"
    );
    assert!(
        text.contains(&format!("select pg_terminate_backend({pid});")),
        "{text}"
    );
    let json = found.to_json();
    let shown = &json["projections"][1]["blocked_by"][0];
    assert_eq!(shown["pid"], pid);
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["application", "pid", "prepared", "query", "since", "user"]
    );
    // Longer than a batch may take: it is given up, and retried.
    is_retrying_one(&monitor, "in_sql", "57014").await;
    other.batch_execute("rollback").await.unwrap();
    are_exact(&client, &["in_sql", "in_rust"]).await;
    let found = read_status(database.url()).await;
    assert!(found.projections.iter().all(|p| p.blocked_by.is_empty()));
    running.stop().await;
}

async fn is_retrying_one(monitor: &highwater::internal::engine::Monitor, name: &str, why: &str) {
    eventually(
        &format!("{name} is tried again for {why}"),
        LIMIT,
        async || {
            let all = monitor.projections();
            let error = all.iter().find(|p| p.name.as_str() == name);
            let error = error.and_then(|p| p.last_error.clone());
            error.is_some_and(|error| error.contains(why))
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_a_prepared_transaction_says_its_name() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = engine(database.url()).projection(ledger_in_sql("in_sql"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    is_live(&monitor).await;
    let database_id: i64 = one(
        &client,
        "select oid::bigint from pg_database where datname = current_database()",
    )
    .await;
    let prepare = format!(
        "begin; lock table in_sql.ledger in share mode; prepare transaction 'lock {database_id}'"
    );
    client.batch_execute(&prepare).await.unwrap();
    append_rows(&client, "s", 1..=20).await;
    eventually("the prepared transaction is named", LIMIT, async || {
        let found = read_status(database.url()).await;
        let holders = &found.projection("in_sql").unwrap().blocked_by;
        let names: Vec<_> = holders.iter().map(|h| h.prepared.clone()).collect();
        names == [Some(format!("lock {database_id}"))]
    })
    .await;
    let rollback = format!("rollback prepared 'lock {database_id}'");
    client.batch_execute(&rollback).await.unwrap();
    are_exact(&client, &["in_sql"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_event_table_that_is_held_open_is_waited_for() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = engine(database.url())
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    append_rows(&client, "s", 1..=20).await;
    are_exact(&client, &["in_sql", "in_rust"]).await;
    is_live(&monitor).await;
    client
        .batch_execute("begin; alter table highwater.event add column tenant text")
        .await
        .unwrap();
    is_retrying(&monitor, "did not answer").await;
    client.batch_execute("commit").await.unwrap();
    append_rows(&client, "s", 21..=40).await;
    are_exact(&client, &["in_sql", "in_rust"]).await;
    is_live(&monitor).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocker_of_several_partitions_is_reported_once() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let header = "/* highwater\npartitions = 4\n*/\n";
    let counts = sql_projection("counts", &format!("{header}{COUNTS}"));
    let engine = engine(database.url()).projection(counts);
    let monitor = engine.monitor();
    let running = Running::start(engine);
    is_live(&monitor).await;
    let other = database.client().await;
    let lock = "begin; lock table counts.counts in share mode";
    other.batch_execute(lock).await.unwrap();
    let pid: i32 = one(&other, "select pg_backend_pid()").await;
    for stream in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        append_rows(&client, stream, 1..=1).await;
    }
    let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                   and application_name like 'highwater:counts:%' and wait_event_type = 'Lock'";
    let mut found = read_status(database.url()).await;
    eventually("several batches wait", LIMIT, async || {
        let before: i64 = one(&client, waiting).await;
        found = read_status(database.url()).await;
        let after: i64 = one(&client, waiting).await;
        before >= 2 && after >= 2
    })
    .await;
    let holders = &found.projection("counts").unwrap().blocked_by;
    let pids: Vec<_> = holders.iter().map(|h| h.pid).collect();
    assert_eq!(pids, [Some(pid)], "{found:?}");
    let text = found.render(false);
    assert_eq!(text.matches("waits for a lock").count(), 1, "{text}");
    assert_eq!(text.matches("pg_terminate_backend").count(), 1, "{text}");
    other.batch_execute("rollback").await.unwrap();
    running.stop().await;
}
