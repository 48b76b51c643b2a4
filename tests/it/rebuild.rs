//! Rebuild, accept and drop, beside a run and without one.

mod removed;

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::engine::operate::{accept, drop_projection};
use highwater::internal::engine::rebuild::{Rebuild, Rebuilt};
use highwater::internal::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{append_rows, eventually, one, run_to_head, sql_projection};

const COUNTS: &str = "
-- highwater: up
create table counts (stream text primary key, n bigint not null);
-- highwater: apply
insert into counts (stream, n) select stream, count(*) from batch group by stream
on conflict (stream) do update set n = counts.n + excluded.n;
";
const DOUBLED: &str = "
-- highwater: up
create table counts (stream text primary key, n bigint not null);
-- highwater: apply
insert into counts (stream, n) select stream, 2 * count(*) from batch group by stream
on conflict (stream) do update set n = counts.n + excluded.n;
";

async fn total(client: &Client) -> i64 {
    one(
        client,
        "select coalesce(sum(n), 0)::bigint from counts.counts",
    )
    .await
}

async fn built(events: i64) -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=events).await;
    let counts = sql_projection("counts", COUNTS);
    run_to_head(&database, database.source(), vec![counts])
        .await
        .unwrap();
    (database, client)
}

fn rebuild(database: &TestDatabase, text: &str) -> Rebuild {
    let projection = sql_projection("counts", text);
    Rebuild::new(
        database.pooled(),
        database.source(),
        projection,
        Settings::default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_stops_the_projection_and_a_rebuild_builds_it_again() {
    let (database, client) = built(50).await;
    let changed = sql_projection("counts", DOUBLED);
    let report = run_to_head(&database, database.source(), vec![changed.clone()])
        .await
        .unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(
        error.to_string().contains("highwater rebuild counts"),
        "{error}"
    );
    assert_eq!(
        one::<String>(
            &client,
            "select last_error->>'kind' from highwater.checkpoint"
        )
        .await,
        "changed"
    );

    let done = rebuild(&database, DOUBLED)
        .run(CancellationToken::new())
        .await
        .unwrap();
    assert!(
        matches!(done, Rebuilt::Swapped { generation: 2, position } if position.get() == 50),
        "{done:?}"
    );
    assert_eq!(total(&client).await, 100);
    let report = run_to_head(&database, database.source(), vec![changed])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let schemas: i64 = one(
        &client,
        "select count(*) from pg_namespace where nspname like 'counts%'",
    )
    .await;
    assert_eq!(schemas, 1, "the old generation is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_every_event_and_never_an_older_state_while_a_live_projection_is_rebuilt() {
    let (database, client) = built(2_000).await;
    client
        .batch_execute("create role rebuild_reader")
        .await
        .unwrap();
    client.batch_execute("grant usage on schema counts to rebuild_reader; grant select on all tables in schema counts to rebuild_reader").await.unwrap();
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let engine = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let written = CancellationToken::new();
    let writer = tokio::spawn({
        let (client, written) = (database.client().await, written.clone());
        async move {
            for i in 0..200 {
                append_rows(&client, &format!("w{i}"), 1..=5).await;
            }
            written.cancel();
        }
    });
    let reader = tokio::spawn({
        let (client, written) = (database.client().await, written.clone());
        async move {
            // Prepared before the swap, used across it.
            let statement = client
                .prepare("select coalesce(sum(n), 0)::bigint from counts.counts")
                .await
                .unwrap();
            let mut seen = 0;
            while !written.is_cancelled() {
                let now: i64 = client.query_one(&statement, &[]).await.unwrap().get(0);
                assert!(now >= seen, "readers went back from {seen} to {now}");
                seen = now;
            }
        }
    });
    let mut generation = 1;
    while !written.is_cancelled() {
        let done = rebuild(&database, COUNTS)
            .run(CancellationToken::new())
            .await
            .unwrap();
        generation += 1;
        assert!(
            matches!(done, Rebuilt::Swapped { generation: g, .. } if g == generation),
            "{done:?}"
        );
    }
    writer.await.unwrap();
    reader.await.unwrap();
    eventually(
        "all events are counted",
        Duration::from_secs(10),
        async || total(&client).await == 3_000,
    )
    .await;
    client
        .batch_execute("set role rebuild_reader")
        .await
        .unwrap();
    assert_eq!(total(&client).await, 3_000, "the grants were carried over");
    let version = "select current_setting('server_version_num')::integer";
    if one::<i32>(&client, version).await >= 150_000 {
        let events = "set highwater.batch = '(counts,1,0,1,0,9,,f)'; select from counts.batch";
        let error = client.batch_execute(events).await.unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert!(
            message.contains("permission denied for table event"),
            "{message}"
        );
    }
    client
        .batch_execute("reset role; drop owned by rebuild_reader; drop role rebuild_reader")
        .await
        .unwrap();
    stop.cancel();
    let report = engine.await.unwrap().unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::Drained),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rebuild_resumes_where_it_was() {
    let (database, client) = built(5_000).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let done = rebuild(&database, COUNTS).run(stop).await.unwrap();
    assert!(matches!(done, Rebuilt::Interrupted { .. }), "{done:?}");
    assert_eq!(
        total(&client).await,
        5_000,
        "the live generation is as it was"
    );
    let next: i32 = one(&client, "select next_generation from highwater.projection").await;
    let done = rebuild(&database, COUNTS)
        .run(CancellationToken::new())
        .await
        .unwrap();
    assert!(
        matches!(done, Rebuilt::Swapped { generation, .. } if generation == next),
        "{done:?}"
    );
    assert_eq!(total(&client).await, 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_stops_at_an_event_leaves_the_live_generation() {
    let (database, client) = built(100).await;
    let broken = COUNTS.replace(
        "select stream, count(*)",
        "select stream, sum(1 / (version - 60))",
    );
    let error = rebuild(&database, &broken)
        .run(CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.event().unwrap().position.get(), 60, "{error}");
    assert_eq!(total(&client).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_the_read_model_from_outside_is_named_and_kept() {
    let (database, client) = built(10).await;
    client
        .batch_execute("create view public.top as select * from counts.counts")
        .await
        .unwrap();
    let error = rebuild(&database, COUNTS)
        .run(CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("view top"), "{error}");
    let name = "counts".parse().unwrap();
    let error = drop_projection(&database.pooled(), &name)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("view top"), "{error}");
    assert_eq!(
        one::<i64>(&client, "select count(*) from public.top").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_change_continues_from_the_checkpoint_with_the_new_types() {
    let (database, client) = built(10).await;
    let filtered = format!("/* highwater\nevents = [\"Other\"]\n*/\n{COUNTS}");
    let projection = sql_projection("counts", &filtered);
    let source = database.source();
    assert!(
        accept(&database.pooled(), &*projection, &*source)
            .await
            .unwrap()
    );
    assert!(
        !accept(&database.pooled(), &*projection, &*source)
            .await
            .unwrap(),
        "nothing is left to accept"
    );
    append_rows(&client, "t", 1..=10).await;
    let report = run_to_head(&database, source, vec![projection])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    assert_eq!(
        total(&client).await,
        10,
        "type T is none of its business any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_projection_leaves_nothing_and_its_runner_stops() {
    let (database, client) = built(10).await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let monitor = engine.monitor();
    let engine = tokio::spawn(engine.run(Until::Stopped, CancellationToken::new()));
    eventually("the runner is live", Duration::from_secs(10), async || {
        monitor.projections()[0].state == highwater::internal::engine::RunnerState::Live
    })
    .await;
    drop_projection(&database.pooled(), &"counts".parse().unwrap())
        .await
        .unwrap();
    // Without another event: its heartbeat finds out.
    let report = engine.await.unwrap().unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let left: i64 = one(&client, "select (select count(*) from pg_namespace where nspname like 'counts%') + (select count(*) from highwater.checkpoint)").await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_that_name_that_is_not_ours_is_refused_and_left_alone() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client
        .batch_execute("create schema counts; create table counts.theirs (i int)")
        .await
        .unwrap();
    let projection = sql_projection("counts", COUNTS);
    let report = run_to_head(&database, database.source(), vec![Arc::clone(&projection)])
        .await
        .unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert!(error.to_string().contains("\"counts\""), "{error}");
    assert_eq!(
        one::<i64>(&client, "select count(*) from highwater.projection").await,
        0
    );
    assert_eq!(
        one::<i64>(&client, "select count(*) from counts.theirs").await,
        0
    );
}

async fn until_waiting(client: &Client, sessions: i64) {
    let waiting = "select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'";
    eventually(
        "sessions wait for a lock",
        Duration::from_secs(10),
        async || one::<i64>(client, waiting).await == sessions,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_another_one_replaced_swaps_nothing() {
    let (database, client) = built(50).await;
    let gate = "create table public.gate ()";
    client.batch_execute(gate).await.unwrap();
    let holder = database.client().await;
    let closed = "begin; lock table public.gate";
    holder.batch_execute(closed).await.unwrap();
    let gated = "from batch where not exists (select from public.gate)";
    let first = rebuild(&database, &DOUBLED.replace("from batch", gated));
    let first = tokio::spawn(async move { first.run(CancellationToken::new()).await });
    until_waiting(&client, 1).await;
    let tripled = rebuild(&database, &DOUBLED.replace('2', "3"));
    let second = tokio::spawn(async move { tripled.run(CancellationToken::new()).await });
    until_waiting(&client, 2).await;
    holder.batch_execute("commit").await.unwrap();
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    let done = second.await.unwrap().unwrap();
    assert!(
        matches!(done, Rebuilt::Swapped { generation: 3, .. }),
        "{done:?}"
    );
    assert_eq!(total(&client).await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_begins_while_another_one_swaps_comes_after_it() {
    let (database, client) = built(50).await;
    let holder = database.client().await;
    holder
        .batch_execute("begin; select from highwater.checkpoint for update")
        .await
        .unwrap();
    let first = rebuild(&database, DOUBLED);
    let first = tokio::spawn(async move { first.run(CancellationToken::new()).await });
    until_waiting(&client, 1).await;
    let tripled = rebuild(&database, &DOUBLED.replace('2', "3"));
    let second = tokio::spawn(async move { tripled.run(CancellationToken::new()).await });
    until_waiting(&client, 2).await;
    holder.batch_execute("commit").await.unwrap();
    for (running, expected) in [(first, 2), (second, 3)] {
        let done = running.await.unwrap().unwrap();
        assert!(
            matches!(done, Rebuilt::Swapped { generation, .. } if generation == expected),
            "{done:?}"
        );
    }
    assert_eq!(total(&client).await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_the_definition_before_an_accepted_one_stops() {
    let (database, client) = built(10).await;
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let monitor = engine.monitor();
    let engine = tokio::spawn(engine.run(Until::Stopped, CancellationToken::new()));
    eventually("the runner is live", Duration::from_secs(10), async || {
        monitor.projections()[0].state == highwater::internal::engine::RunnerState::Live
    })
    .await;
    let changed = sql_projection("counts", DOUBLED);
    accept(&database.pooled(), &*changed, &*database.source())
        .await
        .unwrap();
    append_rows(&client, "t", 1..=1).await;
    let report = engine.await.unwrap().unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert_eq!(total(&client).await, 10, "the old statements are over");
    run_to_head(&database, database.source(), vec![changed])
        .await
        .unwrap();
    assert_eq!(total(&client).await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_without_its_checkpoint_stops_and_says_so() {
    let (database, client) = built(10).await;
    client
        .batch_execute("delete from highwater.checkpoint")
        .await
        .unwrap();
    let counts = sql_projection("counts", COUNTS);
    let run = run_to_head(&database, database.source(), vec![counts]);
    let report = tokio::time::timeout(crate::support::PATIENCE, run).await;
    let report = report.expect("it does not try for ever").unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert!(error.to_string().contains("lost its checkpoint"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_runner_takes_the_swapped_generation_although_nothing_is_appended() {
    let (database, client) = built(3).await;
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let engine = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let live = "select count(*) from highwater.checkpoint c join highwater.instance i \
                on i.id = c.owner where c.state = 'live' and c.generation = ";
    let is_live = async |generation: i32| one::<i64>(&client, &format!("{live}{generation}")).await;
    let limit = Duration::from_secs(30);
    eventually("it is live", limit, async || is_live(1).await == 1).await;
    let done = rebuild(&database, COUNTS)
        .run(CancellationToken::new())
        .await;
    assert!(matches!(done, Ok(Rebuilt::Swapped { .. })), "{done:?}");
    eventually("it is live again", limit, async || is_live(2).await == 1).await;
    stop.cancel();
    engine.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_of_several_partitions_is_rebuilt_too() {
    let (database, client) = built(30).await;
    let partitioned = format!("/* highwater\npartitions = 3\n*/\n{COUNTS}");
    let projection = sql_projection("counts", &partitioned);
    run_to_head(&database, database.source(), vec![projection.clone()])
        .await
        .unwrap();
    append_rows(&client, "t", 1..=10).await;
    let rebuild = Rebuild::new(
        database.pooled(),
        database.source(),
        projection,
        Settings::default(),
    );
    let done = rebuild.run(CancellationToken::new()).await;
    assert!(
        matches!(done, Ok(Rebuilt::Swapped { generation: 2, .. })),
        "{done:?}"
    );
    assert_eq!(total(&client).await, 40);
    let partitions = "select count(*) from highwater.checkpoint where generation = 2";
    assert_eq!(one::<i64>(&client, partitions).await, 3);
}
