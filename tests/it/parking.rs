//! `on_error = "park"`: an event that cannot be applied is parked with the later ones of its key,
//! in the order of positions, and all others flow.

mod copies;
mod history;
mod limits;
mod rust;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::dead_letters::{self, Selection};
use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::projection::DynProjection;
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome, ProjectionName, Report, Until};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{append_rows, eventually, one, run_to_head, sql_projection};

const LIMIT: Duration = crate::support::PATIENCE;

/// Keeps what was applied in the order in which it was. Events whose position is in `public.poison`
/// cannot be.
fn applied(header: &str) -> Arc<dyn DynProjection> {
    let text = format!(
        "/* highwater
on_error = \"park\"
{header}
*/
-- highwater: up
create table applied (n bigint generated always as identity, position bigint unique,
                      stream text not null, version bigint not null, data jsonb not null);
-- highwater: apply
insert into applied (position, stream, version, data)
select position, stream, version / (position not in (select p.position from public.poison p))::int,
       data
  from batch order by position;
"
    );
    sql_projection("applied", &text)
}

fn name() -> ProjectionName {
    "applied".parse().unwrap()
}

/// A database with events of the streams `a` to `e` in turn, `rounds` of each, and poison.
async fn log(rounds: i64, poison: &[i64]) -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client
        .batch_execute("create table public.poison (position bigint)")
        .await
        .unwrap();
    poisoned(&client, poison).await;
    for version in 1..=rounds {
        for stream in ["a", "b", "c", "d", "e"] {
            append_rows(&client, stream, version..=version).await;
        }
    }
    (database, client)
}

/// Makes exactly these events ones that cannot be applied.
async fn poisoned(client: &Client, positions: &[i64]) {
    let sql = "delete from public.poison";
    client.execute(sql, &[]).await.unwrap();
    let sql = "insert into public.poison select unnest($1::bigint[])";
    client.execute(sql, &[&positions]).await.unwrap();
}

async fn run(database: &TestDatabase, projection: Arc<dyn DynProjection>) -> Report {
    run_to_head(database, database.source(), vec![projection])
        .await
        .unwrap()
}

#[track_caller]
fn caught_up(report: &Report) {
    let outcome = &report.outcomes[0].1;
    assert!(matches!(outcome, Outcome::CaughtUp), "{report:?}");
}

/// The positions of an SQL query's one column.
async fn positions(client: &Client, sql: &str) -> Vec<i64> {
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn dead_letters_at(client: &Client) -> Vec<i64> {
    positions(
        client,
        "select position from highwater.dead_letter order by 1",
    )
    .await
}

/// Every event of the log is applied once or is a dead letter; of each stream the applied ones came
/// in the order of versions, and all of them before the first of its dead letters.
async fn is_in_order(client: &Client) {
    let sql = "select count(*) from highwater.event e
                where e.position <= (select min(position) from highwater.checkpoint)
                  and (select count(*) from applied.applied a where a.position = e.position)
                      + (select count(*) from highwater.dead_letter d where d.position = e.position)
                      + (select count(*) from highwater.discarded d where d.position = e.position)
                      <> 1";
    assert_eq!(one::<i64>(client, sql).await, 0, "lost or twice");
    let sql = "select count(*) from (
                   select version - lag(version, 1, 0::bigint) over (partition by stream order by n) as step
                     from applied.applied) s
                where step < 1";
    assert_eq!(one::<i64>(client, sql).await, 0, "out of order");
    let sql = "select count(*) from applied.applied a
                 join highwater.dead_letter d on d.stream = a.stream and d.position < a.position";
    assert_eq!(
        one::<i64>(client, sql).await,
        0,
        "applied before an earlier one of its key"
    );
}

async fn retry(database: &TestDatabase, selection: Selection) {
    dead_letters::retry(&database.pooled(), &name(), &selection)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_parks_its_key_and_all_others_flow() {
    // Position 8 is version 2 of c.
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await, [8, 13, 18]);
    is_in_order(&client).await;
    let shown = dead_letters::show(&database.pooled(), &name(), &Selection::All, 10)
        .await
        .unwrap();
    let first = &shown.shown[0].dead_letter;
    assert_eq!(
        (first.key.as_deref(), first.attempts, shown.shown[0].behind),
        (Some("c"), 1, 2)
    );
    let error = first.error.as_ref().unwrap();
    assert_eq!(error["sqlstate"], "22012");
    assert_eq!(error["position"], 8);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("projections/applied.sql: line 9")
    );
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("highwater dead-letters retry applied")
    );
    assert_eq!(shown.shown[1].dead_letter.error, None, "it only follows");

    append_rows(&client, "c", 5..=6).await;
    append_rows(&client, "d", 5..=5).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(
        dead_letters_at(&client).await,
        [8, 13, 18, 21, 22],
        "also in a later run"
    );
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_key_is_applied_in_order_and_then_flows_again() {
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    poisoned(&client, &[]).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(
        dead_letters_at(&client).await,
        [8, 13, 18],
        "nobody asked for it"
    );
    retry(&database, Selection::Key(Some("c".to_owned()))).await;
    append_rows(&client, "c", 5..=5).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
    is_in_order(&client).await;
    let sql = "select position from applied.applied where stream = 'c' order by n";
    assert_eq!(positions(&client, sql).await, [3, 8, 13, 18, 21]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_fails_again_keeps_its_key_parked_with_the_new_error() {
    let (database, client) = log(4, &[8, 18]).await;
    caught_up(&run(&database, applied("")).await);
    retry(&database, Selection::All).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await, [8, 13, 18]);
    let sql = "select attempts from highwater.dead_letter where position = 8";
    assert_eq!(one::<i32>(&client, sql).await, 2);
    let asked = "select count(*) from highwater.dead_letter where retry_requested_at is not null";
    assert_eq!(
        one::<i64>(&client, asked).await,
        0,
        "it is not tried for ever"
    );

    poisoned(&client, &[18]).await;
    retry(&database, Selection::All).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(
        dead_letters_at(&client).await,
        [18],
        "those before it were applied"
    );
    let sql = "select attempts = 1 and error->>'sqlstate' = '22012' and fingerprint is not null
                 from highwater.dead_letter";
    assert!(
        one::<bool>(&client, sql).await,
        "now it stands in the way itself"
    );
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_projection_parks_and_takes_up_a_retry_within_moments() {
    let (database, client) = log(2, &[13]).await;
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(applied(""));
    let engine = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let is_at = async |position: i64| {
        let sql = format!("select count(*) from highwater.checkpoint where position = {position}");
        eventually("it follows", LIMIT, async || {
            one::<i64>(&client, &sql).await == 1
        })
        .await;
    };
    is_at(10).await;
    for version in 3..=4 {
        for stream in ["a", "b", "c", "d", "e"] {
            append_rows(&client, stream, version..=version).await;
        }
    }
    is_at(20).await;
    assert_eq!(dead_letters_at(&client).await, [13, 18]);
    is_in_order(&client).await;
    poisoned(&client, &[]).await;
    retry(
        &database,
        Selection::Event(
            one(
                &client,
                "select id from highwater.event where position = 18",
            )
            .await,
        ),
    )
    .await;
    eventually("the key is free", LIMIT, async || {
        dead_letters_at(&client).await.is_empty()
    })
    .await;
    append_rows(&client, "c", 5..=5).await;
    is_at(21).await;
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0], "it flows again");
    is_in_order(&client).await;
    stop.cancel();
    engine.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_while_it_runs_sets_the_key_free_for_what_comes() {
    let (database, client) = log(2, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(applied(""));
    let engine = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let live = "select count(*) from highwater.checkpoint where state = 'live'";
    eventually("it is live", LIMIT, async || {
        one::<i64>(&client, live).await == 1
    })
    .await;
    let all = Selection::All;
    dead_letters::discard(&database.pooled(), &name(), &all, "a test")
        .await
        .unwrap();
    append_rows(&client, "c", 3..=3).await;
    let sql = "select count(*) from applied.applied where position = 11";
    eventually("the key flows", LIMIT, async || {
        one::<i64>(&client, sql).await == 1
    })
    .await;
    is_in_order(&client).await;
    stop.cancel();
    engine.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_an_expression_over_the_event_and_null_is_a_key_too() {
    let (database, client) = log(0, &[2, 5]).await;
    let events = "insert into highwater.event (stream, version, type, data) values
        ('s', 1, 'T', '{\"k\": \"x\"}'), ('s', 2, 'T', '{\"k\": null}'), ('s', 3, 'T', '{\"k\": \"x\"}'),
        ('t', 1, 'T', '{}'), ('t', 2, 'T', '{\"k\": \"x\"}'), ('u', 1, 'T', '{\"k\": \"x\"}'),
        ('u', 2, 'T', '{\"k\": \"\"}')";
    client.batch_execute(events).await.unwrap();
    let keyed = || applied("key = \"data->>'k'\"");
    caught_up(&run(&database, keyed()).await);
    let of = async |key: &str| {
        let sql = format!("select position from highwater.dead_letter where key {key} order by 1");
        positions(&client, &sql).await
    };
    assert_eq!(of("is null").await, [2, 4]);
    assert_eq!(of("= 'x'").await, [5, 6]);
    let sql = "select position from applied.applied order by n";
    assert_eq!(
        positions(&client, sql).await,
        [1, 3, 7],
        "the empty key is not the key null"
    );
    poisoned(&client, &[]).await;
    retry(&database, Selection::Key(None)).await;
    caught_up(&run(&database, keyed()).await);
    assert_eq!(dead_letters_at(&client).await, [5, 6], "only that key");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_stop_again_parked_keys_stay_parked_and_new_poison_stops() {
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    let text = "
-- highwater: up
create table applied (n bigint generated always as identity, position bigint unique,
                      stream text not null, version bigint not null, data jsonb not null);
-- highwater: apply
insert into applied (position, stream, version, data)
select position, stream, version / (position not in (select p.position from public.poison p))::int,
       data
  from batch order by position;
";
    let stopping = || sql_projection("applied", text);
    append_rows(&client, "c", 5..=5).await;
    append_rows(&client, "d", 5..=5).await;
    caught_up(&run(&database, stopping()).await);
    assert_eq!(dead_letters_at(&client).await, [8, 13, 18, 21]);
    is_in_order(&client).await;
    poisoned(&client, &[8, 23]).await;
    append_rows(&client, "e", 5..=5).await;
    let report = run(&database, stopping()).await;
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.event().unwrap().position.get(), 23);
    assert_eq!(
        dead_letters_at(&client).await,
        [8, 13, 18, 21],
        "nothing more is parked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_no_event_is_to_blame_for_parks_nothing() {
    let (database, client) = log(2, &[]).await;
    client
        .batch_execute("drop table public.poison")
        .await
        .unwrap();
    let report = run(&database, applied("")).await;
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.sqlstate(), Some("42P01"), "{error}");
    assert_ne!(error.kind(), ErrorKind::ParkedFull, "{error}");
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
}
