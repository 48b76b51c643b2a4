//! A rebuild from a log that lacks its oldest events.

use highwater::testing::TestDatabase;
use highwater::{ErrorKind, Outcome};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{COUNTS, DOUBLED, built, rebuild, total};
use crate::support::{one, run_to_head, sql_projection};

/// What a rebuild leaves behind: its number, its checkpoints and its schema.
const LEFT: &str =
    "select (select count(*) from highwater.projection where next_generation is not null)
    + (select count(*) from highwater.checkpoint where generation <> 1)
    + (select count(*) from pg_namespace where nspname = 'counts__next')";

/// It is refused, says a way out, and leaves the live read model and nothing else.
async fn is_refused(database: &TestDatabase, client: &Client, text: &str, through: i64) {
    let before = total(client).await;
    let refused = rebuild(database, text).run(CancellationToken::new()).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stranded, "{error}");
    let said = error.to_string();
    let removed = format!("up to {through} were removed");
    assert!(said.contains(&removed), "{said}");
    let words = ["highwater accept counts", "highwater drop counts"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(one::<i64>(client, LEFT).await, 0, "{said}");
    assert_eq!(total(client).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_from_a_log_that_lacks_its_oldest_events_is_refused_and_leaves_nothing() {
    let (database, client) = built(100).await;
    let retention = "delete from highwater.event where position <= 40";
    client.batch_execute(retention).await.unwrap();
    is_refused(&database, &client, DOUBLED, 40).await;
    is_refused(&database, &client, DOUBLED, 40).await;
    let counts = sql_projection("counts", COUNTS);
    let report = run_to_head(&database, database.source(), vec![counts]).await;
    assert!(matches!(report.unwrap().outcomes[0].1, Outcome::CaughtUp));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_attempt_continues_if_it_has_read_what_was_removed_and_is_dropped_if_not() {
    let (database, client) = built(100).await;
    let broken = COUNTS.replace("count(*)", "sum(1 / (version - 60))");
    let stopped = rebuild(&database, &broken)
        .run(CancellationToken::new())
        .await;
    assert_eq!(stopped.unwrap_err().event().unwrap().position.get(), 60);
    let retention = "delete from highwater.event where position <= 59";
    client.batch_execute(retention).await.unwrap();
    let stopped = rebuild(&database, &broken)
        .run(CancellationToken::new())
        .await;
    let error = stopped.unwrap_err();
    assert_eq!(error.event().unwrap().position.get(), 60, "{error}");
    let retention = "delete from highwater.event where position <= 80";
    client.batch_execute(retention).await.unwrap();
    is_refused(&database, &client, &broken, 80).await;
}
