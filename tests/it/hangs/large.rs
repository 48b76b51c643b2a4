//! Large batches: how much of the server's memory they may use, and what becomes of a guess.

use std::time::Duration;

use highwater::internal::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::LIMIT;
use crate::support::{eventually, one, sql_projection};

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

/// Each batch writes down how large it was, and with how much memory.
const SIZES: &str = "
-- highwater: up
create table sizes (events bigint not null, work_mem text not null);
-- highwater: apply
insert into sizes select count(*), current_setting('work_mem') from batch having count(*) > 0;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_gets_more_memory_and_never_less_than_the_server_gives() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_many(&client, 21_000).await;
    let mut settings = Settings::default();
    settings.batch_work_mem_mb = 48;
    caught_up(&database, &settings, "sizes", SIZES).await;
    let found =
        "select string_agg(distinct (events >= 10000) || ' ' || work_mem, ', ') from sizes.sizes";
    assert_eq!(one::<String>(&client, found).await, "false 4MB, true 48MB");
    let more = "do $$ begin execute format('alter database %I set work_mem = ''64MB''',
                current_database()); end $$";
    client.batch_execute(more).await.unwrap();
    caught_up(
        &database,
        &settings,
        "again",
        &SIZES.replace("sizes", "again"),
    )
    .await;
    let found = found.replace("sizes", "again");
    assert_eq!(
        one::<String>(&client, &found).await,
        "false 64MB, true 64MB"
    );
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
async fn a_batch_that_was_a_guess_and_takes_too_long_is_made_smaller_and_no_error_is_told() {
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

/// 200,000 events, one in four of them a `U`, whose key is no number as that of the others is.
const OF_TWO_TYPES: &str = "insert into highwater.event (stream, version, type, data)
    select 's' || n % 100, n / 100 + 1, case when n % 4 = 0 then 'U' else 'T' end,
           jsonb_build_object('key', case when n % 4 = 0 then 'none' else (n % 100)::text end)
      from generate_series(0, 199999) n";

/// Each batch writes down how large it was.
const LARGEST: &str = "/* highwater
events = [\"T\"]
*/
-- highwater: up
create table largest (events bigint not null);
-- highwater: apply
insert into largest select count(*) from batch;
";

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_of_a_batch_that_is_counted_beside_it_is_right() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client.batch_execute(OF_TWO_TYPES).await.unwrap();
    caught_up(&database, &Settings::default(), "largest", LARGEST).await;
    let largest = "select max(events) from largest.largest";
    assert!(one::<i64>(&client, largest).await >= 50_000);
    let ledgers = "select string_agg(scanned || ' ' || (scanned = applied + filtered), ', ')
                     from highwater.checkpoint";
    assert_eq!(one::<String>(&client, ledgers).await, "200000 true");
    let applied = "select sum(applied)::bigint from highwater.checkpoint";
    assert_eq!(one::<i64>(&client, applied).await, 150_000);
    let by_batches = "select sum(events)::bigint from largest.largest";
    assert_eq!(one::<i64>(&client, by_batches).await, 150_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_count_a_range_once_and_ask_no_unwanted_event_for_its_key() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client.batch_execute(OF_TWO_TYPES).await.unwrap();
    // The server counts how often it is asked for the key.
    let key = "create function key_of(data jsonb) returns bigint immutable language plpgsql as
                   $$ begin return (data->>'key')::bigint; end $$";
    client.batch_execute(key).await.unwrap();
    let counted = "do $$ begin
        execute format('alter database %I set track_functions = ''all''', current_database());
    end $$";
    client.batch_execute(counted).await.unwrap();
    let text = "/* highwater
events = [\"T\"]
partitions = 2
key = \"public.key_of(data)\"
*/
-- highwater: up
create table applied (events bigint not null);
-- highwater: apply
insert into applied select count(*) from batch;
";
    let mut asked = Vec::new();
    // A partition that the machine holds up counts for itself.
    while asked.last().is_none_or(|asked| *asked >= 500_000) {
        let name = format!("numbered_{}", asked.len());
        assert!(asked.len() < 10, "asked for the key so often: {asked:?}");
        caught_up(&database, &Settings::default(), &name, text).await;
        let applied = format!("select sum(events)::bigint from {name}.applied");
        assert_eq!(one::<i64>(&client, &applied).await, 150_000);
        asked.push(asked_for_the_key(&client).await);
    }
    // Once by each batch and once by the count; with a count of its own for each it is 600,000.
    assert!(asked.iter().all(|asked| *asked >= 450_000), "{asked:?}");
}

/// How often `key_of` was called since this was asked last.
async fn asked_for_the_key(client: &Client) -> i64 {
    // A session tells the server's statistics what it counted when it ends.
    let others = "select count(*) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid()";
    eventually("the engine's sessions have ended", LIMIT, async || {
        one::<i64>(client, others).await == 0
    })
    .await;
    let calls = "select calls from pg_stat_user_functions where funcname = 'key_of'";
    let calls = one::<i64>(client, calls).await;
    let reset =
        "select pg_stat_reset_single_function_counters('public.key_of(jsonb)'::regprocedure)";
    client.batch_execute(reset).await.unwrap();
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_of_partitions_that_share_a_count_say_what_each_applied() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client.batch_execute(OF_TWO_TYPES).await.unwrap();
    for partitions in [2, 3] {
        let name = format!("in_{partitions}");
        let text = "/* highwater
events = [\"T\"]
partitions = {partitions}
*/
-- highwater: up
create table applied (stream text not null, events bigint not null);
-- highwater: apply
insert into applied select stream, count(*) from batch group by stream;
";
        let text = text.replace("{partitions}", &partitions.to_string());
        caught_up(&database, &Settings::default(), &name, &text).await;
        let right = format!(
            "select count(*) from highwater.checkpoint c
              where c.projection = '{name}' and c.scanned = 200000 and c.scanned = c.applied + c.filtered
                and c.applied = (select sum(events) from {name}.applied a
                                  where highwater.partition_of(a.stream, {partitions}) = c.partition)
                and c.applied = (select count(*) from highwater.event e
                                  where highwater.partition_of(e.stream, {partitions}) = c.partition
                                    and e.type = 'T')"
        );
        assert_eq!(one::<i64>(&client, &right).await, partitions, "{name}");
    }
}
