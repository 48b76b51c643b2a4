//! How much may be parked, and what a command then says.

use highwater::internal::engine::operate::{accept, drop_projection};
use highwater::internal::engine::rebuild::Rebuild;
use highwater::internal::wait::{Target, Waited, until_visible};

use super::*;
use crate::support::table_source;

async fn run_with(database: &TestDatabase, settings: Settings) -> Outcome {
    let engine = Engine::new(database.pooled(), settings)
        .source(database.source())
        .projection(applied(""));
    let report = engine.run(Until::CaughtUp, CancellationToken::new());
    report.await.unwrap().outcomes.pop().unwrap().1
}

fn at_most(keys: u32, letters: u32) -> Settings {
    let mut settings = Settings::default();
    settings.parked_keys_max = keys;
    settings.dead_letters_max = letters;
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_stops_before_the_first_key_that_it_may_not_park() {
    let (database, client) = log(4, &[6, 8, 14]).await;
    let Outcome::Stopped(error) = run_with(&database, at_most(2, 100)).await else {
        panic!("three keys are parked")
    };
    assert_eq!(error.kind(), ErrorKind::ParkedFull, "{error}");
    assert_eq!(error.event().unwrap().position.get(), 14);
    let text = error.to_string();
    for part in [
        "engine.parked_keys_max = 2",
        "division by zero",
        "highwater dead-letters list applied --by-error",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(dead_letters_at(&client).await, [6, 8, 11, 13]);
    is_in_order(&client).await;
    let sql = "select position from highwater.checkpoint";
    assert_eq!(one::<i64>(&client, sql).await, 13, "nothing is passed over");

    poisoned(&client, &[14]).await;
    retry(&database, Selection::All).await;
    let outcome = run_with(&database, at_most(2, 100)).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_eq!(
        dead_letters_at(&client).await,
        [14, 19],
        "what was asked for goes first"
    );
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_stops_before_more_events_than_it_may_park() {
    let (database, client) = log(6, &[8]).await;
    let Outcome::Stopped(error) = run_with(&database, at_most(10, 3)).await else {
        panic!("five events are set aside")
    };
    assert_eq!(error.kind(), ErrorKind::ParkedFull, "{error}");
    assert!(
        error.message().contains("engine.dead_letters_max = 3"),
        "{error}"
    );
    assert!(dead_letters_at(&client).await.len() <= 3);
    is_in_order(&client).await;
    let stopped = "select count(*) from highwater.checkpoint
                    where state = 'stopped' and last_error->>'kind' = 'parked_full'";
    assert_eq!(one::<i64>(&client, stopped).await, 1);
    let outcome = run_with(&database, at_most(10, 5)).await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_eq!(dead_letters_at(&client).await, [8, 13, 18, 23, 28]);
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_poison_events_of_one_batch_park_a_key_each_with_errors_of_their_own() {
    let (database, client) = log(30, &[31, 32, 148]).await;
    caught_up(&run(&database, applied("")).await);
    let sql = "select position from highwater.dead_letter where error is not null order by 1";
    assert_eq!(positions(&client, sql).await, [31, 32, 148]);
    is_in_order(&client).await;
    let all = Selection::All;
    let listed = dead_letters::by_error(&database.pooled(), &name(), &all, 10)
        .await
        .unwrap();
    assert_eq!(listed.shown.errors.len(), 1, "one cause: {listed:?}");
    assert_eq!(listed.shown.errors[0].parked_keys, 3);
    let fingerprint = listed.shown.errors[0].first.fingerprint.clone().unwrap();
    poisoned(&client, &[]).await;
    retry(&database, Selection::Fingerprint(fingerprint)).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_begins_without_dead_letters_and_brings_its_own() {
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    poisoned(&client, &[20]).await;
    let rebuild = Rebuild::new(
        database.pooled(),
        database.source(),
        applied(""),
        Settings::default(),
    );
    rebuild.run(CancellationToken::new()).await.unwrap();
    assert_eq!(dead_letters_at(&client).await, [20]);
    is_in_order(&client).await;
    drop_projection(&database.pooled(), &name()).await.unwrap();
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_change_keeps_what_was_parked_before_it() {
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    poisoned(&client, &[]).await;
    let changed = || applied("events = [\"T\", \"U\"]");
    let target = database.pooled();
    let is_accepted = accept(&target, &*changed(), &*database.source())
        .await
        .unwrap();
    assert!(is_accepted);
    let key =
        Selection::Event(one(&client, "select id from highwater.event where position = 8").await);
    dead_letters::discard(&target, &name(), &key, "a test")
        .await
        .unwrap();
    retry(&database, Selection::All).await;
    caught_up(&run(&database, changed()).await);
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
    let sql = "select position from applied.applied where stream = 'c' order by n";
    assert_eq!(positions(&client, sql).await, [3, 13, 18]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_never_calls_a_parked_event_visible() {
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    let target = database.pooled();
    let at = async |position: i64| {
        let goal = Target::At(highwater::Position::new(position));
        let sources = [table_source(&database)];
        until_visible(&target, &sources, &[], "applied", goal, LIMIT)
            .await
            .unwrap()
    };
    let waited = at(7).await;
    assert!(
        matches!(
            waited,
            Waited::Visible {
                dead_letters: 0,
                ..
            }
        ),
        "{waited}"
    );
    let waited = at(13).await;
    assert!(matches!(waited, Waited::Parked { .. }), "{waited}");
    let waited = at(20).await;
    assert!(
        matches!(
            waited,
            Waited::Visible {
                dead_letters: 3,
                ..
            }
        ),
        "{waited}"
    );
    assert!(
        waited.to_string().contains("without 3 earlier events"),
        "{waited}"
    );
    let all = Selection::All;
    dead_letters::discard(&target, &name(), &all, "a test")
        .await
        .unwrap();
    let waited = at(13).await;
    assert!(matches!(waited, Waited::Discarded { .. }), "{waited}");
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_change_of_the_key_holds_the_later_events_of_the_new_key() {
    let (database, client) = log(0, &[2]).await;
    let append = async |stream: &str, version: i64, k: &str| {
        let sql = format!(
            "insert into highwater.event (stream, version, type, data)
             values ('{stream}', {version}, 'T', '{{\"k\": \"{k}\"}}')"
        );
        client.batch_execute(&sql).await.unwrap();
    };
    append("a", 1, "x").await;
    append("a", 2, "y").await;
    append("b", 1, "y").await;
    append("c", 1, "z").await;
    caught_up(&run(&database, applied("key = \"data->>'k'\"")).await);
    assert_eq!(dead_letters_at(&client).await, [2, 3]);
    let is_accepted = accept(&database.pooled(), &*applied(""), &*database.source())
        .await
        .unwrap();
    assert!(is_accepted);
    append("a", 3, "z").await;
    append("b", 2, "z").await;
    append("c", 2, "y").await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await, [2, 3, 5, 6]);
    poisoned(&client, &[]).await;
    retry(&database, Selection::Key(Some("a".to_owned()))).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(
        dead_letters_at(&client).await,
        [3, 6],
        "b is a key of its own now"
    );
}
