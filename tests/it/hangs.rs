//! What does not answer, or not in time: the engine says so meanwhile, and comes back by itself.

mod large;
mod locks;
mod network;
mod room;

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::engine::{Engine, Monitor, RunnerState, Settings, Until};
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::exactness::{all_caught_up, assert_exact, positions};
use crate::support::{append_rows, eventually, one, sql_projection};

const LIMIT: Duration = crate::support::PATIENCE;

/// Limits that a test can wait for.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(1);
    settings.answer_timeout = Duration::from_secs(1);
    settings.batch_timeout = Duration::from_secs(3);
    settings.retry_delay_max = Duration::from_millis(200);
    settings
}

/// An engine without projections on the database of a URL.
fn engine(url: &str) -> Engine {
    let pool = || {
        let database = Database::new(Connector::parse(url).unwrap(), 8).unwrap();
        database.with_answer_timeout(settings().answer_timeout)
    };
    let source = TableSource::new("default", pool(), None, EventTable::own());
    Engine::new(pool(), settings()).source(Arc::new(source))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn is_live(monitor: &Monitor) {
    eventually("every projection is live", LIMIT, async || {
        let all = monitor.projections();
        all.iter().all(|p| p.state == RunnerState::Live)
    })
    .await;
}

/// Waits until every projection says that it tries again, and why.
async fn is_retrying(monitor: &Monitor, why: &str) {
    let mut last = Vec::new();
    let what = format!("every projection is tried again for \"{why}\"");
    eventually(&what, LIMIT, async || {
        let all = monitor.projections();
        let found = all.iter().all(|p| {
            let error = p.last_error.clone().unwrap_or_default();
            p.state == RunnerState::Retrying && error.contains(why)
        });
        let now: Vec<_> = all.into_iter().map(|p| (p.state, p.last_error)).collect();
        if now != last {
            println!("{now:?}");
            last = now;
        }
        found
    })
    .await;
}

/// Every ledger holds exactly the log.
async fn are_exact(client: &Client, ledgers: &[&str]) {
    all_caught_up(client, ledgers.len() as i64).await;
    let log = positions(client, "select position from highwater.event order by 1").await;
    for ledger in ledgers {
        assert_exact(client, ledger, &log).await;
    }
}

/// What a batch finds set in its session.
const SETTINGS: &str = "
-- highwater: up
create table settings (name text primary key, value text);
-- highwater: apply
insert into settings
select name, current_setting(name)
  from unnest(array['application_name', 'statement_timeout', 'row_security',
                    'idle_in_transaction_session_timeout', 'client_connection_check_interval']) name
 where exists (select from batch)
on conflict (name) do update set value = excluded.value;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_whose_it_is_and_ends_in_the_server_if_its_process_dies() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let run = async || {
        let mut settings = Settings::default();
        settings.lease = Duration::from_secs(7);
        settings.batch_timeout = Duration::from_secs(90);
        let report = Engine::new(database.pooled(), settings)
            .source(database.source())
            .projection(sql_projection("settings", SETTINGS))
            .run(Until::CaughtUp, CancellationToken::new());
        report.await.unwrap();
        let sql =
            "select string_agg(name || '=' || value, ' ' order by name) from settings.settings";
        one::<String>(&client, sql).await
    };
    append_rows(&client, "s", 1..=1).await;
    let interval = if cfg!(target_os = "linux") { "1s" } else { "0" };
    assert_eq!(
        run().await,
        format!(
            "application_name=highwater:settings:1:0 client_connection_check_interval={interval} \
             idle_in_transaction_session_timeout=7s row_security=off statement_timeout=90s"
        )
    );
    // What the database was given for itself is not made longer.
    let shorter = "do $$ begin
        execute format('alter database %I set statement_timeout = 2500', current_database());
        execute format('alter database %I set idle_in_transaction_session_timeout = 3000',
                       current_database());
    end $$";
    client.batch_execute(shorter).await.unwrap();
    append_rows(&client, "s", 2..=2).await;
    let found = run().await;
    assert!(found.contains("statement_timeout=2500ms"), "{found}");
    assert!(found.contains("session_timeout=3s"), "{found}");
}
