//! `audit`: what the log holds, against what it held when it was passed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater::internal::audit::{Audit, audit};
use highwater::internal::engine::rebuild::{Rebuild, Rebuilt};
use highwater::internal::engine::{Engine, Settings};
use highwater::internal::projection::DynProjection;
use highwater::internal::source::Source;
use highwater::testing::{MemorySource, TestDatabase};
use highwater::{ErrorKind, ProjectionName};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::exactness::{Running, caught_up};
use crate::support::{COUNTS, append_rows, eventually, one, run_to_head, sql_projection};

const LIMIT: Duration = crate::support::PATIENCE;

fn picky() -> Arc<dyn DynProjection> {
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

async fn audited(database: &TestDatabase) -> Audit {
    let sources: [Arc<dyn Source>; 1] = [database.source()];
    audit(&database.pooled(), &sources, None).await.unwrap()
}

/// As [`built`], and what the log holds is on record.
async fn built_and_recorded() -> (TestDatabase, Client) {
    let (database, client) = built().await;
    let first = audited(&database).await;
    assert!(first.agrees(), "{}", first.render());
    (database, client)
}

/// Events before and now of each block that concerns the read model.
fn concerns(audit: &Audit) -> Vec<(u64, u64)> {
    let changes = audit.read_models.iter().flat_map(|m| &m.concerned_by);
    changes.map(|c| (c.events_before, c.events_now)).collect()
}

const LATE: &str = "insert into highwater.event (position, stream, version, type, data)
                    overriding system value values (31, 'late', 1, 'T', '{}')";

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_holds_what_it_held_agrees_and_says_how_much_was_compared() {
    let (database, _) = built_and_recorded().await;
    let found = audited(&database).await;
    assert!(found.agrees(), "{}", found.render());
    assert_eq!(
        found.render(),
        "source default: 32 events in 1 blocks are unchanged\ncounts: no event that it has read \
         has changed, up to 33\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_appears_below_a_position_already_passed_is_found_until_a_rebuild() {
    let (database, client) = built_and_recorded().await;
    client.batch_execute(LATE).await.unwrap();
    for _ in 0..2 {
        let found = audited(&database).await;
        assert_eq!(concerns(&found), [(32, 33)], "{}", found.render());
        let text = found.render();
        assert!(
            text.contains("1 event appeared after it had been passed"),
            "{text}"
        );
        assert!(text.contains("highwater rebuild counts"), "{text}");
    }
    let rebuild = Rebuild::new(
        database.pooled(),
        database.source(),
        picky(),
        Settings::default(),
    );
    let rebuilt = rebuild.run(CancellationToken::new()).await.unwrap();
    assert!(matches!(rebuilt, Rebuilt::Swapped { .. }), "{rebuilt:?}");
    let found = audited(&database).await;
    assert!(
        found.agrees(),
        "built from the events that are there: {}",
        found.render()
    );
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
async fn events_that_vanished_are_distinguished_from_those_removed_on_purpose() {
    let (database, client) = built_and_recorded().await;
    let removed = "delete from highwater.event where position in (7, 8, 25)";
    client.batch_execute(removed).await.unwrap();
    let found = audited(&database).await;
    assert!(found.agrees(), "{}", found.render());
    client.batch_execute(&unseen("position = 9")).await.unwrap();
    let found = audited(&database).await;
    assert_eq!(concerns(&found), [(29, 28)], "{}", found.render());
    assert!(
        found.render().contains("1 event vanished"),
        "{}",
        found.render()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_became_another_is_found_where_the_numbers_agree() {
    let (database, client) = built_and_recorded().await;
    let other = "update highwater.event set id = gen_random_uuid() where position = 1";
    client.batch_execute(other).await.unwrap();
    let found = audited(&database).await;
    assert_eq!(concerns(&found), [(32, 32)], "{}", found.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_whose_oldest_events_were_removed_on_purpose_are_not_compared() {
    let (database, client) = built_and_recorded().await;
    let removed = "delete from highwater.event where position < 20";
    client.batch_execute(removed).await.unwrap();
    let found = audited(&database).await;
    assert!(found.agrees(), "{}", found.render());
    assert_eq!(found.logs[0].trimmed, 1);
    assert!(
        found.render().contains("cannot be compared"),
        "{}",
        found.render()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_above_the_checkpoint_concern_nobody() {
    let (database, client) = built_and_recorded().await;
    append_rows(&client, "later", 1..=5).await;
    assert!(audited(&database).await.agrees());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_instance_records_what_its_reader_saw_and_counts_the_rest() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "before", 1..=2_000).await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(picky());
    let running = Running::start(engine);
    caught_up(&client).await;
    for version in 1..=5 {
        append_rows(&client, "live", version..=version).await;
        caught_up(&client).await;
    }
    eventually(
        "every position is on record",
        Duration::from_secs(30),
        async || {
            let covered = "select coalesce(sum(events), 0)::bigint from highwater.block";
            one::<i64>(&client, covered).await >= 2_005
        },
    )
    .await;
    running.stop().await;
    let in_hand =
        "select coalesce(sum(events), 0)::bigint from highwater.block where not counted_later";
    assert_eq!(one::<i64>(&client, in_hand).await, 5);
    assert!(audited(&database).await.agrees());
    client
        .batch_execute(&unseen("stream = 'live' and version = 3"))
        .await
        .unwrap();
    let found = audited(&database).await;
    assert_eq!(concerns(&found), [(5, 4)], "{}", found.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_has_in_hand_is_never_counted_a_second_time_while_events_keep_coming() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(picky());
    let running = Running::start(engine);
    append_rows(&client, "live", 1..=1).await;
    caught_up(&client).await;
    let (mut version, mut sizes) = (1, BTreeSet::new());
    eventually("the open block was written as it grew", LIMIT, async || {
        version += 1;
        append_rows(&client, "live", version..=version).await;
        let size = "select coalesce(max(events), 0) from highwater.block where not counted_later";
        sizes.insert(one::<i64>(&client, size).await);
        sizes.len() > 3
    })
    .await;
    running.stop().await;
    let later = "select count(*) from highwater.block where counted_later and after > 0";
    assert_eq!(one::<i64>(&client, later).await, 0);
    assert!(audited(&database).await.agrees());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_audit_found_changed_stays_so_while_its_reader_continues() {
    let (database, client) = built_and_recorded().await;
    let open = "update highwater.block set counted_later = false";
    client.batch_execute(open).await.unwrap();
    client.batch_execute(LATE).await.unwrap();
    assert_eq!(concerns(&audited(&database).await), [(32, 33)]);
    // As a reader writes that did not see the late event.
    let grown = "insert into highwater.block as b select source_identity, after, 40, 32, 0, false from highwater.block";
    let written = include_str!("../../sql/queries/block/record.sql");
    let conflict = &written[written.find("on conflict").unwrap()..];
    client
        .batch_execute(&format!("{grown} {conflict}"))
        .await
        .unwrap();
    let found = audited(&database).await;
    assert_eq!(
        concerns(&found),
        [(32, 33)],
        "once only: {}",
        found.render()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_audits_too_and_says_that_nothing_is_on_record() {
    let (database, client) = built_and_recorded().await;
    client.batch_execute(LATE).await.unwrap();
    let set = |action: &str| {
        format!(
            "do $$ begin execute format('alter database %I {action}', current_database()); end $$"
        )
    };
    let read_only = set("set default_transaction_read_only = on");
    client.batch_execute(&read_only).await.unwrap();
    let found = audited(&database).await;
    assert_eq!(concerns(&found), [(32, 33)], "{}", found.render());
    assert!(
        found.render().contains("read-only role"),
        "{}",
        found.render()
    );
    let changes = "select count(*) from highwater.block_change";
    assert_eq!(one::<i64>(&client, changes).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_and_a_source_that_is_not_there_are_named() {
    let (database, _) = built().await;
    let memory: [Arc<dyn Source>; 1] = [Arc::new(MemorySource::new("default"))];
    let found = audit(&database.pooled(), &memory, None).await.unwrap();
    assert!(found.read_models[0].is_other_log && !found.agrees());
    let error = audit(&database.pooled(), &[], None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let name: ProjectionName = "none".parse().unwrap();
    let sources: [Arc<dyn Source>; 1] = [database.source()];
    let error = audit(&database.pooled(), &sources, Some(&name)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
}
