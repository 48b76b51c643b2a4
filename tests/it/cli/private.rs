//! What works with nothing configured: the private PostgreSQL, and the demo.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{LIMIT, Shop};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn commands_share_the_private_server_that_one_holds() {
    let shop = Shop::new();
    shop.write_counts();
    let none = shop.run(None, &["db", "url"]).await;
    none.expect_error(1, "no private PostgreSQL runs for this project");
    let held = shop.start(None, &["db", "start"]);
    held.shows("\n").await;
    held.says("development only").await;
    let url = shop.run(None, &["db", "url"]).await;
    assert_eq!(
        url.expect(0).stdout,
        fs::read_to_string(&held.stdout).unwrap()
    );
    let second = shop.run(None, &["db", "start"]).await;
    second.expect_error(1, "already runs, started by another process");
    let events = shop.run(None, &["events"]).await;
    events.expect_error(1, "run highwater init");
    let line = "{\"stream\":\"a\",\"type\":\"T\",\"data\":1}\n";
    shop.run_with(None, &["append", "-q"], line).await.expect(0);
    let run = shop.run(None, &["run", "--until-caught-up"]).await;
    assert!(run.expect(0).stderr.contains("development only"), "{run:?}");
    let psql = shop
        .run(
            None,
            &["db", "psql", "--", "-Atc", "select n from counts.counts"],
        )
        .await;
    let is_shown = (psql.code, psql.stdout.as_str()) == (0, "1\n");
    assert!(
        is_shown || psql.stderr.contains("there is no psql"),
        "{psql:?}"
    );
    let stop = shop.run(None, &["db", "stop", "--json"]).await;
    assert_eq!(stop.expect(0).json()["stopped"], true);
    let ran = held.end().await;
    assert!(ran.expect(0).stderr.contains("it was stopped"), "{ran:?}");
    let stop = shop.run(None, &["db", "stop", "--json"]).await;
    assert_eq!(stop.expect(0).json()["stopped"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_alone_brings_its_private_server_down_again() {
    let shop = Shop::new();
    shop.run(None, &["init"]).await.expect(0);
    assert_eq!(processes_of(&shop), 0);
    let held = shop.start(None, &["db", "start"]);
    held.shows("\n").await;
    held.signal(Signal::SIGTERM);
    held.end().await.expect(0);
    assert_eq!(processes_of(&shop), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn db_does_not_touch_a_configured_database() {
    let shop = Shop::new();
    let url = Some("postgresql://app:hunter2@db.example/shop");
    for command in ["start", "psql"] {
        let ran = shop.run(url, &["db", command]).await;
        ran.expect_error(2, "DATABASE_URL: this names the database");
    }
    let ran = shop.run(url, &["db", "url"]).await;
    assert!(ran.expect(0).stdout.contains("host=db.example"), "{ran:?}");
    assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_needs_nothing_agrees_with_git_and_leaves_nothing_behind() {
    let shop = Shop::new();
    // What is the user's does not count.
    shop.write("highwater.toml", "bogus = 1\n");
    let ran = shop
        .run(Some("postgresql://127.0.0.1:1/x"), &["demo", "--json"])
        .await;
    let result = ran.expect(0).json();
    let truth = include_str!("../../../data/tokio-history.truth.json");
    let truth: Value = serde_json::from_str(truth).unwrap();
    assert_eq!(result["events"], truth["events"]);
    assert_eq!(result["files"]["all"], truth["files_alive"]);
    assert_eq!(result["files"]["as_in_git"], truth["files_alive"]);
    let projections = result["projections"].as_array().unwrap();
    let rows = |name: &str| {
        let found = projections
            .iter()
            .find(|projection| projection["name"] == name);
        found.unwrap()["rows"].as_array().unwrap()
    };
    assert_eq!(rows("files")[0]["path"], "tokio/Cargo.toml");
    assert_eq!(rows("files")[0]["changes"], 374);
    assert_eq!(rows("authors").len(), 10);
    assert_eq!(rows("hotspots")[0]["together"], 125);
    assert_nothing_is_left(&shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_the_demo_with_nothing_left() {
    let shop = Shop::new();
    let demo = shop.start(None, &["demo"]);
    demo.says("development only").await;
    assert!(processes_of(&shop) > 0);
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.end().await.expect(0).stdout, "");
    assert_nothing_is_left(&shop);
    let demo = shop.start(None, &["demo"]);
    let begun = async || fs::read_dir(shop.temporary()).unwrap().count() > 0;
    eventually("the demo has begun", LIMIT, begun).await;
    demo.signal(Signal::SIGTERM);
    demo.end().await.expect(0);
    assert_nothing_is_left(&shop);
}

#[track_caller]
fn assert_nothing_is_left(shop: &Shop) {
    let left = fs::read_dir(shop.temporary()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_of(shop), 0);
}

/// How many processes have a path of this shop on their command line.
fn processes_of(shop: &Shop) -> usize {
    let path = shop.top.path().to_str().unwrap();
    let of_shop = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path)
    };
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes.filter(of_shop).count()
}
