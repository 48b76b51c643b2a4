//! Several instances on the same projections: which runs what, and what happens when one ends.

mod moves;
mod partitions;
mod pause;
mod processes;

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::projection::DynProjection;
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome, Until};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::exactness::{
    Running, Storm, assert_exact_by_stream, caught_up, ledger_partitioned, positions,
};
use crate::support::{append_rows, eventually, one, sql_projection};

const LIMIT: Duration = crate::support::PATIENCE;

fn settings(listen: bool) -> Settings {
    let mut settings = Settings::default();
    settings.listen = listen;
    settings.lease = Duration::from_secs(1);
    settings.retry_delay_max = Duration::from_millis(200);
    settings
}

fn engine(database: &TestDatabase, listen: bool, projections: &[Arc<dyn DynProjection>]) -> Engine {
    let engine = Engine::new(database.pooled(), settings(listen)).source(database.source());
    projections.iter().fold(engine, |engine, projection| {
        engine.projection(projection.clone())
    })
}

/// How many partitions each living owner has, the fewest first.
async fn shares(client: &Client) -> Vec<i64> {
    let sql = "select count(*) from highwater.checkpoint c
                 join highwater.instance i on i.id = c.owner and i.seen_at + i.lease > clock_timestamp()
                group by i.id order by 1";
    positions(client, sql).await
}

async fn until_shared(client: &Client, expected: &[i64]) {
    let mut seen = Vec::new();
    let what = format!("partitions are shared as {expected:?}");
    eventually(&what, LIMIT, async || {
        seen = shares(client).await;
        seen == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_could_not_be_released_is_handed_over_later() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let ledger = || [ledger_partitioned("ledger", 2)];
    append_rows(&client, "s", 1..=10).await;
    let first = Running::start(engine(&database, true, &ledger()));
    until_shared(&client, &[2]).await;
    let fails_once = "create sequence releases;
        create function fail_once() returns trigger language plpgsql as $$
        begin
            if new.owner is null and nextval('public.releases') = 1 then
                raise 'not now';
            end if;
            return new;
        end $$;
        create trigger fail_once before update on highwater.checkpoint
            for each row execute function fail_once()";
    client.batch_execute(fails_once).await.unwrap();
    let second = Running::start(engine(&database, true, &ledger()));
    until_shared(&client, &[1, 1]).await;
    assert!(one::<i64>(&client, "select last_value from releases").await >= 2);
    for running in [first, second] {
        running.stop().await;
    }
    let log = positions(&client, "select position from highwater.event order by 1").await;
    assert_exact_by_stream(&client, "ledger", &log).await;
}

const PARKS_ONE_KEY: &str = r#"/* highwater
on_error = "park"
*/
-- highwater: up
create table seen (n bigint not null);
-- highwater: apply
insert into seen select 1 / (2 - version) from batch;
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_gives_the_same_reason_for_a_stop() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let start = || {
        let mut settings = settings(true);
        settings.parked_keys_max = 1;
        let engine = Engine::new(database.pooled(), settings).source(database.source());
        Running::start(engine.projection(sql_projection("seen", PARKS_ONE_KEY)))
    };
    let owner = start();
    until_shared(&client, &[1]).await;
    let standby = start();
    let instances = "select count(*) from highwater.instance where cardinality(projections) = 1";
    eventually("both can run it", LIMIT, async || {
        one::<i64>(&client, instances).await == 2
    })
    .await;
    append_rows(&client, "a", 1..=2).await;
    append_rows(&client, "b", 1..=2).await;
    let mut errors = Vec::new();
    for running in [owner, standby] {
        match running.ended().await.outcomes.pop().unwrap() {
            (_, Outcome::Stopped(error)) => errors.push(error),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(errors[0].kind(), ErrorKind::ParkedFull);
    assert!(errors[0].sqlstate().is_some() && errors[0].event().is_some());
    assert_eq!(errors[0].kind(), errors[1].kind());
    assert_eq!(errors[0].sqlstate(), errors[1].sqlstate());
    assert_eq!(errors[0].event(), errors[1].event());
    assert_eq!(errors[0].to_string(), errors[1].to_string());
}

async fn partitions_come_and_go(listen: bool) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let ledger = || [ledger_partitioned("ledger", 6)];
    let storm = Storm::start(database.url(), 10).await;
    let first = Running::start(engine(&database, listen, &ledger()));
    until_shared(&client, &[6]).await;
    let second = Running::start(engine(&database, listen, &ledger()));
    until_shared(&client, &[3, 3]).await;
    let third = Running::start(engine(&database, listen, &ledger()));
    until_shared(&client, &[2, 2, 2]).await;
    second.stop().await;
    until_shared(&client, &[3, 3]).await;
    let fourth = Running::start(engine(&database, listen, &ledger()));
    until_shared(&client, &[2, 2, 2]).await;
    let committed = storm.stop().await;
    caught_up(&client).await;
    for running in [first, third, fourth] {
        running.stop().await;
    }
    assert_eq!(
        shares(&client).await,
        [0_i64; 0],
        "everything was given back"
    );
    assert_exact_by_stream(&client, "ledger", &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_spread_evenly_while_instances_come_and_go() {
    partitions_come_and_go(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_spread_evenly_without_listen_too() {
    partitions_come_and_go(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_projections_of_one_partition_are_spread_too() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=20).await;
    let projections: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| ledger_partitioned(name, 1))
        .into();
    let first = Running::start(engine(&database, true, &projections));
    let second = Running::start(engine(&database, true, &projections));
    until_shared(&client, &[2, 3]).await;
    caught_up(&client).await;
    first.stop().await;
    until_shared(&client, &[5]).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_only_what_it_can_run() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let [a, b] = ["a", "b"].map(|name| ledger_partitioned(name, 2));
    let both = Running::start(engine(&database, true, &[a.clone(), b]));
    until_shared(&client, &[4]).await;
    let one = Running::start(engine(&database, true, std::slice::from_ref(&a)));
    until_shared(&client, &[1, 3]).await;
    let of_b = "select count(distinct owner) from highwater.checkpoint where projection = 'b'";
    assert_eq!(positions(&client, of_b).await, [1]);
    both.stop().await;
    until_shared(&client, &[2]).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_job_beside_a_live_run_ends_when_everybody_is_at_the_head() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=500).await;
    let ledger = [ledger_partitioned("ledger", 4)];
    let live = Running::start(engine(&database, true, &ledger));
    until_shared(&client, &[4]).await;
    append_rows(&client, "t", 1..=50).await;
    let report = engine(&database, true, &ledger)
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let behind = "select count(*) from highwater.checkpoint
                   where position < (select max(position) from highwater.event)";
    assert_eq!(positions(&client, behind).await, [0]);
    until_shared(&client, &[4]).await;
    assert!(!live.is_finished());
    live.stop().await;
}

const DIVIDES: &str = "/* highwater\npartitions = 2\n*/\n-- highwater: up\ncreate table t (n int);
-- highwater: apply\ninsert into t select 1 / (data->>'n')::int from batch;\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_an_error_stopped_is_retried_only_by_an_instance_that_starts_later() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let divides = [sql_projection("divides", DIVIDES)];
    let first = Running::start(engine(&database, true, &divides));
    let second = Running::start(engine(&database, true, &divides));
    until_shared(&client, &[1, 1]).await;
    // Streams of both partitions.
    client
        .batch_execute(
            "insert into highwater.event (stream, version, type, data)
             select 's' || n, 1, 'T', '{\"n\": 0}' from generate_series(1, 20) n",
        )
        .await
        .unwrap();
    for running in [first, second] {
        let report = running.ended().await;
        let Outcome::Stopped(error) = &report.outcomes[0].1 else {
            panic!("{report:?}")
        };
        assert!(error.to_string().contains("division by zero"), "{error}");
    }
    let claims = "select sum(epoch)::bigint from highwater.checkpoint";
    let before = positions(&client, claims).await[0];
    let again = engine(&database, true, &divides)
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    assert!(
        matches!(again.outcomes[0].1, Outcome::Stopped(_)),
        "{again:?}"
    );
    assert_eq!(positions(&client, claims).await[0], before + 2, "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stopped_here_is_retried_by_an_instance_that_starts_later_while_this_one_lives() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let projections = [
        sql_projection("divides", &DIVIDES.replace("= 2", "= 1")),
        ledger_partitioned("ledger", 1),
    ];
    let event = "insert into highwater.event (stream, version, type, data)
                 values ('a', 1, 'T', '{\"n\": 0}')";
    client.batch_execute(event).await.unwrap();
    let first = Running::start(engine(&database, true, &projections));
    let stopped = "select count(*) from highwater.checkpoint where stopped_at is not null";
    eventually("one stops", LIMIT, async || {
        positions(&client, stopped).await == [1]
    })
    .await;
    let fixed = "update highwater.event set data = '{\"n\": 1}'";
    client.batch_execute(fixed).await.unwrap();
    let report = engine(&database, true, &projections[..1])
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    assert!(!first.is_finished(), "it goes on with the other");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_job_that_is_done_with_one_projection_leaves_it_to_others() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=5).await;
    let [quick, slow] = ["quick", "slow"].map(|name| ledger_partitioned(name, 1));
    let both = [quick.clone(), slow];
    engine(&database, true, &both)
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    append_rows(&client, "t", 1..=5).await;
    // The job has to wait for one of the two.
    let holder = database.client().await;
    holder
        .batch_execute("begin; lock table slow.ledger")
        .await
        .unwrap();
    let job = engine(&database, true, &both).run(Until::CaughtUp, CancellationToken::new());
    let job = tokio::spawn(job);
    let held = "select count(*) from highwater.checkpoint
                 where projection = 'slow' and owner is not null";
    eventually("the job is at work", LIMIT, async || {
        positions(&client, held).await == [1]
    })
    .await;
    let live = Running::start(engine(&database, true, &both));
    let of_quick = "select count(*) from highwater.checkpoint
                     where projection = 'quick' and state = 'live' and owner is not null";
    eventually("the other one runs live", LIMIT, async || {
        positions(&client, of_quick).await == [1]
    })
    .await;
    append_rows(&client, "u", 1..=5).await;
    let applied = "select count(*) from quick.ledger";
    eventually("it goes on", LIMIT, async || {
        positions(&client, applied).await == [15]
    })
    .await;
    holder.batch_execute("commit").await.unwrap();
    job.await.unwrap().unwrap();
    caught_up(&client).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_is_made_again_under_its_name_fences_who_ran_the_one_before() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=5).await;
    let ledger = [ledger_partitioned("ledger", 2)];
    let run = async || {
        let engine = engine(&database, true, &ledger);
        engine
            .run(Until::CaughtUp, CancellationToken::new())
            .await
            .unwrap()
    };
    run().await;
    run().await;
    let epochs = "select max(epoch) from highwater.checkpoint";
    let before = positions(&client, epochs).await[0];
    highwater::internal::engine::operate::drop_projection(
        &database.pooled(),
        &"ledger".parse().unwrap(),
    )
    .await
    .unwrap();
    run().await;
    assert!(positions(&client, epochs).await[0] > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_projection_at_the_head_is_checked_before_it_counts_as_caught_up() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=5).await;
    let ledger = [ledger_partitioned("ledger", 1)];
    let run = async || {
        let engine = engine(&database, true, &ledger);
        engine
            .run(Until::CaughtUp, CancellationToken::new())
            .await
            .unwrap()
    };
    run().await;
    let stop = "update highwater.checkpoint set state = 'stopped', stopped_at = clock_timestamp(),
                       last_error = '{\"kind\": \"diverged\"}'";
    client.batch_execute(stop).await.unwrap();
    let report = run().await;
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let stopped = "select count(*) from highwater.checkpoint where state = 'stopped'";
    assert_eq!(positions(&client, stopped).await, [0], "it was claimed");
}
