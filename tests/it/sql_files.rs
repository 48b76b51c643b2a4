//! Every file of `sql/queries` says what it is for and can be run as it is, and no other SQL is put
//! together but by the builder.

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
    // What the defaults of placeholders name.
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
        if let Err(error) = client.prepare(&text).await {
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

/// The files of the engine and of the crates beside it, below the root.
fn sources() -> Vec<PathBuf> {
    let mut files = files_below(&root().join("src"));
    for member in fs::read_dir(root().join("crates")).unwrap() {
        files.extend(files_below(&member.unwrap().path().join("src")));
    }
    files
}

#[test]
fn no_file_of_the_source_is_longer_than_500_lines() {
    for file in sources() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(
            lines <= 500,
            "{} has {lines} lines: split it",
            file.display()
        );
    }
}

#[test]
fn half_of_the_files_of_the_engine_are_not_longer_than_150_lines() {
    let files = files_below(&root().join("src")).into_iter();
    let lines = files.map(|file| fs::read_to_string(file).unwrap().lines().count());
    let mut lines: Vec<usize> = lines.collect();
    lines.sort_unstable();
    let median = lines[lines.len() / 2];
    assert!(median <= 150, "{median} lines");
}

#[test]
fn no_migration_is_longer_than_200_lines() {
    for file in files_below(&root().join("sql/migrations")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(
            lines <= 200,
            "{} has {lines} lines: split it",
            file.display()
        );
    }
}

/// Texts that begin like SQL and are none that is sent; and the one statement without the builder.
const NO_SQL: [(&str, &str, &str); 10] = [
    ("check/index.rs", "create index concurrently", "a hint"),
    ("source/table/gap.rs", "alter sequence", "a hint"),
    ("given_expect/scratch.rs", "alter role", "a hint"),
    (
        "status/render/holders.rs",
        "select pg_terminate_backend",
        "a hint",
    ),
    ("status/render/holders.rs", "commit prepared", "a hint"),
    ("crates/cluster/src/locate.rs", "set {VARIABLE}", "a hint"),
    (
        "crates/connect/src/listen.rs",
        "listen ",
        "the crate has no builder",
    ),
    (
        "dead_letters.rs",
        "with the fingerprint",
        "a part of a sentence",
    ),
    (
        "crates/sql-text/src/control.rs",
        "set {}",
        "the name of what is refused",
    ),
    (
        "crates/sql-text/src/control.rs",
        "copy with",
        "the name of what is refused",
    ),
];

/// What statements begin with.
const STATEMENTS: [&str; 26] = [
    "alter",
    "begin",
    "call",
    "comment",
    "commit",
    "copy",
    "create",
    "delete",
    "do",
    "drop",
    "explain",
    "grant",
    "insert",
    "listen",
    "lock",
    "notify",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "select",
    "set",
    "truncate",
    "update",
    "values",
    "with",
];

#[test]
fn sql_is_put_together_by_the_builder_alone() {
    let mut excused = Vec::new();
    for file in sources() {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let name = name.trim_start_matches("src/").to_owned();
        if name.starts_with("pg/sql") || name.ends_with("tests.rs") || name.ends_with("fuzz.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for sign in [".replace(\"{", ".replace(\"$", "Sql::composed("] {
            assert!(
                !text.contains(sign),
                "{name} has {sign}: use sql! or query!"
            );
        }
        for formatted in formatted(text).filter(|text| looks_like_sql(text)) {
            let excuse = NO_SQL
                .iter()
                .find(|(file, begin, _)| *file == name && formatted.starts_with(begin));
            match excuse {
                Some(excuse) => excused.push(excuse),
                None => panic!("{name} formats {formatted:?}: use sql! or query!"),
            }
        }
    }
    for excuse in &NO_SQL {
        assert!(excused.contains(&excuse), "{excuse:?} is needed no more");
    }
}

/// The texts that are formatted or pushed in a source file, without what follows their first quote.
fn formatted(source: &str) -> impl Iterator<Item = &str> {
    let calls = ["format!(", "write!(f, ", "push_str("];
    let behind = calls
        .into_iter()
        .flat_map(|call| source.split(call).skip(1));
    behind.filter_map(|text| text.trim_start().strip_prefix('"')?.split('"').next())
}

/// Also where it begins with a value that is put in, and where statements follow each other.
fn looks_like_sql(text: &str) -> bool {
    text.contains("};\\n") || begins_like_sql(after_values(text))
}

/// What follows the values that a text begins with.
fn after_values(mut text: &str) -> &str {
    while let Some((_, rest)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        text = rest.trim_start_matches([';', ' ']);
        text = text.trim_start_matches("\\n");
    }
    text
}

#[test]
fn sql_is_found_behind_the_values_that_a_text_begins_with() {
    for text in [
        "{begin};\\n{fence}",
        "{}{last}{end};\\ncommit",
        "{with} select 1",
    ] {
        assert!(looks_like_sql(text), "{text}");
    }
    for text in ["{name}: select one", "{socket}.lock", "{a}; {b}"] {
        assert!(!looks_like_sql(text), "{text}");
    }
}

fn begins_like_sql(text: &str) -> bool {
    let first = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    STATEMENTS.contains(&first.to_ascii_lowercase().as_str())
}
