//! `append`.

use highwater::testing::TestDatabase;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::{LIMIT, Shop};
use crate::support::{eventually, one};

fn lines(count: u128) -> String {
    let line = |n: u128| {
        let id = Uuid::from_u128(n);
        format!("{{\"id\":\"{id}\",\"stream\":\"s\",\"type\":\"T\",\"data\":{{\"n\":{n}}}}}\n")
    };
    (1..=count).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_ids_are_appended_once_however_often_the_file_is() {
    let shop = Shop::new();
    let database = TestDatabase::empty().await;
    let url = Some(database.url());
    shop.write("events.ndjson", &lines(3));
    let ran = shop.run(url, &["append", "events.ndjson", "--json"]).await;
    let expected = json!({ "appended": 3, "duplicates": 0, "first": 1, "last": 3 });
    assert_eq!(ran.expect(0).json(), expected);
    let ran = shop.run(url, &["append", "events.ndjson", "--json"]).await;
    let expected = json!({ "appended": 0, "duplicates": 3, "first": null, "last": null });
    assert_eq!(ran.expect(0).json(), expected);
    assert_eq!(ran.stderr, "");
    let ran = shop.run(url, &["append", "events.ndjson"]).await;
    assert_eq!(ran.stdout, "appended nothing; 3 were there already\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_ids_are_warned_about() {
    let shop = Shop::new();
    let database = TestDatabase::empty().await;
    let line = "{\"stream\":\"s\",\"type\":\"T\",\"data\":null}\n";
    let ran = shop
        .run_with(Some(database.url()), &["append", "-"], line)
        .await;
    assert_eq!(
        ran.expect(0).stdout,
        "appended 1 event at positions 1 to 1\n"
    );
    assert!(ran.stderr.contains("warning: 1 event had no id"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_reported_with_its_number_and_what_is_stored() {
    let shop = Shop::new();
    let database = TestDatabase::empty().await;
    let url = Some(database.url());
    let bad = format!("{}{{\"stream\":\"s\",\"type\":\"T\"}}\n", lines(2));
    shop.write("bad.ndjson", &bad);
    let ran = shop.run(url, &["append", "bad.ndjson"]).await;
    ran.expect_error(1, "bad.ndjson: line 3: ");
    assert!(
        ran.stderr.contains("the 2 events before it are stored"),
        "{ran:?}"
    );
    let ran = shop.run(url, &["append", "bad.ndjson", "--json"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    let error = ran.error();
    assert_eq!(error["kind"], "bad_event");
    assert_eq!(error["location"], "bad.ndjson: line 3");
    let ran = shop.run(url, &["append", "none.ndjson"]).await;
    ran.expect_error(1, "none.ndjson: there is no such file");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_an_append_and_what_was_appended_is_reported() {
    let shop = Shop::new();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let mut append = shop.start(Some(database.url()), &["append", "--json"]);
    let mut input = append.child.stdin.take().unwrap();
    input.write_all(lines(5).as_bytes()).await.unwrap();
    input.flush().await.unwrap();
    let all_there = async || one::<i64>(&client, "select count(*) from highwater.event").await == 5;
    eventually("all events are there", LIMIT, all_there).await;
    append.signal(Signal::SIGINT);
    let ran = append.end().await;
    assert_eq!(ran.expect(0).json()["appended"], 5);
    assert!(
        ran.stderr.contains("stopped before the end of the input"),
        "{ran:?}"
    );
}
