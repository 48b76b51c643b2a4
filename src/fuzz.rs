//! Hostile input: for every input a parser returns the value or a readable error.
//!
//! `tests/corpus/PARSER/` holds nasty inputs. Each parser gets them as they are, and then cut,
//! changed and grafted onto each other. What once failed is kept in `proptest-regressions/fuzz.txt`
//! and tried first; `PROPTEST_CASES=100000 cargo test --lib fuzz` looks longer.

use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::config::{Config, format_duration, parse_duration};
use crate::error::Error;
use crate::name::ProjectionName;
use crate::ndjson::NdjsonReader;
use crate::pg::connect::Connector;
use crate::projection::file::ProjectionFile;
use crate::projection::test_file::TestFile;

#[path = "../tests/corpus/mutate.rs"]
mod mutate;

use mutate::piece;
pub(crate) use mutate::{cases, corpus, mutated};

/// The password of every connection string in the corpus.
pub(crate) const SECRET: &str = "hunter2";

/// More is no sentence; a file's whole text or a line of it would be.
const SENTENCE_MAX: usize = 6_000;

/// What only Debug prints.
const DUMPS: [&str; 9] = [
    "Some(", "None,", "Ok(", "Err(", "Error {", "Error(", "Os {", "Custom {", "kind:",
];

/// Why an error is not what a user can read.
fn fault_of(error: &Error) -> Option<&'static str> {
    let text = error.to_string();
    if error.message().trim().is_empty() {
        return Some("it says nothing");
    }
    if error.hint().is_none_or(|hint| hint.trim().is_empty()) {
        return Some("it does not say what to do");
    }
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    {
        return Some("it would speak to the terminal");
    }
    if text.len() > SENTENCE_MAX {
        return Some("it is too long to be read");
    }
    let is_dump = DUMPS.iter().any(|dump| error.message().contains(dump));
    is_dump.then_some("it is a dump")
}

fn assert_sentence(error: &Error) -> TestCaseResult {
    let fault = fault_of(error);
    prop_assert!(
        fault.is_none(),
        "{}: {:?}",
        fault.unwrap_or_default(),
        error
    );
    Ok(())
}

/// A sentence that names the file and a line that it has.
fn assert_names_line(error: &Error, file: &str, input: &[u8]) -> TestCaseResult {
    assert_sentence(error)?;
    let location = error.location().unwrap_or_default();
    let line = location
        .strip_prefix(file)
        .and_then(|rest| rest.strip_prefix(": line "));
    let line = line.and_then(|line| line.parse::<usize>().ok());
    let lines = input.split(|byte| *byte == b'\n').count();
    prop_assert!(
        line.is_some_and(|line| (1..=lines).contains(&line)),
        "{:?} of {} lines",
        error,
        lines
    );
    Ok(())
}

fn lines(input: &[u8]) -> TestCaseResult {
    let reader = NdjsonReader::new("events", Cursor::new(input.to_vec())).with_line_limit(100_000);
    let is_plain = !input.starts_with(b"\x1f\x8b");
    for event in reader {
        match event {
            Ok(event) => prop_assert!(!event.stream.is_empty() && event.line > 0),
            Err(error) if is_plain => assert_names_line(&error, "events", input)?,
            Err(error) => assert_sentence(&error)?,
        }
    }
    Ok(())
}

/// The file at its path, and its text where it is text.
fn on_disk<T>(input: &[u8], suffix: &str, load: fn(&Path) -> crate::Result<T>) -> TestCaseResult {
    let file = tempfile::Builder::new()
        .prefix("f")
        .suffix(suffix)
        .tempfile();
    let file = file.expect("a file");
    std::fs::write(file.path(), input).expect("written");
    let Err(error) = load(file.path()) else {
        return Ok(());
    };
    assert_sentence(&error)?;
    let location = error.location().unwrap_or_default();
    prop_assert!(
        location.contains(&file.path().display().to_string()),
        "{:?}",
        error
    );
    Ok(())
}

const PROJECTION: &str = "projections/files.sql";
const EXPECTATIONS: &str = "projections/files.test.toml";

fn projection(input: &[u8]) -> TestCaseResult {
    let text = String::from_utf8_lossy(input);
    match ProjectionFile::parse(Path::new(PROJECTION), &text) {
        Ok(file) => {
            prop_assert!(!file.apply.statements.is_empty());
            prop_assert_eq!(file.hash().as_str().len(), 64);
            for section in [&file.up, &file.apply] {
                for s in &section.statements {
                    prop_assert!(section.text[s.offset..].starts_with(&s.text));
                }
            }
        }
        // That something is missing is on no line.
        Err(error) if error.location() == Some(PROJECTION) => assert_sentence(&error)?,
        Err(error) => assert_names_line(&error, PROJECTION, text.as_bytes())?,
    }
    Ok(())
}

fn expectations(input: &[u8]) -> TestCaseResult {
    let text = String::from_utf8_lossy(input);
    match TestFile::parse(Path::new(EXPECTATIONS), &text) {
        Ok(file) => prop_assert!(!file.tests.is_empty()),
        Err(error) if error.location() == Some(EXPECTATIONS) => assert_sentence(&error)?,
        Err(error) => assert_names_line(&error, EXPECTATIONS, text.as_bytes())?,
    }
    Ok(())
}

fn settings(input: &[u8]) -> TestCaseResult {
    let text = String::from_utf8_lossy(input);
    match Config::parse(&text, "highwater.toml") {
        Ok(config) => {
            let lease = config.engine.lease;
            prop_assert_eq!(parse_duration(&format_duration(lease)).ok(), Some(lease));
        }
        // A value that is out of its limits is named by its key.
        Err(error) if error.location() == Some("highwater.toml") => assert_sentence(&error)?,
        Err(error) => assert_names_line(&error, "highwater.toml", text.as_bytes())?,
    }
    Ok(())
}

fn connection(input: &[u8]) -> TestCaseResult {
    let text = String::from_utf8_lossy(input);
    match Connector::parse_with(&text, &|_| None) {
        Ok(connector) => prop_assert!(!connector.describe().is_empty()),
        Err(error) => assert_sentence(&Error::from(error))?,
    }
    Ok(())
}

fn hold(parser: &str, check: fn(&[u8]) -> TestCaseResult) {
    for (name, input) in corpus(parser) {
        check(&input).unwrap_or_else(|fault| panic!("tests/corpus/{parser}/{name}: {fault}"));
    }
}

#[test]
fn every_input_of_the_corpus_is_taken_or_answered_with_a_sentence() {
    hold("lines", lines);
    hold("projection", projection);
    hold("projection", |input| {
        on_disk(input, ".sql", ProjectionFile::load)
    });
    hold("expectations", expectations);
    hold("expectations", |input| {
        on_disk(input, ".test.toml", TestFile::load)
    });
    hold("settings", settings);
    hold("settings", |input| on_disk(input, ".toml", Config::load));
    hold("connection", connection);
}

#[test]
fn no_error_about_the_corpus_shows_a_password() {
    for (name, input) in corpus("settings") {
        let text = String::from_utf8_lossy(&input);
        if let Err(error) = Config::parse(&text, "f") {
            assert!(!format!("{error:?}").contains(SECRET), "{name}: {error:?}");
        }
    }
    for (name, input) in corpus("connection") {
        let text = String::from_utf8_lossy(&input);
        let shown = match Connector::parse_with(&text, &|_| None) {
            Ok(connector) => format!("{connector:?} {}", connector.describe()),
            Err(error) => format!("{error:?}"),
        };
        assert!(!shown.contains(SECRET), "{name}: {shown}");
        assert!(!crate::pg::redact(&text).contains(SECRET), "{name}");
    }
}

#[test]
fn nesting_of_any_depth_overflows_no_stack() {
    for depth in [100, 10_000, 400_000] {
        for (open, close) in [
            ("[", "]"),
            ("{\"a\":", "}"),
            ("{a=", "}"),
            ("(", ")"),
            ("/*", "*/"),
        ] {
            let deep = open.repeat(depth) + "1" + &close.repeat(depth);
            let line =
                format!("{{\"stream\":\"s\",\"type\":\"T\",\"data\":1,\"metadata\":{deep}}}");
            for check in [
                lines(line.as_bytes()),
                lines(line.replace("\"metadata", "\"data").as_bytes()),
            ] {
                check.expect("lines");
            }
            let file =
                format!("/* highwater\nevents = {deep}\n*/\n-- highwater: apply\nselect {deep}");
            projection(file.as_bytes()).expect("projection");
            expectations(format!("[[test]]\nname = \"a\"\ngiven = {deep}").as_bytes())
                .expect("tests");
            settings(format!("[engine]\nlease = {deep}").as_bytes()).expect("settings");
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn any_lines_give_events_or_a_sentence_that_names_the_line(
        input in mutated("lines", &[])
    ) {
        lines(&input)?;
    }

    #[test]
    fn any_projection_file_is_taken_or_answered_with_a_sentence(
        input in mutated("projection", &[
            include_str!("../projections/files.sql"),
            include_str!("../projections/authors.sql"),
            include_str!("../projections/hotspots.sql"),
        ])
    ) {
        projection(&input)?;
    }

    #[test]
    fn any_file_of_tests_is_taken_or_answered_with_a_sentence(
        input in mutated("expectations", &[
            include_str!("../projections/files.test.toml"),
            include_str!("../projections/authors.test.toml"),
        ])
    ) {
        expectations(&input)?;
    }

    #[test]
    fn any_settings_are_taken_or_answered_with_a_sentence(
        input in mutated("settings", &[include_str!("../docs/highwater.toml")])
    ) {
        settings(&input)?;
    }

    #[test]
    fn any_connection_string_is_taken_or_answered_with_a_sentence(
        input in mutated("connection", &[])
    ) {
        connection(&input)?;
    }

    #[test]
    fn any_name_and_any_duration_are_taken_or_answered_with_a_sentence(
        input in prop_oneof![mutated("arguments", &["1d2h3m4s5ms", "a_b"]), piece()]
    ) {
        let text = String::from_utf8_lossy(&input);
        match text.parse::<ProjectionName>() {
            Ok(name) => prop_assert_eq!(name.as_str(), text.as_ref()),
            Err(error) => assert_sentence(&error)?,
        }
        if let Err(error) = parse_duration(&text) {
            assert_sentence(&error)?;
        }
    }
}
