//! `highwater dead-letters` as its users see it.

use highwater::testing::TestDatabase;

use super::{LIMIT, Shop};
use crate::support::{append_rows, eventually, one};

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_retried_and_discarded_from_the_command_line() {
    let database = TestDatabase::new().await;
    let shop = Shop::new();
    shop.write_counts();
    let url = Some(database.url());
    let run = async |arguments: &[&str]| shop.run(url, arguments).await;
    let events = "{\"stream\":\"s\",\"type\":\"T\",\"data\":{}}\n".repeat(3);
    shop.run_with(url, &["append", "-"], &events)
        .await
        .expect(0);
    run(&["run", "--until-caught-up"]).await.expect(0);
    let nothing = run(&["dead-letters", "list", "counts"]).await;
    assert_eq!(nothing.expect(0).stdout, "counts: nothing is parked\n");

    let letters = r#"
        insert into highwater.dead_letter (projection, generation, position, key, id,
                    stream, version, type, data, metadata, recorded_at, error, fingerprint, attempts)
        select 'counts', 1, position, '-k', id, stream, version, type, data, metadata,
               recorded_at, '{"kind": "apply", "message": "division by zero", "sqlstate": "22012"}',
               'f1', 1
          from highwater.event;
        update highwater.checkpoint
           set parking = 3"#;
    database
        .client()
        .await
        .batch_execute(letters)
        .await
        .unwrap();
    let list = run(&["dead-letters", "list", "counts"]).await;
    for text in [
        "3 events of 1 key",
        "key \"-k\"",
        "division by zero (SQLSTATE 22012)",
        "f1",
    ] {
        assert!(list.expect(0).stdout.contains(text), "{text}: {list:?}");
    }
    let list = run(&["dead-letters", "list", "counts", "--by-error", "--json"]).await;
    assert_eq!(list.expect(0).json()["errors"][0]["dead_letters"], 3);
    let show = run(&["dead-letters", "show", "counts", "--key", "-k"]).await;
    assert!(
        show.expect(0).stdout.contains("behind   2 events"),
        "{show:?}"
    );
    let show = run(&["dead-letters", "show", "counts", "--key", "-k", "--json"]).await;
    let event = &show.json()["shown"][0]["event"];
    assert_eq!(
        (&event["position"], &event["type"]),
        (&1.into(), &"T".into())
    );

    let status = run(&["status"]).await;
    let expected = "counts: 1 key is parked with 3 events; highwater dead-letters list counts";
    assert!(status.stdout.contains(expected), "{status:?}");
    let status = run(&["status", "--json"]).await.json();
    let projection = &status["projections"][0];
    assert_eq!(projection["parked_keys"], 1);
    assert_eq!(projection["dead_letters"], 3);

    run(&["dead-letters", "retry", "counts"])
        .await
        .expect_error(2, "no dead letters are named");
    run(&["dead-letters", "show", "counts", "--null-key"])
        .await
        .expect_error(2, "of the key null");
    run(&["dead-letters", "list", "count"])
        .await
        .expect_error(2, "did you mean counts");
    let retry = run(&["dead-letters", "retry", "counts", "--fingerprint", "f1"]).await;
    let expected = "counts: 3 events of 1 key will be retried in order by the next highwater run";
    assert!(retry.expect(0).stdout.starts_with(expected), "{retry:?}");
    run(&["dead-letters", "discard", "counts", "--all"])
        .await
        .expect(2);
    let id = event["id"].as_str().unwrap();
    let why = "--reason=sent by mistake";
    let discard = run(&["dead-letters", "discard", "counts", "--event", id, why]).await;
    let expected = "counts: 1 event discarded\ncounts: 2 events of 1 key stay parked, 2 of them with an \
                error of their own: fix its cause or discard these too; then highwater dead-letters \
                retry counts --key -k applies the others in order\n";
    assert_eq!(discard.expect(0).stdout, expected);
    let discard = run(&["dead-letters", "discard", "counts", "--all", why, "--json"]).await;
    assert_eq!(discard.expect(0).json()["discarded"], 2);
}

/// An event whose version is 2 cannot be applied while there is a constraint.
const PARKING: &str = "
/* highwater
on_error = \"park\"
*/
-- highwater: up
create table seen (stream text not null, version bigint not null,
                   constraint poison check (stream <> 'b' or version <> 2));
-- highwater: apply
insert into seen (stream, version) select stream, version from batch order by position;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_ends_with_3_while_keys_are_parked_and_a_live_run_takes_up_a_retry() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let shop = Shop::new();
    shop.write("projections/seen.sql", PARKING);
    let url = Some(database.url());
    let run = async |arguments: &[&str]| shop.run(url, arguments).await;
    append_rows(&client, "a", 1..=3).await;
    append_rows(&client, "b", 1..=3).await;
    let ran = run(&["run", "--until-caught-up"]).await;
    let expected = "seen: 2 events of 1 key parked; highwater dead-letters list seen shows why";
    assert!(ran.expect(3).stderr.contains(expected), "{ran:?}");
    let ran = run(&["run", "--until-caught-up", "--json"])
        .await
        .expect(3)
        .json();
    let row = &ran["projections"][0];
    assert_eq!(row["outcome"], "caught_up");
    assert_eq!(
        (&row["parked_keys"], &row["dead_letters"]),
        (&1.into(), &2.into())
    );
    let wait = run(&["wait", "seen", "--position", "5"]).await;
    assert!(
        wait.expect(3).stderr.contains("the event at 5 is parked"),
        "{wait:?}"
    );
    let wait = run(&["wait", "seen", "--position", "3"]).await;
    assert_eq!(
        wait.expect(0).stdout,
        "visible at 3, the read model is at 6\n"
    );

    let live = shop.start(url, &["run"]);
    live.says("live").await;
    let retry = run(&["dead-letters", "retry", "seen", "--all"]).await;
    assert!(
        retry
            .expect(0)
            .stdout
            .ends_with("by the instance that runs it now\n"),
        "{retry:?}"
    );
    let again = "select count(*) from highwater.dead_letter where attempts = 2";
    eventually("it fails again", LIMIT, async || {
        one::<i64>(&client, again).await == 1
    })
    .await;
    let fix = "alter table seen.seen drop constraint poison";
    client.batch_execute(fix).await.unwrap();
    run(&["dead-letters", "retry", "seen", "--all"])
        .await
        .expect(0);
    let left = "select count(*) from highwater.dead_letter";
    eventually("all are applied", LIMIT, async || {
        one::<i64>(&client, left).await == 0
    })
    .await;
    let seen = "select string_agg(stream || version, ' ' order by stream, version) from seen.seen";
    assert_eq!(one::<String>(&client, seen).await, "a1 a2 a3 b1 b2 b3");
    live.signal(nix::sys::signal::Signal::SIGTERM);
    live.end().await.expect(0);
    run(&["run", "--until-caught-up"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_run_that_is_stopped_tells_what_is_parked() {
    let database = TestDatabase::new().await;
    let shop = Shop::new();
    shop.write("projections/seen.sql", PARKING);
    append_rows(&database.client().await, "b", 1..=3).await;
    let live = shop.start(Some(database.url()), &["run", "--json"]);
    live.says("live").await;
    live.signal(nix::sys::signal::Signal::SIGTERM);
    let row = live.end().await.expect(0).json()["projections"][0].clone();
    assert_eq!(row["outcome"], "drained");
    assert_eq!(
        (&row["parked_keys"], &row["dead_letters"]),
        (&1.into(), &2.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_fails_where_the_projection_would_park() {
    let database = TestDatabase::new().await;
    let shop = Shop::new();
    shop.write("projections/seen.sql", PARKING);
    let test = "
[[test]]
name = \"all are seen\"
given = [
    { stream = \"b\", type = \"T\", data = {} },
    { stream = \"b\", type = \"T\", data = {} },
]
[test.expect]
seen = [{ stream = \"b\", version = 1 }]
";
    shop.write("projections/seen.test.toml", test);
    let ran = shop.run(Some(database.url()), &["test"]).await;
    let shown = format!("{}{}", ran.expect(1).stdout, ran.stderr);
    let expected = "the event at position 2 (T) cannot be applied, and its key is parked";
    assert!(shown.contains(expected), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_discard_leaves_behind_is_reported_with_a_command_that_works_as_printed() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let shop = Shop::new();
    let by_key = PARKING.replace("on_error", "key = \"data->>'k'\"\non_error");
    shop.write("projections/seen.sql", &by_key);
    let url = Some(database.url());
    // The first event of the key is poison, and two more follow.
    let events = "insert into highwater.event (stream, version, type, data)
        select 'b', v, 'T', jsonb_build_object('k', k)
          from (values (2, 'it''s a key'), (3, 'it''s a key'), (4, 'it''s a key')) e (v, k);
        insert into highwater.event (stream, version, type, data)
        select 'c', v, 'T', '{}' from generate_series(1, 3) v";
    client.batch_execute(events).await.unwrap();
    shop.run(url, &["run", "--until-caught-up"]).await.expect(3);
    let discard = async |version: i64| {
        let sql = format!(
            "select id::text from highwater.event where stream = 'b' and version = {version}"
        );
        let id: String = one(&client, &sql).await;
        let ran = shop
            .run(
                url,
                &[
                    "dead-letters",
                    "discard",
                    "seen",
                    "--event",
                    &id,
                    "--reason=no",
                ],
            )
            .await;
        ran.expect(0).stdout.clone()
    };
    let said = discard(4).await;
    assert!(
        said.contains("2 events of 1 key stay parked, 1 of them with an error"),
        "{said}"
    );
    let said = discard(2).await;
    let command = "highwater dead-letters retry seen --key 'it'\\''s a key'";
    let expected =
        format!("1 event of 1 key stay parked behind what was discarded; {command} applies");
    assert!(said.contains(&expected), "{said}");
    let binary = env!("CARGO_BIN_EXE_highwater");
    let line = command.replacen("highwater", binary, 1);
    let ran = std::process::Command::new("sh")
        .args(["-c", &line])
        .env("DATABASE_URL", database.url())
        .current_dir(shop.dir())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        printed.contains("1 event of 1 key will be retried"),
        "{ran:?}"
    );
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    let seen = "select count(*) from seen.seen where stream = 'b'";
    assert_eq!(one::<i64>(&client, seen).await, 1);
}
