//! `run`.

use highwater::testing::TestDatabase;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{LIMIT, PICKY, Ran, Shop};
use crate::support::{append, append_rows, eventually, one};

const ASLEEP: &str = "select count(*) from pg_stat_activity \
                      where datname = current_database() and wait_event = 'PgSleep'";
/// A batch that never ends by itself: it is there to be cancelled.
const ENDLESS: &str = "-- highwater: apply\nselect pg_sleep(600);\n";
const POSITION: &str = "select coalesce(max(position), 0) from highwater.checkpoint";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_until_caught_up_ends_with_0_and_says_where() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    append_rows(&database.client().await, "a", 1..=10).await;
    let url = Some(database.url());
    let ran = shop.run(url, &["run", "--until-caught-up"]).await;
    assert_eq!(ran.expect(0).stdout, "");
    assert!(
        ran.stderr.contains("counts: caught up at position 10\n"),
        "{ran:?}"
    );
    let ran = shop
        .run(url, &["run", "--until-caught-up", "--json", "counts"])
        .await;
    let row = json!({
        "name": "counts", "outcome": "caught_up", "position": 10, "parked_keys": 0, "dead_letters": 0,
        "error": null,
    });
    assert_eq!(ran.expect(0).json(), json!({ "projections": [row] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_projection_ends_a_catch_up_with_4_and_the_others_arrive() {
    let shop = Shop::new();
    shop.write_counts();
    shop.write("projections/picky.sql", PICKY);
    let database = TestDatabase::new().await;
    append_rows(&database.client().await, "a", 1..=10).await;
    let url = Some(database.url());
    let ran = shop.run(url, &["run", "--until-caught-up", "--json"]).await;
    let projections = ran.expect(4).json()["projections"].clone();
    assert_eq!(projections[0]["outcome"], "caught_up");
    assert_eq!(projections[1]["outcome"], "stopped");
    assert_eq!(projections[1]["position"], 6);
    let error = &projections[1]["error"];
    assert_eq!(error["kind"], "apply");
    assert_eq!(error["sqlstate"], "22012");
    assert_eq!(error["position"], 7);
    assert_eq!(error["location"], "projections/picky.sql: line 5");
    // All that run have stopped: nothing is left to do.
    let ran = shop.run(url, &["run", "picky"]).await;
    assert_eq!(ran.expect(4).stdout, "");
    assert!(
        ran.stderr
            .contains("warning: picky: stopped (apply) at position 6: "),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("stopped projection=picky kind=apply"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_a_live_run() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let run = shop.start(Some(database.url()), &["run", "--json"]);
    run.says("live").await;
    append_rows(&client, "a", 1..=5).await;
    let all = async || one::<i64>(&client, POSITION).await == 5;
    eventually("all events are applied", LIMIT, all).await;
    run.signal(Signal::SIGTERM);
    let ran = run.end().await;
    let projections = ran.expect(0).json()["projections"].clone();
    assert_eq!(projections[0]["outcome"], "drained");
    assert_eq!(projections[0]["position"], 5);
    let sql = "select count(*) from highwater.instance";
    assert_eq!(one::<i64>(&client, sql).await, 0, "it signed off");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_the_middle_of_a_catch_up_loses_nothing_and_applies_nothing_twice() {
    let shop = Shop::new();
    shop.write_counts();
    shop.write("highwater.toml", "[engine]\nbatch_events_max = 20\n");
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let fill = "insert into highwater.event (stream, version, type, data) \
                select 's' || n % 7, n / 7 + 1, 'T', '{}' from generate_series(0, 19999) n";
    client.batch_execute(fill).await.unwrap();
    let url = Some(database.url());
    let run = shop.start(url, &["run", "--until-caught-up", "--json"]);
    let begun = async || one::<i64>(&client, POSITION).await > 0;
    eventually("the catch-up has begun", LIMIT, begun).await;
    run.signal(Signal::SIGINT);
    let ran = run.end().await;
    assert_eq!(ran.expect(0).json()["projections"][0]["outcome"], "drained");
    assert!(one::<i64>(&client, POSITION).await < 20_000);
    shop.write("highwater.toml", "");
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    let wrong = "select count(*) from (select stream, count(*) n from highwater.event group by 1) e \
                 full join counts.counts c using (stream) where e.n is distinct from c.n";
    assert_eq!(one::<i64>(&client, wrong).await, 0);
    assert_eq!(
        one::<i64>(&client, "select sum(n)::bigint from counts.counts").await,
        20_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_stands_by_and_continues_where_the_first_one_ends() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let url = Some(database.url());
    let first = shop.start(url, &["run"]);
    first.says("live").await;
    let second = shop.start(url, &["run"]);
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    first.signal(Signal::SIGINT);
    first.end().await.expect(0);
    second.says("live").await;
    append_rows(&client, "a", 1..=3).await;
    shop.run(url, &["wait", "counts"]).await.expect(0);
    second.signal(Signal::SIGINT);
    second.end().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_runs_out_ends_a_run_with_124() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let url = Some(database.url());
    let ran = shop
        .run(url, &["run", "--timeout", "300ms", "--log-format", "json"])
        .await;
    ran.expect(124);
    for line in ran.stderr.lines() {
        let entry: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(
            entry.is_ok_and(|entry| entry["message"].is_string()),
            "{line}"
        );
    }
    let ran = shop
        .run(url, &["run", "--until-caught-up", "--timeout", "1m"])
        .await;
    ran.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_run_at_once() {
    let shop = Shop::new();
    shop.write("highwater.toml", "[engine]\nstop_grace = \"10m\"\n");
    shop.write("projections/slow.sql", ENDLESS);
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=1).await;
    let run = shop.start(Some(database.url()), &["run"]);
    let is_asleep = async || one::<i64>(&client, ASLEEP).await == 1;
    eventually("the batch is in flight", LIMIT, is_asleep).await;
    run.signal(Signal::SIGINT);
    run.says("finishing the work in flight; a second signal stops at once")
        .await;
    run.signal(Signal::SIGINT);
    let ran = run.end().await;
    assert!(ran.expect(1).stderr.contains("stopped at once"), "{ran:?}");
    assert_eq!(one::<i64>(&client, POSITION).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_projection_is_reported_with_its_position() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    append_rows(&database.client().await, "a", 1..=10).await;
    let url = Some(database.url());
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    shop.write(
        "projections/counts.sql",
        &super::COUNTS.replace("count(*)", "2 * count(*)"),
    );
    let ran = shop.run(url, &["run", "--json"]).await;
    let projection = ran.expect(4).json()["projections"][0].clone();
    assert_eq!(logged_stops(&ran), ["changed"], "{ran:?}");
    assert_eq!(projection["error"]["kind"], "changed");
    assert_eq!(projection["position"], 10);
    let status = shop.run(url, &["status", "--json"]).await.expect(0).json();
    let error = &status["projections"][0]["last_error"];
    assert_eq!(
        (&error["kind"], &error["position"]),
        (&json!("changed"), &json!(10))
    );
}

/// The kinds of the stops of `counts` in the log.
fn logged_stops(ran: &Ran) -> Vec<&str> {
    let stops = ran.stderr.split("stopped projection=counts kind=").skip(1);
    stops.filter_map(|stop| stop.split(' ').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_each_stop_once_with_its_kind() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=3).await;
    let url = Some(database.url());
    let run = shop.start(url, &["run"]);
    run.says("live").await;
    let changed = super::COUNTS.replace("count(*)", "2 * count(*)");
    shop.write("projections/counts.sql", &changed);
    shop.run(url, &["accept", "counts"]).await.expect(0);
    let ran = run.end().await;
    ran.expect(4);
    assert_eq!(logged_stops(&ran), ["changed"], "{ran:?}");
    let another = "update highwater.checkpoint set source_identity = 'another log'";
    client.batch_execute(another).await.unwrap();
    let ran = shop.run(url, &["run"]).await;
    ran.expect(4);
    assert_eq!(logged_stops(&ran), ["diverged"], "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_batch_that_takes_long_is_catching_up_and_a_signal_ends_it() {
    let shop = Shop::new();
    shop.write("projections/slow.sql", ENDLESS);
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=3).await;
    let run = shop.start(Some(database.url()), &["run"]);
    let is_asleep = async || one::<i64>(&client, ASLEEP).await == 1;
    eventually("the batch is in flight", LIMIT, is_asleep).await;
    let status = shop.run(Some(database.url()), &["status", "--json"]).await;
    let status = status.expect(0).json();
    assert_eq!(status["projections"][0]["state"], "catching_up");
    run.signal(Signal::SIGTERM);
    run.end().await.expect(0);
    assert_eq!(one::<i64>(&client, ASLEEP).await, 0, "it was cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_for_now_is_tried_again() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=3).await;
    let url = Some(database.url());
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    append_rows(&client, "a", 4..=5).await;
    let name: String = one(&client, "select current_database()::text").await;
    let read_only = format!("alter database \"{name}\" set default_transaction_read_only = on");
    client.batch_execute(&read_only).await.unwrap();
    let run = shop.start(url, &["run"]);
    run.says("retrying").await;
    run.says("read-only transaction").await;
    let end = format!(
        "alter database \"{name}\" reset default_transaction_read_only; \
         select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()"
    );
    client.batch_execute(&end).await.unwrap();
    let all = async || one::<i64>(&client, POSITION).await == 5;
    eventually("it goes on", LIMIT, all).await;
    run.signal(Signal::SIGTERM);
    run.end().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_has_in_flight_ends_in_the_server_too() {
    let shop = Shop::new();
    shop.write("projections/slow.sql", ENDLESS);
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=3).await;
    let mut run = shop.start(Some(database.url()), &["run"]);
    let is_asleep = async || one::<i64>(&client, ASLEEP).await == 1;
    eventually("the batch is in flight", LIMIT, is_asleep).await;
    let drop = shop.start(Some(database.url()), &["drop", "slow"]);
    drop.says("waiting for a batch in flight;").await;
    run.child.kill().await.unwrap();
    // It holds the checkpoint, which the drop waits for.
    assert_eq!(drop.end().await.expect(0).stdout, "slow: dropped\n");
    assert_eq!(one::<i64>(&client, ASLEEP).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_the_status_sees_it_again_after_a_lost_connection() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let watch = shop.start(Some(database.url()), &["status", "--watch", "--json"]);
    watch.shows("\n").await;
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where datname = current_database() and pid <> pg_backend_pid()";
    assert!(one::<i64>(&client, terminate).await > 0);
    let file = watch.stdout.clone();
    let lines = || std::fs::read_to_string(&file).unwrap().lines().count();
    let seen = lines();
    eventually("it is shown again", LIMIT, async || lines() > seen + 1).await;
    watch.signal(Signal::SIGINT);
    watch.end().await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_whose_time_runs_out_says_so_and_why_it_was_not_further() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=3).await;
    let url = Some(database.url());
    let late = async |timeout: &str, words: &[&str]| {
        let ran = shop
            .run(url, &["run", "--until-caught-up", "--timeout", timeout])
            .await;
        ran.expect(124);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        }
    };
    late("0", &["the time ran out before anything was run"]).await;
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);

    append_rows(&client, "a", 4..=4).await;
    let other = database.client().await;
    let lock = "begin; lock table counts.counts in share mode";
    other.batch_execute(lock).await.unwrap();
    let pid: i32 = one(&other, "select pg_backend_pid()").await;
    let blocked = format!("its batch waits for a lock held by pid {pid} (");
    late(
        "2s",
        &["counts: the time ran out at position 3: ", &blocked],
    )
    .await;
    other.batch_execute("rollback").await.unwrap();

    shop.run(url, &["pause", "counts"]).await.expect(0);
    late("1s", &["it is paused; highwater resume counts resumes it"]).await;
    shop.run(url, &["resume", "counts"]).await.expect(0);

    other.batch_execute("begin").await.unwrap();
    append(&other, "open", 1).await;
    append_rows(&client, "a", 5..=5).await;
    let held = format!("position 5 may still be filled by pid {pid} (");
    late("2s", &["counts: the time ran out at position 4: ", &held]).await;
    let ran = shop
        .run(
            url,
            &["run", "--until-caught-up", "--timeout", "2s", "--json"],
        )
        .await;
    let why = ran.expect(124).json()["projections"][0]["why"].to_string();
    assert!(why.contains(&held), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_that_passes_over_removed_events_says_which() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let url = Some(database.url());
    append_rows(&client, "a", 1..=10).await;
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    append_rows(&client, "a", 11..=30).await;
    let remove = "delete from highwater.event where position <= 25";
    client.batch_execute(remove).await.unwrap();
    shop.run(url, &["run", "--until-caught-up"]).await.expect(4);
    let accepted = shop.run(url, &["accept", "counts"]).await;
    assert_eq!(
        accepted.expect(0).stdout,
        "counts: accepted; it resumes after position 25, and events after 10 up to there are not \
         in its read model\n"
    );
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
}
