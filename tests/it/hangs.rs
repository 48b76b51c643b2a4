//! What does not answer, or not in time: the engine says so meanwhile, and comes back by itself.

use std::time::Duration;

use highwater::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use tokio_util::sync::CancellationToken;

use crate::support::{append_rows, one, sql_projection};

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
async fn a_batch_says_whose_it_is_and_ends_in_the_server_if_its_process_does_not_go_on() {
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
