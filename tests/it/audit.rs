//! `audit`: the ledgers recounted.

use std::sync::Arc;

use highwater::internal::audit::{Audit, Difference, audit};
use highwater::internal::dead_letters::{Selection, discard};
use highwater::internal::projection::Runnable;
use highwater::internal::source::Source;
use highwater::testing::{MemorySource, TestDatabase, run_to_head};
use highwater::{ErrorKind, ProjectionName};
use serde_json::json;
use tokio_postgres::Client;

use crate::support::{COUNTS, append_rows, one, sql_projection};

fn picky() -> Arc<dyn Runnable> {
    sql_projection(
        "counts",
        &format!("/* highwater\nevents = [\"T\"]\n*/\n{COUNTS}"),
    )
}

/// Twenty events of the wanted type and ten others, with holes, all applied.
async fn built() -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=20).await;
    let others = "insert into highwater.event (stream, version, type, data)
                  select 'o', n, 'Other', '{}' from generate_series(1, 10) n;
                  select nextval(pg_get_serial_sequence('highwater.event', 'position'));";
    client.batch_execute(others).await.unwrap();
    append_rows(&client, "s", 21..=22).await;
    run_to_head(&database, database.source(), vec![picky()])
        .await
        .unwrap();
    (database, client)
}

async fn audited(database: &TestDatabase, known: &[Arc<dyn Runnable>]) -> Audit {
    let known: Vec<_> = known.iter().map(|p| p.definition().clone()).collect();
    let sources: [Arc<dyn Source>; 1] = [database.source()];
    audit(&database.pooled(), &sources, &known, None)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_ledger_agrees_and_says_what_became_of_the_events() {
    let (database, _) = built().await;
    let found = audited(&database, &[picky()]).await;
    assert!(found.agrees(), "{}", found.render());
    let text = "counts: positions (0, 33], 32 scanned = 22 applied + 10 filtered + 0 parked + \
                0 discarded: as the log says\n";
    assert_eq!(found.render(), text);
    let json = &found.to_json()["ledgers"][0];
    let found = json!({
        "scanned": 32, "own": 22, "letters": 0, "removed_through": 0, "removed_others": 0
    });
    assert_eq!(json["found"], found);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_appear_below_the_mark_or_go_are_told_apart() {
    let (database, client) = built().await;
    let below = "insert into highwater.event (position, stream, version, type, data)
                 overriding system value values (31, 'late', 1, 'T', '{}')";
    client.batch_execute(below).await.unwrap();
    let found = audited(&database, &[picky()]).await;
    let differences = [Difference::Appeared(1), Difference::Own(22, 23)];
    assert_eq!(found.ledgers[0].differences, differences);
    assert!(
        found
            .render()
            .contains("1 event appeared after its position")
    );
    client
        .batch_execute(&unseen("stream in ('late', 'o')"))
        .await
        .unwrap();
    let found = audited(&database, &[picky()]).await;
    assert_eq!(found.ledgers[0].differences, [Difference::Gone(10)]);
    // What the types were is not known without the file: only the sum is compared.
    let found = audited(&database, &[]).await;
    assert_eq!(found.ledgers[0].differences, [Difference::Gone(10)]);
}

/// Deletes events so that it is not written down, as a restore or a disabled trigger does.
fn unseen(which: &str) -> String {
    format!(
        "alter table highwater.event disable trigger user;
         delete from highwater.event where {which};
         alter table highwater.event enable trigger user"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_became_another_is_a_difference_where_the_sums_agree() {
    let (database, client) = built().await;
    let other = "update highwater.event set type = 'Other' where position = 1";
    client.batch_execute(other).await.unwrap();
    let found = audited(&database, &[picky()]).await;
    assert_eq!(found.ledgers[0].differences, [Difference::Own(22, 21)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_removed_on_purpose_are_told_and_are_no_difference() {
    let (database, client) = built().await;
    client
        .batch_execute("delete from highwater.event where position in (7, 8, 25)")
        .await
        .unwrap();
    let found = audited(&database, &[picky()]).await;
    assert!(found.agrees(), "{}", found.render());
    assert!(found.render().contains("3 were removed since"));
    // One more than was written down.
    client.batch_execute(&unseen("position = 9")).await.unwrap();
    let found = audited(&database, &[picky()]).await;
    assert_eq!(found.ledgers[0].differences, [Difference::Gone(1)]);
    client
        .batch_execute("delete from highwater.event where position < 20")
        .await
        .unwrap();
    let found = audited(&database, &[picky()]).await;
    assert!(found.agrees(), "{}", found.render());
    // The 19 oldest, among them 9, and 25; there is no telling any more who is who.
    let text = found.render();
    assert!(!text.contains("as the log says"), "{text}");
    let told = "20 of these are not in the log any more; events up to 19 were removed, and whether 19 \
                of the 20 were among them cannot be told";
    assert!(text.contains(told), "{text}");
    assert_eq!(found.to_json()["ledgers"][0]["cannot_be_told"], 19);
    // One more than there are positions up to there: some went otherwise.
    client
        .batch_execute(&unseen("position = 33"))
        .await
        .unwrap();
    let found = audited(&database, &[picky()]).await;
    assert_eq!(found.ledgers[0].differences, [Difference::Gone(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_above_the_checkpoint_are_no_difference() {
    let (database, client) = built().await;
    append_rows(&client, "later", 1..=5).await;
    assert!(audited(&database, &[picky()]).await.agrees());
}

#[tokio::test(flavor = "multi_thread")]
async fn ledgers_of_partitions_that_are_no_more_and_their_letters_are_recounted_too() {
    let (database, client) = built().await;
    let closed = "insert into highwater.ledger
        select 'counts', 1, 0, 0, 1, 0, 10, 10, 9, 0, 1, 0";
    client.batch_execute(closed).await.unwrap();
    let found = audited(&database, &[picky()]).await;
    assert_eq!(found.ledgers.len(), 2);
    assert_eq!(found.ledgers[0].differences, [Difference::Letters(1, 0)]);
    let letter = "insert into highwater.dead_letter (projection, generation, position, key, layout,
            partition, id, stream, version, type, data, metadata, recorded_at)
        select 'counts', 1, position, stream, 0, 0, id, stream, version, type, data, metadata,
               recorded_at
        from highwater.event where position = 4";
    client.batch_execute(letter).await.unwrap();
    let found = audited(&database, &[picky()]).await;
    assert!(found.agrees(), "{}", found.render());
    client
        .batch_execute("update highwater.ledger set counted_to = 11")
        .await
        .unwrap();
    let found = audited(&database, &[picky()]).await;
    let differences = [Difference::Appeared(1), Difference::Own(10, 11)];
    assert_eq!(found.ledgers[0].differences, differences);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_and_a_source_that_is_not_there_are_named() {
    let (database, _) = built().await;
    let memory: [Arc<dyn Source>; 1] = [Arc::new(MemorySource::new("default"))];
    let found = audit(&database.pooled(), &memory, &[], None).await.unwrap();
    assert_eq!(found.ledgers[0].differences, [Difference::OtherLog]);
    let error = audit(&database.pooled(), &[], &[], None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let name: ProjectionName = "none".parse().unwrap();
    let sources: [Arc<dyn Source>; 1] = [database.source()];
    let error = audit(&database.pooled(), &sources, &[], Some(&name)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Fails at events that are bad, until somebody mends it.
const MENDED: &str = "/* highwater
partitions = PARTITIONS
on_error = \"park\"
*/
-- highwater: up
create table seen (position bigint primary key, n int);
create table switch as select 0 as n;
-- highwater: apply
insert into seen select position, 1 / case when data ? 'bad' then (select n from switch) else 1 end
from batch;
";

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_of_parked_events_agree_through_new_partitions_a_retry_and_a_discard() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let events = "insert into highwater.event (stream, version, type, data)
        select 's' || n % 10, n / 10 + 1, 'T', case when n in (21, 32, 43) then '{\"bad\": 1}' else '{}' end::jsonb
        from generate_series(10, 99) n";
    let mended = |n: i32| sql_projection("mended", &MENDED.replace("PARTITIONS", &n.to_string()));
    let sums = "select concat_ws(' ', sum(applied), sum(parked), sum(discarded))
                from (select applied, parked, discarded from highwater.checkpoint
                      union all select applied, parked, discarded from highwater.ledger) l";
    let steps: [(i32, &str, &str); 5] = [
        (2, events, "69 21 0"),
        (3, "select 1", "69 21 0"),
        (
            3,
            "update mended.switch set n = 1; update highwater.dead_letter set retry_requested_at = now() where key = 's1'",
            "77 13 0",
        ),
        (
            2,
            "update highwater.dead_letter set retry_requested_at = now() where key = 's2'",
            "84 6 0",
        ),
        (2, "DISCARD", "84 0 6"),
    ];
    for (partitions, before, expected) in steps {
        if before == "DISCARD" {
            let name = "mended".parse().unwrap();
            let discarded = discard(&database.pooled(), &name, &Selection::All, "too late").await;
            assert_eq!(discarded.unwrap().discarded, 6);
        } else {
            client.batch_execute(before).await.unwrap();
        }
        let mended = mended(partitions);
        run_to_head(&database, database.source(), vec![mended.clone()])
            .await
            .unwrap();
        assert_eq!(one::<String>(&client, sums).await, expected, "{before}");
        let found = audited(&database, &[mended]).await;
        assert!(found.agrees(), "{before}: {}", found.render());
    }
    let seen = "select count(*) from mended.seen";
    assert_eq!(one::<i64>(&client, seen).await, 84);
}
