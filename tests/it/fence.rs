//! The fence: which runner may move a checkpoint, from where, and what happens to the others.

use highwater::Outcome;
use highwater::internal::engine::{Engine, Settings, Until};
use highwater::testing::TestDatabase;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{COUNTS, append_rows, one, run_to_head, sql_projection};

/// Events 1 to 10 are in the read model, under epoch 1.
async fn built() -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    let counts = sql_projection("counts", COUNTS);
    run_to_head(&database, database.source(), vec![counts])
        .await
        .unwrap();
    (database, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_moves_only_forwards_from_its_position_and_under_its_epoch() {
    let (_database, client) = built().await;
    let epoch: i64 = one(&client, "select epoch from highwater.checkpoint").await;
    for (what, epoch, parking, after, through) in [
        ("an epoch that is past", epoch - 1, 0, 10, 11),
        ("an epoch that nobody claimed", epoch + 1, 0, 10, 11),
        ("keys that were parked since", epoch, -1, 10, 11),
        ("a range that was applied", epoch, 0, 9, 11),
        ("a range that leaves some out", epoch, 0, 11, 12),
        ("backwards", epoch, 0, 10, 9),
    ] {
        let sql = format!(
            "select highwater.begin_batch(row('counts', 1, 0, {epoch}, {parking})::highwater.fence, {after}, {through}, null, null)"
        );
        let error = client.batch_execute(&sql).await.expect_err(what);
        let code = error.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("HW101"), "{what}: {error}");
        let position: i64 = one(&client, "select position from highwater.checkpoint").await;
        assert_eq!(position, 10, "{what}");
    }
    let sql = format!(
        "select highwater.begin_batch(row('counts', 1, 0, {epoch}, 0)::highwater.fence, 10, 11, null, null)"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_that_start_a_new_projection_at_once_build_it_once() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=100).await;
    let runs = (0..4).map(|_| {
        let (target, source) = (database.pooled(), database.source());
        tokio::spawn(async move {
            let counts = sql_projection("counts", COUNTS);
            let engine = Engine::new(target, Settings::default());
            let engine = engine.source(source).projection(counts);
            engine.run(Until::CaughtUp, CancellationToken::new()).await
        })
    });
    for run in runs.collect::<Vec<_>>() {
        let report = run.await.unwrap().unwrap();
        let outcome = &report.outcomes[0].1;
        assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    }
    let total: i64 = one(&client, "select sum(n)::bigint from counts.counts").await;
    assert_eq!(total, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_released_a_checkpoint_does_not_report_its_state() {
    let (_database, client) = built().await;
    let me = uuid::Uuid::new_v4();
    let state = async |owner: Option<uuid::Uuid>| {
        let sql = "update highwater.checkpoint set owner = $1, state = 'idle' returning epoch";
        let epoch: i64 = client.query_one(sql, &[&owner]).await.unwrap().get(0);
        let runners = serde_json::json!([{
            "projection": "counts", "generation": 1, "partition": 0, "epoch": epoch,
            "state": "draining", "rate": 0.0
        }]);
        let sql = include_str!("../../sql/queries/instance/renew.sql")
            .replace("{observed}", "select 1 as living, 1 as projections");
        let (marks, names) = (serde_json::json!({}), vec!["counts"]);
        client
            .query(
                &sql,
                &[&me, &"host", &1_i32, &1.0_f64, &marks, &runners, &names],
            )
            .await
            .unwrap();
        one::<String>(&client, "select state from highwater.checkpoint").await
    };
    assert_eq!(state(Some(me)).await, "draining");
    assert_eq!(state(None).await, "idle");
}
