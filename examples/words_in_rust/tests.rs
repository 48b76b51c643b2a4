//! Its tests, with the feature `testing`.

use highwater::testing::{MemorySource, TestDatabase};
use highwater::{ErrorKind, Highwater, NewEvent, Outcome, Result, Until};
use serde_json::json;

use crate::words::Words;

/// Applies what the source has that is not applied yet.
async fn run(database: &TestDatabase, source: &MemorySource) -> Result<Outcome> {
    let highwater = Highwater::connect(database.url()).await?;
    let highwater = highwater.source(source.clone()).projection(Words);
    let mut report = highwater.run(Until::CaughtUp).await?;
    Ok(report.outcomes.remove(0).1)
}

async fn commits_with(database: &TestDatabase, word: &str) -> i64 {
    let sql = "select coalesce(sum(commits), 0)::bigint from words.words where word = $1";
    let row = database.client().await.query_one(sql, &[&word]).await;
    row.expect("the read model is there").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_counts_once_a_commit_and_batches_add_up() -> Result<()> {
    let database = TestDatabase::new().await;
    let source = MemorySource::new("default");

    let subject = json!({ "subject": "net: fix a leak, and fix the test" });
    source.append("tokio", NewEvent::new("CommitRecorded", &subject)?);
    assert!(matches!(run(&database, &source).await?, Outcome::CaughtUp));
    assert_eq!(commits_with(&database, "fix").await, 1);

    let subject = json!({ "subject": "Fix a typo" });
    source.append("tokio", NewEvent::new("CommitRecorded", &subject)?);
    assert!(matches!(run(&database, &source).await?, Outcome::CaughtUp));
    assert_eq!(commits_with(&database, "fix").await, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_subject_stops_the_projection_and_is_named() -> Result<()> {
    let database = TestDatabase::new().await;
    let source = MemorySource::new("default");
    let subject = json!({ "subject": "Fix a typo" });
    source.append("tokio", NewEvent::new("CommitRecorded", &subject)?);
    let position = source.append("tokio", NewEvent::new("CommitRecorded", &json!({}))?);

    let Outcome::Stopped(error) = run(&database, &source).await? else {
        panic!("it must not be applied");
    };
    assert_eq!(error.kind(), ErrorKind::Undigestible);
    let event = error.event().expect("the event is named");
    assert_eq!(event.position, position);
    assert_eq!(
        commits_with(&database, "typo").await,
        1,
        "the first is kept"
    );
    Ok(())
}
