//! Large batches: what becomes of a guess.

use std::time::Duration;

use highwater::internal::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{one, sql_projection};

async fn caught_up(database: &TestDatabase, settings: &Settings, name: &str, text: &str) {
    let engine = Engine::new(database.pooled(), settings.clone())
        .source(database.source())
        .projection(sql_projection(name, text));
    let report = engine.run(Until::CaughtUp, CancellationToken::new()).await;
    let outcomes = report.unwrap().outcomes;
    assert!(outcomes[0].1.error().is_none(), "{outcomes:?}");
}

async fn append_many(client: &Client, events: i64) {
    let sql = format!(
        "insert into highwater.event (stream, version, type, data)
         select 's', version, 'T', '{{}}' from generate_series(1, {events}) version"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// More than 40,000 events at once are too much for it.
const SUDDEN: &str = "
-- highwater: up
create table sudden (events bigint not null);
-- highwater: apply
insert into sudden select count(*) from batch;
select pg_sleep(1000) from batch having count(*) > 40000;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_a_guess_and_takes_too_long_is_made_smaller_and_no_error_is_reported() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_many(&client, 60_000).await;
    let watched = "create table error (told jsonb);
        create function note() returns trigger language plpgsql as $$
        begin insert into error values (new.last_error); return null; end $$;
        create trigger note after update on highwater.checkpoint for each row
        when (new.last_error is not null) execute function note()";
    client.batch_execute(watched).await.unwrap();
    let mut settings = Settings::default();
    settings.batch_timeout = Duration::from_secs(3);
    caught_up(&database, &settings, "sudden", SUDDEN).await;
    let all = "select sum(events)::bigint from sudden.sudden having max(events) <= 40000";
    assert_eq!(one::<i64>(&client, all).await, 60_000);
    let told = "select coalesce(string_agg(told::text, ' '), '') from error";
    assert_eq!(one::<String>(&client, told).await, "");
}
