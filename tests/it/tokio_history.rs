//! The real history: what git says is alive is what the read models hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use highwater::Outcome;
use highwater::internal::append::append_ndjson;
use highwater::internal::engine::{Engine, Settings, Until};
use highwater::internal::event_store;
use highwater::internal::ndjson::NdjsonReader;
use highwater::internal::projection::file::load_directory;
use highwater::internal::projection::{DynProjection, Keyed, SqlProjection};
use highwater::testing::TestDatabase;
use tokio_util::sync::CancellationToken;

use crate::support::one;

#[path = "../../examples/files_in_rust/view.rs"]
mod view;

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name)
}

fn projections() -> Vec<Arc<dyn DynProjection>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("projections");
    let files = load_directory(&directory).unwrap();
    let mut all: Vec<Arc<dyn DynProjection>> = Vec::new();
    for file in files {
        all.push(Arc::new(SqlProjection::new(file)));
    }
    all.push(Arc::new(Keyed::new(view::Files).unwrap()));
    all
}

async fn with_history() -> TestDatabase {
    let database = TestDatabase::new().await;
    let store = event_store::in_database(database.pooled());
    let reader = NdjsonReader::open(&data("tokio-history.ndjson.gz")).unwrap();
    let summary = append_ndjson(&store, reader, 1_000, |_| {}).await.unwrap();
    assert_eq!(summary.appended, 24_935);
    database
}

async fn run(database: &TestDatabase, settings: Settings) {
    let engine = Engine::new(database.pooled(), settings).source(database.source());
    let engine = projections().into_iter().fold(engine, Engine::projection);
    let report = engine
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    for (name, outcome) in &report.outcomes {
        assert!(matches!(outcome, Outcome::CaughtUp), "{name}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_alive_equal_what_git_says_path_by_path_in_sql_and_in_rust() {
    let database = with_history().await;
    run(&database, Settings::default()).await;
    let text = std::fs::read_to_string(data("tokio-history.truth.json")).unwrap();
    let truth: serde_json::Value = serde_json::from_str(&text).unwrap();
    let truth: BTreeMap<String, String> = serde_json::from_value(truth["alive"].clone()).unwrap();
    let client = database.client().await;
    for table in ["files.files", "files_in_rust.files"] {
        let rows = client
            .query(&format!("select path, blob from {table}"), &[])
            .await
            .unwrap();
        let alive: BTreeMap<String, String> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(alive, truth, "{table}");
    }
    let differing: i64 = one(
        &client,
        "select count(*) from (table files.files except table files_in_rust.files) d",
    )
    .await;
    assert_eq!(differing, 0, "SQL and Rust agree in every column");
    let unfinished: i64 = one(&client, "select count(*) from hotspots.unfinished_commits").await;
    assert_eq!(unfinished, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_the_history_is_cut_into_batches_changes_no_read_model() {
    let whole = with_history().await;
    run(&whole, Settings::default()).await;
    let cut = with_history().await;
    let mut settings = Settings::default();
    settings.batch_events_max = 97;
    run(&cut, settings).await;
    let (whole, cut) = (whole.client().await, cut.client().await);
    for (table, columns) in [
        ("files.files", "*"),
        ("files_in_rust.files", "*"),
        ("authors.authors", "*"),
        ("hotspots.hotspots", "*"),
        ("hotspots.hotspot_pairs", "*"),
    ] {
        let sql = format!(
            "select md5(string_agg(t::text, '|' order by t::text)) from (select {columns} from {table}) t"
        );
        assert_eq!(
            one::<String>(&whole, &sql).await,
            one::<String>(&cut, &sql).await,
            "{table}"
        );
    }
}
