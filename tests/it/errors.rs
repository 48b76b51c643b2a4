//! What each kind of error leads to: another attempt, a smaller batch, one event, or a stop.

use std::time::Duration;

use highwater::internal::engine::{Engine, RunnerState, Settings};
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome};
use tokio_postgres::Client;

use crate::exactness::{LEDGER, Running, assert_exact, caught_up, positions};
use crate::support::{append_rows, eventually, one, run_to_head, sql_projection};

const LIMIT: Duration = crate::support::PATIENCE;

/// A ledger that does something else first.
fn ledger_after(
    up: &str,
    apply: &str,
) -> std::sync::Arc<dyn highwater::internal::projection::DynProjection> {
    let text = format!(
        "-- highwater: up\n{LEDGER};\n{up}\n-- highwater: apply\n{apply}
         insert into ledger (position, stream, version)
         select position, stream, version from batch order by position;\n"
    );
    sql_projection("ledger", &text)
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.retry_delay_max = Duration::from_millis(200);
    settings
}

fn engine(database: &TestDatabase, up: &str, apply: &str) -> Engine {
    Engine::new(database.pooled(), settings())
        .source(database.source())
        .projection(ledger_after(up, apply))
}

async fn is_exact(client: &Client) {
    caught_up(client).await;
    let log = positions(client, "select position from highwater.event order by 1").await;
    assert_exact(client, "ledger", &log).await;
}

/// The SQLSTATE and the number of attempts that are written down.
async fn written_down(client: &Client) -> (Option<String>, i64) {
    let sql = "select last_error->>'sqlstate', coalesce((last_error->>'attempts')::bigint, 0)
                 from highwater.checkpoint where state = 'retrying'";
    let row = client.query_opt(sql, &[]).await.unwrap();
    row.map_or((None, 0), |row| (row.get(0), row.get(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_is_retried_for_ever_and_reported_and_the_run_then_continues_exactly() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client
        .batch_execute(
            "create table public.trouble (code text);
             create function public.stumble() returns void language plpgsql as $$
             declare c text := (select code from public.trouble);
             begin
                 if c is not null then raise exception 'not now' using errcode = c; end if;
             end $$",
        )
        .await
        .unwrap();
    let engine = engine(&database, "", "select public.stumble();");
    let monitor = engine.monitor();
    let running = Running::start(engine);
    for (nth, code) in [
        "40001", "40P01", "55P03", "53200", "53100", "57014", "72000",
    ]
    .into_iter()
    .enumerate()
    {
        let sql = format!("insert into public.trouble values ('{code}')");
        client.batch_execute(&sql).await.unwrap();
        append_rows(&client, &format!("s{nth}"), 1..=40).await;
        eventually(&format!("{code} is tried again"), LIMIT, async || {
            let (written, attempts) = written_down(&client).await;
            written.as_deref() == Some(code) && attempts >= 3
        })
        .await;
        let progress = &monitor.projections()[0];
        assert_eq!(progress.state, RunnerState::Retrying, "{code}");
        let error = progress.last_error.clone().unwrap_or_default();
        assert!(error.contains(code), "{error}");
        client
            .batch_execute("truncate public.trouble")
            .await
            .unwrap();
        is_exact(&client).await;
    }
    let report = running.stop().await;
    assert!(matches!(report.outcomes[0].1, Outcome::Drained));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_loses_a_deadlock_is_retried() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let slots = "create table slots (id int primary key, n bigint not null default 0);
                 insert into slots values (1), (2);";
    let both = "update slots set n = n + (select count(*) from batch) where id = 1;
                update slots set n = n + (select count(*) from batch) where id = 2;";
    let running = Running::start(engine(&database, slots, both));
    append_rows(&client, "s", 1..=5).await;
    is_exact(&client).await;
    let other = database.client().await;
    other
        .batch_execute(
            "set deadlock_timeout = '20s'; begin; update ledger.slots set n = n where id = 2",
        )
        .await
        .unwrap();
    append_rows(&client, "s", 6..=10).await;
    eventually("the batch waits", LIMIT, async || {
        let sql = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                    and datname = current_database() and application_name like 'highwater:ledger:%'";
        one::<i64>(&client, sql).await == 1
    })
    .await;
    // It succeeds because the batch is the victim.
    let sql = "update ledger.slots set n = n where id = 1; commit";
    other.batch_execute(sql).await.unwrap();
    is_exact(&client).await;
    running.stop().await;
    let counts = positions(&client, "select n from ledger.slots order by id").await;
    assert_eq!(counts, [10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_too_large_for_a_statement_timeout_is_made_smaller_until_it_fits() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=1_000).await;
    limit_statements(&client, "400").await;
    // The sleep is what the limit is about: a second for all of them.
    let slow = "select pg_sleep(0.001) from batch;";
    let running = Running::start(engine(&database, "", slow));
    is_exact(&client).await;
    running.stop().await;
    // In pieces, each its own transaction.
    let pieces = "select count(distinct xmin::text) from ledger.ledger";
    assert!(one::<i64>(&client, pieces).await >= 3);
}

async fn limit_statements(client: &Client, limit: &str) {
    let sql = format!(
        "do $$ begin
             execute format('alter database %I set statement_timeout = {limit}', current_database());
         end $$"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_takes_too_long_is_retried_and_named_until_it_gets_the_time() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=9).await;
    limit_statements(&client, "300").await;
    // The sleep is what the limit is about: this event takes twice as long as it may.
    let slow = "select pg_sleep(0.6) from batch where version = 7;";
    let running = Running::start(engine(&database, "", slow));
    eventually("it says that one event is too much", LIMIT, async || {
        let sql = "select count(*) from highwater.checkpoint
                    where state = 'retrying' and position = 6
                      and last_error->>'sqlstate' = '57014'
                      and last_error->>'hint' like '%this event alone exceeds the limit%'";
        one::<i64>(&client, sql).await == 1
    })
    .await;
    limit_statements(&client, "0").await;
    is_exact(&client).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_is_checked_at_the_commit_stops_at_the_event_that_breaks_it() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=50).await;
    let up = "create table once (n bigint unique deferrable initially deferred);";
    let apply = "insert into once select case version when 37 then 5 else version end from batch;";
    let report = run_to_head(&database, database.source(), vec![ledger_after(up, apply)])
        .await
        .unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.sqlstate(), Some("23505"), "{error}");
    assert_eq!(error.event().unwrap().position.get(), 37);
    let log: Vec<i64> = (1..=36).collect();
    let applied = positions(&client, "select position from ledger.ledger order by 1").await;
    assert_eq!(applied, log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_names_what_is_gone_stops_the_projection_and_blames_no_event() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    let up = "create table notes (n bigint);";
    let apply = "select 1;\ninsert into notes select version from batch;";
    let run = async || {
        let ledger = vec![ledger_after(up, apply)];
        let report = run_to_head(&database, database.source(), ledger);
        report.await.unwrap().outcomes.pop().unwrap().1
    };
    assert!(matches!(run().await, Outcome::CaughtUp));
    append_rows(&client, "s", 11..=60).await;
    client
        .batch_execute("drop table ledger.notes")
        .await
        .unwrap();
    let Outcome::Stopped(error) = run().await else {
        panic!()
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.sqlstate(), Some("42P01"));
    assert_eq!(error.event(), None);
    assert!(
        error
            .location()
            .unwrap()
            .starts_with("projections/ledger.sql: line"),
        "{error}"
    );
    assert!(error.to_string().contains("fix the statement"), "{error}");
    let stands: i64 = one(&client, "select position from highwater.checkpoint").await;
    assert_eq!(stands, 10, "nothing was halved");
    client
        .batch_execute("create table ledger.notes (n bigint)")
        .await
        .unwrap();
    assert!(matches!(run().await, Outcome::CaughtUp));
    is_exact(&client).await;
}
