//! The invariants of ARCHITECTURE.md that a search of the text can show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Whether a line shows what only some files may have.
type Sign = fn(&str) -> bool;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.flat_map(|path| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    });
    files.collect()
}

/// The files of these directories with such a line; comments and unit tests aside.
fn files_with(directories: &[&str], sign: Sign) -> BTreeSet<String> {
    let files = directories
        .iter()
        .flat_map(|d| files_below(&root().join(d)));
    let files = files.filter(|file| !file.ends_with("tests.rs") && !file.ends_with("fuzz.rs"));
    let found = files.filter(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_comment = |line: &str| {
            ["//", "--"]
                .iter()
                .any(|c| line.trim_start().starts_with(c))
        };
        code.lines().any(|line| !is_comment(line) && sign(line))
    });
    found
        .map(|file| file.strip_prefix(root()).unwrap().display().to_string())
        .collect()
}

#[track_caller]
fn only(expected: &[&str], directories: &[&str], sign: Sign) {
    let expected: BTreeSet<String> = expected.iter().map(|file| (*file).to_owned()).collect();
    assert_eq!(
        files_with(directories, sign),
        expected,
        "see ARCHITECTURE.md"
    );
}

const SOURCES: [&str; 3] = ["src", "crates/cluster/src", "crates/connect/src"];

#[test]
fn only_three_parts_open_a_transaction_under_the_fence() {
    let expected = [
        "src/engine/apply.rs", // moves a checkpoint alone
        "src/engine/apply/in_server.rs",
        "src/engine/apply/park.rs",
        "src/engine/apply/streamed.rs",
    ];
    only(&expected, &["src"], |line| line.contains(".fence()"));
}

#[test]
fn the_engine_names_no_concrete_source_and_no_concrete_projection() {
    let names = |line: &str| {
        ["TableSource", "SqlProjection", "KeyedView"]
            .iter()
            .any(|n| line.contains(n))
    };
    only(&[], &["src/engine"], names);
    let engine = std::fs::read_to_string(root().join("src/engine.rs")).unwrap();
    assert!(!engine.lines().any(names));
}

#[test]
fn the_mark_does_no_io_and_knows_no_time() {
    let mark = std::fs::read_to_string(root().join("src/mark.rs")).unwrap();
    for word in ["async", "Instant", "Duration"] {
        assert!(!mark.contains(word), "{word}");
    }
}

#[test]
fn one_file_compares_raw_positions() {
    let compares = |line: &str| {
        line.split(".get() ").skip(1).any(|rest| {
            let rest = rest.trim_start();
            rest.starts_with("as f") || rest.starts_with(['-', '+', '*', '/', '<', '>'])
        })
    };
    // A percentage.
    only(&["src/status/render.rs"], &["src"], compares);
}

#[test]
fn one_table_gives_errors_their_exit_codes() {
    only(&["src/error/kind.rs"], &["src"], |line| {
        line.contains("fn exit_code(")
    });
}

#[test]
fn seven_files_look_at_a_sqlstate() {
    let looks = |line: &str| {
        line.split("Some(\"").skip(1).any(|rest| {
            let state = rest.split('"').next().unwrap_or_default();
            state.len() == 5
                && state
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        })
    };
    let expected = [
        "src/audit.rs",
        "src/check/trial.rs",
        "src/engine/apply/in_server.rs",
        "src/engine/read_model.rs",
        "src/engine/read_model/batch_view.rs",
        "src/given_expect/scratch.rs",
        "src/pg.rs",
    ];
    only(&expected, &["src"], looks);
}

#[test]
fn one_file_listens() {
    let listens = |line: &str| line.to_lowercase().contains("\"listen \\\"");
    only(&["crates/connect/src/listen.rs"], &SOURCES, listens);
}

#[test]
fn two_statements_notify() {
    let expected = [
        "sql/migrations/log/0006_wake.sql",
        "sql/queries/instance/wake.sql",
    ];
    only(&expected, &["sql"], |line| line.contains("notify("));
}

#[test]
fn no_statement_of_the_engine_is_prepared_under_a_name() {
    let prepares = |line: &str| {
        let calls = ["prepare", "query", "query_one", "execute"];
        calls
            .iter()
            .any(|call| line.contains(&format!("client.{call}(")))
    };
    only(&["crates/cluster/src/probe.rs"], &SOURCES, prepares);
    let locks_a_session = |line: &str| line.contains("advisory_lock(");
    only(&[], &["sql"], locks_a_session);
}

#[test]
fn the_wall_clock_only_stamps() {
    let expected = [
        "src/audit.rs",
        "src/cli/ui.rs",
        "src/error/stored.rs",
        "src/event.rs",
    ];
    only(&expected, &SOURCES, |line| line.contains("Timestamp::now"));
}

#[test]
fn nothing_prints_by_itself() {
    only(&[], &SOURCES, |line| line.contains("println!("));
}

#[test]
fn only_the_second_signal_and_a_failpoint_end_the_process() {
    let ends = |line: &str| line.contains("process::exit") || line.contains("process::abort");
    only(&["src/cli/signals.rs", "src/failpoint.rs"], &SOURCES, ends);
}
