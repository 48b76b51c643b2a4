//! What status says, against a real server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::projection::Definition;
use highwater::internal::source::{BoxFuture, Follower, Source};
use highwater::internal::status::{self, DefinitionState, Status};
use highwater::testing::TestDatabase;
use highwater::{Error, ErrorKind, Position, Result, Until};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::meddled::{Meddled, Meddling};
use crate::support::{COUNTS, append, eventually, run_to_head, sql_projection, table_source};

const LIMIT: Duration = crate::support::PATIENCE;

fn counts() -> Arc<dyn highwater::internal::projection::DynProjection> {
    sql_projection("counts", COUNTS)
}

fn known() -> Vec<Definition> {
    vec![counts().definition().clone()]
}

async fn read(database: &TestDatabase) -> Status {
    let sources = [table_source(database)];
    status::read(&database.pooled(), &sources, &known())
        .await
        .unwrap()
}

/// A projection that fails at every event.
const FAILS: &str = "
-- highwater: up
create table t (n int);
-- highwater: apply
insert into t select 1 / 0 from batch;
";

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_has_exactly_the_keys_that_are_promised() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    run_to_head(
        &database,
        database.source(),
        vec![sql_projection("fails", FAILS)],
    )
    .await
    .unwrap();
    let holder = database.client().await;
    holder.batch_execute("begin").await.unwrap();
    append(&holder, "held", 1).await;
    append(&client, "t", 1).await;
    let json = read(&database).await.to_json();
    assert_eq!(keys(&json), BTreeSet::from(["sources", "projections"]));
    let source = &json["sources"][0];
    assert_eq!(
        keys(source),
        BTreeSet::from(["name", "head", "mark", "gap"])
    );
    let gap = &source["gap"];
    assert_eq!(keys(gap), BTreeSet::from(["from", "to", "blocked_by"]));
    assert_eq!(
        keys(&gap["blocked_by"][0]),
        BTreeSet::from(["pid", "user", "application", "query", "since", "prepared"])
    );
    let fails = &json["projections"][1];
    assert_eq!(fails["name"], "fails");
    assert_eq!(
        keys(fails),
        BTreeSet::from([
            "name",
            "generation",
            "state",
            "position",
            "lag_events",
            "lag_seconds",
            "rate_per_second",
            "eta_seconds",
            "partitions",
            "parked_keys",
            "blocked_by",
            "dead_letters",
            "last_error",
        ])
    );
    assert_eq!(
        keys(&fails["partitions"][0]),
        BTreeSet::from(["partition", "position", "state", "owner", "epoch"])
    );
    assert_eq!(
        keys(&fails["last_error"]),
        BTreeSet::from([
            "kind",
            "sqlstate",
            "message",
            "location",
            "event_id",
            "event_type",
            "position",
            "attempts",
            "at",
            "hint",
        ])
    );
    for number in [
        "generation",
        "position",
        "lag_events",
        "lag_seconds",
        "rate_per_second",
    ] {
        assert!(fails[number].is_number(), "{number}: {fails}");
    }
    assert!(gap["from"].is_number() && source["mark"].is_number());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_live_while_its_owner_is_alive_and_idle_afterwards() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    for version in 1..=5 {
        append(&client, "s", version).await;
    }
    let start = || {
        let engine = Engine::new(database.pooled(), Settings::default())
            .source(database.source())
            .projection(counts());
        let stop = CancellationToken::new();
        (tokio::spawn(engine.run(Until::Stopped, stop.clone())), stop)
    };
    let (run, stop) = start();
    eventually("the projection is live", LIMIT, async || {
        let status = read(&database).await;
        status.projections[0].state.as_str() == "live"
            && status.projections[0].lag_events == Some(0)
    })
    .await;
    let status = read(&database).await;
    let p = &status.projections[0];
    assert_eq!((p.generation, p.position.get()), (1, 5));
    assert_eq!((p.lag_seconds, p.eta_seconds), (Some(0.0), Some(0.0)));
    assert_eq!((p.parked_keys, p.dead_letters), (0, 0));
    assert_eq!(p.definition, DefinitionState::Same);
    let partition = &p.partitions[0];
    assert_eq!((partition.partition, partition.epoch), (0, 1));
    let owner = partition.owner.clone().unwrap();
    assert!(
        owner.ends_with(&format!(":{}", std::process::id())),
        "{owner}"
    );
    let text = status.render(false);
    assert!(text.contains("counts      live   5 of 5    0"), "{text}");

    stop.cancel();
    run.await.unwrap().unwrap();
    let p = &read(&database).await.projections[0];
    assert_eq!((p.state.as_str(), &p.partitions[0].owner), ("idle", &None));
    assert_eq!((p.rate_per_second, p.partitions[0].epoch), (0.0, 1));

    // Another one, killed: it does not sign off.
    let (run, _stop) = start();
    eventually("the projection is live again", LIMIT, async || {
        read(&database).await.projections[0].state.as_str() == "live"
    })
    .await;
    run.abort();
    let _ = run.await;
    eventually("the killed run has let go", LIMIT, async || {
        let late = "update highwater.instance set seen_at = clock_timestamp() - lease";
        client.batch_execute(late).await.unwrap();
        read(&database).await.projections[0].state.as_str() == "idle"
    })
    .await;
    let status = read(&database).await;
    let text = status.render(false);
    assert!(text.contains("ended without signing off"), "{text}");
    assert_eq!(status.projections[0].partitions[0].owner, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_projection_keeps_its_state_and_error_when_its_instance_is_gone() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    run_to_head(
        &database,
        database.source(),
        vec![sql_projection("fails", FAILS)],
    )
    .await
    .unwrap();
    let status = read(&database).await;
    let p = status.projection("fails").unwrap();
    assert_eq!(p.state.as_str(), "stopped");
    assert_eq!(p.partitions[0].owner, None);
    let error = p.last_error.as_ref().unwrap();
    assert_eq!(error.kind, "apply");
    assert_eq!(error.sqlstate.as_deref(), Some("22012"));
    assert_eq!((error.position.get(), error.attempts), (1, 1));
    assert!(error.event_id.is_some() && error.at.is_some());
    assert!(
        error.message.starts_with("projections/fails.sql: line 5: "),
        "{error:?}"
    );
    let text = status.render(false);
    for part in [
        "fails: stopped at 0",
        "error   projections/fails.sql: line 5: ",
        "(SQLSTATE 22012)",
        "event   position 1, T, ",
        "tried   once, ",
        "highwater run fails resumes after 0 once it is fixed; nothing is lost",
        "With on_error = \"park\" other keys would continue",
        "fails: its file is missing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(status.render(true).contains("\u{1b}[31mstopped\u{1b}[0m"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_mark_names_who_holds_it_and_nobody_who_began_later() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    let holder = database.client().await;
    holder
        .batch_execute("set application_name = 'web'; begin")
        .await
        .unwrap();
    append(&holder, "held", 1).await;
    append(&client, "s", 2).await;
    let later = database.client().await;
    later.batch_execute("begin").await.unwrap();
    append(&later, "later", 1).await;
    let pid: i32 = holder
        .query_one("select pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let status = read(&database).await;
    let source = &status.sources[0];
    let (head, mark) = (source.head.unwrap().get(), source.mark.unwrap().get());
    assert_eq!((head, mark), (3, 1));
    let gap = source.gap.as_ref().unwrap();
    assert_eq!((gap.from.get(), gap.to.get()), (2, 2));
    let [blocked_by] = gap.blocked_by.as_slice() else {
        panic!("{:?}", gap.blocked_by)
    };
    assert_eq!(blocked_by.pid, Some(pid));
    assert_eq!(blocked_by.application.as_deref(), Some("web"));
    assert!(blocked_by.user.is_some() && blocked_by.since.is_some());
    assert_eq!(blocked_by.query.as_deref(), Some("select pg_backend_pid()"));
    let text = status.render(false);
    let expected = format!("mark 1 of head 3: position 2 may still be filled by pid {pid} (user ");
    assert!(text.contains(&expected), "{text}");
    assert!(
        text.contains("application web, idle in transaction, begun "),
        "{text}"
    );
    holder.batch_execute("rollback").await.unwrap();
    later.batch_execute("rollback").await.unwrap();
    let source = &read(&database).await.sources[0];
    assert_eq!((source.mark.unwrap().get(), &source.gap), (3, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_holds_the_mark_is_named() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let holder = database.client().await;
    holder.batch_execute("begin").await.unwrap();
    append(&holder, "held", 1).await;
    append(&client, "s", 1).await;
    let gid = format!("it's {}", uuid::Uuid::new_v4());
    let quoted = gid.replace('\'', "''");
    holder
        .batch_execute(&format!("prepare transaction '{quoted}'"))
        .await
        .unwrap();
    let status = read(&database).await;
    let gap = status.sources[0].gap.as_ref().unwrap();
    let [blocked_by] = gap.blocked_by.as_slice() else {
        panic!("{:?}", gap.blocked_by)
    };
    assert_eq!(
        (blocked_by.prepared.as_deref(), blocked_by.pid),
        (Some(&*gid), None)
    );
    let text = status.render(false);
    assert!(
        text.contains(&format!("by the prepared transaction '{gid}' (user ")),
        "{text}"
    );
    assert!(
        text.contains(&format!("rollback prepared '{quoted}'")),
        "{text}"
    );
    holder
        .batch_execute(&format!("rollback prepared '{quoted}'"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_seconds_is_the_age_of_the_first_event_that_is_missing() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into highwater.event (stream, version, type, data, recorded_at)
             values ('s', 1, 'T', '{}', now() - interval '2 hours'),
                    ('s', 2, 'T', '{}', now() - interval '1 hour')",
        )
        .await
        .unwrap();
    let never_run = &read(&database).await.projections[0];
    assert_eq!((never_run.generation, never_run.position.get()), (0, 0));
    assert_eq!(
        (never_run.state.as_str(), never_run.lag_events),
        ("idle", Some(2))
    );
    assert!((7_200.0..7_300.0).contains(&never_run.lag_seconds.unwrap()));
    run_to_head(&database, database.source(), vec![counts()])
        .await
        .unwrap();
    assert_eq!(read(&database).await.projections[0].lag_seconds, Some(0.0));
    client
        .batch_execute("update highwater.checkpoint set position = 1")
        .await
        .unwrap();
    let behind = read(&database).await;
    let p = &behind.projections[0];
    assert_eq!((p.lag_events, p.eta_seconds), (Some(1), None));
    assert!((3_600.0..3_700.0).contains(&p.lag_seconds.unwrap()));
    assert!(
        behind.render(false).contains("1 of 2    1 (60 min)"),
        "{}",
        behind.render(false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_and_a_rebuild_are_reported() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    for version in 1..=4 {
        append(&client, "s", version).await;
    }
    run_to_head(&database, database.source(), vec![counts()])
        .await
        .unwrap();
    client
        .batch_execute(
            "update highwater.projection set next_generation = 2;
             update highwater.generation set hash = 'another';
             insert into highwater.generation (projection, number, hash, source, key_hash)
                 select projection, 2, 'x', source, key_hash from highwater.generation;
             insert into highwater.checkpoint
                    (projection, generation, partition, source, partitions, position, source_identity)
             select projection, 2, 0, source, 1, 1, source_identity from highwater.checkpoint",
        )
        .await
        .unwrap();
    let status = read(&database).await;
    let p = &status.projections[0];
    assert_eq!(
        (p.definition, p.position.get()),
        (DefinitionState::Changed, 4)
    );
    assert_eq!(p.partitions.len(), 1);
    assert_eq!(p.rebuild.as_ref().unwrap().position.get(), 1);
    let text = status.render(false);
    assert!(
        text.contains("counts: changed since its read model was built"),
        "{text}"
    );
    assert!(
        text.contains("generation 2 is being built beside it: idle at 1 of 4 (25 %)"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_precondition_is_shown_beside_what_can_be_read() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    client
        .batch_execute("alter table highwater.event alter position set cache 10")
        .await
        .unwrap();
    let status = read(&database).await;
    let source = &status.sources[0];
    assert_eq!((source.head.map(|h| h.get()), source.mark), (Some(1), None));
    let problem = source.problem.as_ref().unwrap();
    assert_eq!(problem.kind(), ErrorKind::Precondition);
    assert_eq!(status.projections[0].lag_events, Some(1));
    assert!(
        status.render(false).contains("has CACHE 10"),
        "{}",
        status.render(false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_schema_status_says_to_run_init() {
    let database = TestDatabase::empty().await;
    let error = status::read(&database.pooled(), &[], &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert_eq!(error.hint(), Some("run highwater init"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranded_projection_has_no_hint_to_run_again_nor_that_nothing_is_lost() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    for version in 1..=5 {
        append(&client, "s", version).await;
    }
    let retention = "delete from highwater.event where position <= 3";
    client.batch_execute(retention).await.unwrap();
    run_to_head(&database, database.source(), vec![counts()])
        .await
        .unwrap();
    let text = read(&database).await.render(false);
    assert!(text.contains("kind    stranded"), "{text}");
    assert!(text.contains("highwater accept counts"), "{text}");
    assert!(!text.contains("nothing is lost"), "{text}");
}

/// A source that nobody may follow.
struct Unfollowed(Arc<dyn Source>);

impl Meddling for Unfollowed {
    fn source(&self) -> &dyn Source {
        &*self.0
    }

    fn follow(&self, _: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Internal, "it was followed")) })
    }
}

async fn read_unfollowed(database: &TestDatabase) -> Status {
    let sources: [Arc<dyn Source>; 1] = [Arc::new(Meddled(Unfollowed(table_source(database))))];
    status::read(&database.pooled(), &sources, &[])
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_a_living_instance_reports_is_not_followed_once_more() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append(&client, "s", 1).await;
    let problem = |status: &Status| status.sources[0].problem.as_ref().map(|p| p.to_string());
    let status = read_unfollowed(&database).await;
    assert!(problem(&status).unwrap().contains("it was followed"));
    let report = "insert into highwater.instance (id, host, pid, lease, marks, projections)
        select gen_random_uuid(), 'h', 1, interval '1 minute',
               jsonb_build_object('default', max(position)), '{}' from highwater.event";
    client.batch_execute(report).await.unwrap();
    let status = read_unfollowed(&database).await;
    assert_eq!(problem(&status), None);
    assert_eq!(status.sources[0].mark, status.sources[0].head);

    append(&client, "s", 2).await;
    let status = read_unfollowed(&database).await;
    assert!(
        problem(&status).unwrap().contains("it was followed"),
        "a report below the head does not say what is between"
    );

    let cached = "update highwater.instance set marks = jsonb_build_object('default', 2);
                  alter sequence highwater.event_position_seq cache 10";
    client.batch_execute(cached).await.unwrap();
    let status = read_unfollowed(&database).await;
    assert!(
        problem(&status).unwrap().contains("CACHE 10"),
        "as if it were followed"
    );
}
