//! Every command through a pooler in transaction mode.

use highwater::testing::TestDatabase;
use nix::sys::signal::Signal;

use super::{LIMIT, Shop};
use crate::support::pooler::Pooler;
use crate::support::{append_rows, eventually, one};

const PARKS: &str = "/* highwater
on_error = \"park\"
partitions = 2
*/
-- highwater: up
create table parks (stream text, version bigint, quotient int);
-- highwater: apply
insert into parks select stream, version, 10 / ((data->>'n')::int - 3) from batch;
";

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_through_a_pooler_in_transaction_mode() {
    let database = TestDatabase::empty().await;
    let Some(pooler) = Pooler::start(database.url()).await else {
        return;
    };
    let (url, client) = (pooler.url(), database.client().await);
    let shop = Shop::new();
    shop.write_counts();
    shop.write("projections/parks.sql", PARKS);
    shop.write(
        "highwater.toml",
        "[engine]\nlisten = false\nlease = \"1s\"\n",
    );
    let run = async |arguments: &[&str]| shop.run(Some(&url), arguments).await;
    let appended = r#"{"stream":"a","type":"T","data":{"n":1}}"#;
    let ran = shop.run_with(Some(&url), &["append", "-"], appended).await;
    ran.expect(0);
    append_rows(&client, "b", 1..=5).await;
    // The third of b cannot be applied: it and what follows it are parked.
    run(&["run", "--until-caught-up"]).await.expect(3);
    let counted = "select sum(n)::bigint from counts.counts";
    assert_eq!(one::<i64>(&client, counted).await, 6);
    run(&["status"]).await.expect(0);
    run(&["check"]).await.expect(0);
    run(&["events"]).await.expect(0);
    run(&["audit"]).await.expect(0);
    run(&["wait", "counts", "--timeout", "20s"]).await.expect(0);
    let listed = run(&["dead-letters", "list", "parks"]).await;
    assert!(
        listed.expect(0).stdout.contains("division by zero"),
        "{listed:?}"
    );
    run(&["dead-letters", "show", "parks", "--all"])
        .await
        .expect(0);
    let id = "select id::text from highwater.event where stream = 'b' and version = 3";
    let id: String = one(&client, id).await;
    let discard = [
        "dead-letters",
        "discard",
        "parks",
        "--event",
        &id,
        "--reason",
        "by zero",
    ];
    run(&discard).await.expect(0);
    run(&["dead-letters", "retry", "parks", "--all"])
        .await
        .expect(0);
    run(&["run", "--until-caught-up"]).await.expect(0);
    run(&["rebuild", "counts"]).await.expect(0);

    let live = shop.start(Some(&url), &["run"]);
    append_rows(&client, "c", 4..=13).await;
    eventually("it follows", LIMIT, async || {
        one::<i64>(&client, counted).await == 16
    })
    .await;
    run(&["pause", "counts"]).await.expect(0);
    append_rows(&client, "c", 14..=14).await;
    run(&["wait", "parks", "--timeout", "20s"]).await.expect(0);
    assert_eq!(one::<i64>(&client, counted).await, 16);
    run(&["resume", "counts"]).await.expect(0);
    run(&["wait", "counts", "--timeout", "20s"]).await.expect(0);
    assert_eq!(one::<i64>(&client, counted).await, 17);
    live.signal(Signal::SIGTERM);
    live.end().await.expect(0);
    run(&["audit"]).await.expect(0);
    run(&["accept", "counts"]).await.expect(0);
    run(&["drop", "counts"]).await.expect(0);
}
