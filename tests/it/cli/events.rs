//! `events`.

use std::process::Stdio;

use highwater::testing::TestDatabase;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Ran, Shop};
use crate::support::{append_rows, one};

fn positions(ran: &Ran) -> Vec<i64> {
    let position = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["position"].as_i64().unwrap()
    };
    ran.stdout.lines().map(position).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_lines_of_json_with_the_columns_of_the_batch() {
    let shop = Shop::new();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=3).await;
    append_rows(&client, "b", 1..=2).await;
    let url = Some(database.url());
    let all = shop.run(url, &["events"]).await;
    assert_eq!(positions(all.expect(0)), [1, 2, 3, 4, 5]);
    assert_eq!(all.stderr, "");
    let first: Value = serde_json::from_str(all.stdout.lines().next().unwrap()).unwrap();
    let mut keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    keys.sort();
    let columns = [
        "data",
        "id",
        "metadata",
        "position",
        "recorded_at",
        "stream",
        "type",
        "version",
    ];
    assert_eq!(keys, columns);

    let ran = shop
        .run(url, &["events", "--after", "1", "--limit", "2"])
        .await;
    assert_eq!(positions(&ran), [2, 3]);
    let ran = shop
        .run(
            url,
            &["events", "--stream", "b", "--type", "T", "--type", "U"],
        )
        .await;
    assert_eq!(positions(&ran), [4, 5]);
    let ran = shop.run(url, &["events", "--type", "U"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    let ran = shop.run(url, &["events", "--follow", "--limit", "4"]).await;
    assert_eq!(positions(ran.expect(0)), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_change_is_not_shown_and_who_holds_it_is() {
    let shop = Shop::new();
    let database = TestDatabase::new().await;
    let (held, client) = (database.client().await, database.client().await);
    append_rows(&client, "a", 1..=1).await;
    let insert =
        "insert into highwater.event (stream, version, type, data) values ('h', 1, 'T', '1')";
    held.batch_execute(&format!("begin; {insert};"))
        .await
        .unwrap();
    append_rows(&client, "a", 2..=2).await;
    let follow = shop.start(Some(database.url()), &["events", "--follow"]);
    let ran = shop.run(Some(database.url()), &["events"]).await;
    assert_eq!(positions(ran.expect(0)), [1]);
    let pid: i32 = one(&held, "select pg_backend_pid()").await;
    let expected = format!(
        "warning: events after 1 are not shown; position 2 may still be filled by pid {pid} ("
    );
    assert!(ran.stderr.contains(&expected), "{ran:?}");

    follow.shows("\"position\":1").await;
    held.batch_execute("commit").await.unwrap();
    follow.shows("\"position\":3").await;
    append_rows(&client, "a", 3..=3).await;
    follow.shows("\"position\":4").await;
    follow.signal(Signal::SIGINT);
    let ran = follow.end().await;
    assert_eq!(positions(ran.expect(0)), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_it_quietly() {
    let shop = Shop::new();
    let database = TestDatabase::new().await;
    append_rows(&database.client().await, "a", 1..=3000).await;
    let mut command = shop.command(Some(database.url()), &["events"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().is_some());
    drop(lines);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}
