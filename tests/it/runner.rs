//! The runner, end to end on a real server.

use std::time::Duration;

use highwater::internal::engine::rebuild::Rebuild;
use highwater::internal::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome};
use tokio_util::sync::CancellationToken;

use crate::support::{COUNTS, append_rows, eventually, one, run_to_head, sql_projection};

#[tokio::test(flavor = "multi_thread")]
async fn a_sql_projection_reads_what_was_appended_and_ends_at_the_head() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    for i in 0..10 {
        let sql = format!(
            "insert into highwater.event (stream, version, type, data) values ('s{}', {}, 'T', '{{}}')",
            i % 3,
            i / 3 + 1
        );
        client.batch_execute(&sql).await.unwrap();
    }
    let report = run_to_head(
        &database,
        database.source(),
        vec![sql_projection("counts", COUNTS)],
    )
    .await
    .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let row = client
        .query_one("select sum(n)::bigint, max(last) from counts.counts", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_sql_cannot_digest_stops_the_projection_right_before_it() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    for i in 1..=100 {
        let sql = format!(
            "insert into highwater.event (stream, version, type, data) values ('s', {i}, 'T', '{{\"d\":{}}}')",
            if i == 63 { 0 } else { 1 }
        );
        client.batch_execute(&sql).await.unwrap();
    }
    let text = "
-- highwater: up
create table quotients (position bigint primary key, q int);
-- highwater: apply
select 1;
insert into quotients
select position,
       1 / (data->>'d')::int from batch;
";
    let report = run_to_head(
        &database,
        database.source(),
        vec![sql_projection("quotients", text)],
    )
    .await
    .unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Apply);
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(error.event().unwrap().position.get(), 63);
    assert_eq!(error.location(), Some("projections/quotients.sql: line 6"));
    let row = client
        .query_one(
            "select count(*), max(position) from quotients.quotients",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (62, 62));
    let row = client
        .query_one(
            "select state, last_error->>'sqlstate', position from highwater.checkpoint",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        (
            row.get::<_, &str>(0),
            row.get::<_, &str>(1),
            row.get::<_, i64>(2)
        ),
        ("stopped", "22012", 62)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_writes_to_the_log_by_way_of_the_batch() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=3).await;
    for statement in [
        "delete from batch",
        "update batch set type = 'X'",
        "insert into batch (stream, version, type, data) values ('t', 1, 'T', '{}')",
    ] {
        let text = format!("-- highwater: apply\n{statement};\n");
        let greedy = vec![sql_projection("greedy", &text)];
        let report = run_to_head(&database, database.source(), greedy)
            .await
            .unwrap();
        let Outcome::Stopped(error) = &report.outcomes[0].1 else {
            panic!("{statement}: {report:?}")
        };
        assert_eq!(error.sqlstate(), Some("55000"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().ends_with("the projection's own tables"));
        let sql = "select count(*) from highwater.event where stream = 's' and type = 'T'";
        assert_eq!(one::<i64>(&client, sql).await, 3, "{statement}");
        let drop = "drop schema greedy cascade; delete from highwater.projection";
        client.batch_execute(drop).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_no_sql_is_placed_and_no_event_is_blamed() {
    let database = TestDatabase::new().await;
    append_rows(&database.client().await, "s", 1..=3).await;
    let text = "-- highwater: apply\nselect 1;\nselect count(*)\n  fromm batch where;\n";
    let broken = vec![sql_projection("broken", text)];
    let report = run_to_head(&database, database.source(), broken)
        .await
        .unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.sqlstate(), Some("42601"));
    assert_eq!(error.location(), Some("projections/broken.sql: line 4"));
    assert_eq!(error.event(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_and_on_again_while_nobody_ran_is_diverged() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    let run = async || {
        let counts = sql_projection("counts", COUNTS);
        let report = run_to_head(&database, database.source(), vec![counts]);
        report.await.unwrap().outcomes.pop().unwrap().1
    };
    assert!(matches!(run().await, Outcome::CaughtUp));
    let rows = "delete from highwater.event where position = 10";
    client.batch_execute(rows).await.unwrap();
    assert!(
        matches!(run().await, Outcome::CaughtUp),
        "an event may be deleted"
    );
    let restart = "truncate highwater.event restart identity";
    client.batch_execute(restart).await.unwrap();
    append_rows(&client, "s", 1..=20).await;
    let Outcome::Stopped(error) = run().await else {
        panic!("what lies below the checkpoint was passed over")
    };
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
    assert!(error.to_string().contains("at position 10"), "{error}");
    assert!(
        error.to_string().contains("highwater rebuild counts"),
        "{error}"
    );
    let sum = "select sum(n)::bigint from counts.counts";
    assert_eq!(one::<i64>(&client, sum).await, 10);

    client.batch_execute(restart).await.unwrap();
    append_rows(&client, "s", 1..=5).await;
    let counts = sql_projection("counts", COUNTS);
    let (pooled, source) = (database.pooled(), database.source());
    let rebuild = Rebuild::new(pooled, source, counts, Settings::default());
    rebuild.run(CancellationToken::new()).await.unwrap();
    assert_eq!(
        one::<i64>(&client, sum).await,
        5,
        "also where the log is shorter now"
    );
    assert!(matches!(run().await, Outcome::CaughtUp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_runner_that_waits_for_its_checkpoint_after_an_error() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=3).await;
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(sql_projection("counts", COUNTS));
    let engine = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let limit = crate::support::PATIENCE;
    let applied = "select count(*) from highwater.checkpoint where position = 3";
    eventually("it is live", limit, async || {
        one::<i64>(&client, applied).await == 1
    })
    .await;
    let holder = database.client().await;
    let lock = "begin; select from highwater.checkpoint for update";
    holder.batch_execute(lock).await.unwrap();
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name like 'highwater%'";
    client.batch_execute(terminate).await.unwrap();
    append_rows(&client, "s", 4..=4).await;
    let waiting = "select count(*) from pg_stat_activity
         where datname = current_database() and application_name like 'highwater%'
           and wait_event_type = 'Lock' and query like '%for update%'";
    eventually("it reads its checkpoint again", limit, async || {
        one::<i64>(&client, waiting).await > 0
    })
    .await;
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), engine).await;
    let report = ended.expect("it ends after its grace").unwrap().unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::Drained),
        "{report:?}"
    );
    holder.batch_execute("rollback").await.unwrap();
}
