//! The tests of projections, run as `highwater test` runs them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::internal::given_expect::{Batching, TestReport, TestedProjection, run, select};
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::file::{ProjectionFile, load_directory};
use highwater::internal::projection::{Projection, RustProjection};
use highwater::internal::source::Batch;
use highwater::testing::TestDatabase;
use highwater::{BoxError, ErrorKind, Result};

use crate::support::COUNTS;

fn server(database: &TestDatabase) -> Connector {
    Connector::parse(database.url()).unwrap()
}

/// A projection and its tests as files, which go with the directory.
fn written(directory: &Path, name: &str, sql: &str, tests: Option<&str>) -> TestedProjection {
    let path = directory.join(format!("{name}.sql"));
    std::fs::write(&path, sql).unwrap();
    if let Some(tests) = tests {
        std::fs::write(directory.join(format!("{name}.test.toml")), tests).unwrap();
    }
    TestedProjection::file(ProjectionFile::load(&path).unwrap())
}

async fn run_one(sql: &str, tests: &str) -> TestReport {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let subject = written(directory.path(), "counts", sql, Some(tests));
    run(&server(&database), &[subject]).await.unwrap()
}

const TWO_EVENTS: &str = r#"
[[test]]
name = "events are counted"
given = [
    { stream = "a", type = "T", data = {} },
    { stream = "a", type = "T", data = {}, version = 7, recorded_at = "2024-05-01T12:00:00Z" },
]
[test.expect]
counts = [{ stream = "a", n = 2, last = 2 }]

[[test]]
name = "nothing given, nothing there"
[test.expect]
counts = []
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_case_begins_with_an_empty_log_and_runs_twice() {
    let report = run_one(COUNTS, TWO_EVENTS).await;
    assert!(report.passed(), "{}", report.render());
    assert_eq!(report.render(), "counts  2 passed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_reported_with_the_line_and_the_rows() {
    let report = run_one(COUNTS, &TWO_EVENTS.replace("n = 2", "n = 3")).await;
    let case = &report.tested[0].cases[0];
    assert!(!case.passed && report.tested[0].cases[1].passed);
    let [failure] = case.failures.as_slice() else {
        panic!("{case:?}")
    };
    assert_eq!(failure.how, Batching::Both);
    let text = report.render();
    for part in [
        "counts  1 passed, 1 FAILED",
        "events are counted, in one batch and one event a batch:",
        "counts.test.toml: line 9: counts differs",
        "expected, but not there:",
        "n = 3",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_depends_on_the_batch_is_caught() {
    // The last of a batch wins, and with it the count of the batch.
    let sql = COUNTS.replace("counts.n + excluded.n", "excluded.n");
    let report = run_one(&sql, TWO_EVENTS).await;
    let failures = &report.tested[0].cases[0].failures;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].how, Batching::OneEventABatch);
    let sql = COUNTS.replace("count(*)", "count(*) - 1");
    let report = run_one(&sql, TWO_EVENTS).await;
    let hows: Vec<Batching> = report.tested[0].cases[0]
        .failures
        .iter()
        .map(|f| f.how)
        .collect();
    assert_eq!(
        hows,
        [Batching::OneBatch, Batching::OneEventABatch],
        "{}",
        report.render()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_says_of_a_faulty_projection_is_the_failure() {
    let sql = COUNTS.replace("count(*)", "count(*) / 0");
    let report = run_one(&sql, TWO_EVENTS).await;
    let text = report.render();
    assert!(
        text.contains("counts.sql: line 5: apply failed: division by zero"),
        "{text}"
    );
    let sql = COUNTS.replace("bigint not null, last", "bigintt not null, last");
    let report = run_one(&sql, TWO_EVENTS).await;
    let text = report.render();
    assert!(text.contains("counts.sql: line 3: up failed"), "{text}");
    assert!(text.contains("0 passed, 2 FAILED"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_reported_with_those_that_exist() {
    let report = run_one(COUNTS, &TWO_EVENTS.replace("counts = []", "count = []")).await;
    let text = report.render();
    let expected =
        "line 14: there is no table \"count\" in counts; did you mean counts? (known: counts)";
    assert!(text.contains(expected), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_event_that_cannot_be_appended_is_reported_with_its_line() {
    let report = run_one(COUNTS, &TWO_EVENTS.replace("version = 7", "version = 1")).await;
    let text = report.render();
    assert!(
        text.contains("counts.test.toml: line 6: cannot append the given event"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_without_tests_and_one_whose_tests_cannot_be_read_are_reported() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let subjects = [
        written(
            directory.path(),
            "broken",
            COUNTS,
            Some("[[test]]\nnme = 1"),
        ),
        written(directory.path(), "untested", COUNTS, None),
    ];
    let report = run(&server(&database), &subjects).await.unwrap();
    assert!(!report.passed());
    let text = report.render();
    assert!(
        text.contains("broken    its tests cannot be read\n"),
        "{text}"
    );
    assert!(text.contains("untested  no tests\n"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["tested"][1]["has_tests"], false);

    let error = select(subjects.to_vec(), &["brokn".into()]).err().unwrap();
    assert_eq!(
        error.hint(),
        Some("did you mean broken? (known: broken, untested)")
    );
    assert_eq!(
        select(subjects.to_vec(), &["broken".into()]).unwrap().len(),
        1
    );
}

struct Streams;

impl Projection for Streams {
    fn name(&self) -> &str {
        "streams"
    }

    fn up(&self) -> &str {
        "create table streams (stream text primary key)"
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let sql = "insert into streams values ($1) on conflict do nothing";
            tx.execute(sql, &[&event.stream]).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_rust_is_tested_alike() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let tests = directory.path().join("streams.test.toml");
    let text = TWO_EVENTS
        .replace(
            "[{ stream = \"a\", n = 2, last = 2 }]",
            "[{ stream = \"a\" }]",
        )
        .replace("counts =", "streams =");
    std::fs::write(&tests, text).unwrap();
    let subject = TestedProjection::new(Arc::new(RustProjection::new(Streams).unwrap()), tests);
    let report = run(&server(&database), &[subject]).await.unwrap();
    assert!(report.passed(), "{}", report.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_databases_hears_what_it_needs_and_nothing_is_left() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let role = format!("t_{}", uuid::Uuid::new_v4().simple());
    client
        .batch_execute(&format!("create role {role} login"))
        .await
        .unwrap();
    let text = format!("{} user={role}", key_values(database.url()));
    let server = Connector::parse(&text).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let subject = written(directory.path(), "counts", COUNTS, Some(TWO_EVENTS));
    let error = run(&server, std::slice::from_ref(&subject))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    let hint = error.hint().unwrap();
    assert!(
        hint.starts_with(&format!("alter role \"{role}\" createdb")),
        "{error}"
    );

    client
        .batch_execute(&format!("alter role {role} createdb"))
        .await
        .unwrap();
    let report = run(&server, &[subject]).await.unwrap();
    assert!(report.passed(), "{}", report.render());
    let left: i64 = client
        .query_one(
            "select count(*) from pg_database where datdba = $1::text::regrole",
            &[&role],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

/// The server's address as `key=value` text, so that another user can be named behind it.
fn key_values(url: &str) -> String {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let host = match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().unwrap();
    format!("host={host} port={port} dbname={database}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_projections_pass_their_own_tests() {
    let database = TestDatabase::new().await;
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("projections");
    let files = load_directory(&directory).unwrap();
    let subjects: Vec<TestedProjection> = files.into_iter().map(TestedProjection::file).collect();
    let report = run(&server(&database), &subjects).await.unwrap();
    assert!(report.passed(), "{}", report.render());
    assert!(
        report.tested.iter().all(|t| !t.cases.is_empty()),
        "{}",
        report.render()
    );
}
