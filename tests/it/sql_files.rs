//! Every statement in `sql/queries` is one that the server understands, and says what it is for.

use std::fs;
use std::path::{Path, PathBuf};

use highwater::internal::projection::file::load_directory;
use highwater::testing::TestDatabase;
use tokio_postgres::Client;

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_file_has_a_header_and_can_be_prepared() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client
        .batch_execute("create schema s; create table public.t (k text primary key, n bigint)")
        .await
        .unwrap();
    create_shipped_read_models(&client).await;
    let files = files_below(&root().join("sql/queries"));
    assert!(files.len() > 20, "where are the queries?");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("-- Purpose: "),
            "{}: no purpose",
            file.display()
        );
        let filled = text
            // Of several lines, as the real one: it would end a comment.
            .replace("{also}", ",\n(\nselect 1::bigint)")
            .replace("{observed}", "select 1 as living, 1 as projections")
            .replace("{instances}", "highwater.instance")
            .replace("{events}", "highwater.event")
            .replace("{schema}", "s")
            .replace("{types}", "true")
            .replace("{after}", "0")
            .replace("{through}", "0")
            .replace("{table}", "public.t")
            .replace("{match}", "t.k = k.k")
            .replace("{columns}", "k, n")
            .replace("{keys}", "k")
            .replace("{key}", "stream")
            .replace("{partition}", "true")
            .replace("{own}", "count(*)")
            .replace("{aside}", "0")
            .replace("{parked}", "true")
            .replace("{changes}", "nothing")
            .replace("{projection}", "'p'")
            .replace("{generation}", "1")
            .replace("{number}", "0")
            .replace("{most}", "1");
        if let Err(error) = client.prepare(&filled).await {
            panic!("{}: {error:?}", file.display());
        }
    }
}

/// The demo's queries are about these.
async fn create_shipped_read_models(client: &Client) {
    for file in load_directory(&root().join("projections")).unwrap() {
        let (name, up) = (&file.name, &file.up.text);
        let sql =
            format!("create schema {name}; set search_path = {name}; {up}; reset search_path");
        client.batch_execute(&sql).await.unwrap();
    }
}

#[test]
fn no_file_of_the_source_is_longer_than_500_lines() {
    for file in files_below(&root().join("src")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(
            lines <= 500,
            "{} has {lines} lines: split it",
            file.display()
        );
    }
}
