//! The nasty inputs of the corpus, given to the program itself.

use std::path::{Path, PathBuf};

use highwater::testing::TestDatabase;

use super::{Ran, Shop};
use crate::support::one;

fn inputs(parser: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(corpus.join(parser)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// One sentence on stderr about the file, whatever was in it.
fn assert_refused(ran: &Ran, code: i32, about: &str) {
    assert_eq!(ran.code, code, "{about}: {ran:?}");
    let error = ran.stderr.strip_prefix("error: ").unwrap_or_default();
    assert!(
        error.contains(about) && error.contains("; "),
        "{about}: {ran:?}"
    );
    let speaks = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    assert!(
        !error.contains(speaks) && !error.contains("panicked"),
        "{about}: {ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_lines_is_appended_or_refused_in_a_sentence() {
    let shop = Shop::new();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let mut refused = 0;
    for file in inputs("lines") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let before: i64 = one(&client, "select count(*) from highwater.event").await;
        let path = file.to_string_lossy();
        let ran = shop
            .run(Some(database.url()), &["append", &path, "--json"])
            .await;
        let after: i64 = one(&client, "select count(*) from highwater.event").await;
        if ran.code == 0 {
            assert_eq!(ran.json()["appended"], after - before, "{name}");
            continue;
        }
        refused += 1;
        let ran = shop.run(Some(database.url()), &["append", &path]).await;
        assert_refused(&ran, 1, &name);
    }
    assert!(refused > 10, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_server_cannot_take_is_refused_with_its_line_too() {
    let shop = Shop::new();
    let database = TestDatabase::new().await;
    let good = "{\"stream\":\"s\",\"type\":\"T\",\"data\":1}\n";
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let far = format!("1e{}", 200_000);
    for (name, data) in [("deep", deep.as_str()), ("far", &far)] {
        let bad = format!("{{\"stream\":\"s\",\"type\":\"T\",\"data\":{data}}}\n");
        shop.write(name, &format!("{good}{bad}{good}"));
        let ran = shop.run(Some(database.url()), &["append", name]).await;
        assert_refused(&ran, 1, &format!("{name}: line 2"));
        assert!(
            ran.stderr.contains("the 1 events before it are stored"),
            "{ran:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_projection_and_setting_is_checked_or_refused_in_a_sentence() {
    let database = TestDatabase::new().await;
    for (parser, path) in [
        ("projection", "projections/files.sql"),
        ("settings", "highwater.toml"),
    ] {
        for file in inputs(parser) {
            let shop = Shop::new();
            shop.write("projections/files.sql", "-- highwater: apply\nselect 1");
            std::fs::copy(&file, shop.dir().join(path)).unwrap();
            let ran = shop
                .run(Some(database.url()), &["run", "--until-caught-up"])
                .await;
            let is_run = ran.code == 0 || ran.code == 4;
            if !is_run {
                assert_refused(&ran, 2, path);
            }
            assert!(!ran.stderr.contains("hunter2"), "{file:?}: {ran:?}");
        }
    }
}
