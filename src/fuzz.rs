//! Hostile input: for every input a parser returns the value or a readable error.
//!
//! `tests/corpus/PARSER/` holds nasty inputs. Each parser gets them as they are, and then cut,
//! changed and grafted onto each other. What once failed is kept in `proptest-regressions/fuzz.txt`
//! and tried first; `PROPTEST_CASES=100000 cargo test --lib fuzz` looks longer.

use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseResult;

use crate::config::{Config, format_duration, parse_duration};
use crate::error::Error;
use crate::name::ProjectionName;
use crate::ndjson::NdjsonReader;
use crate::pg::connect::Connector;
use crate::projection::file::ProjectionFile;
use crate::projection::test_file::TestFile;

/// The password of every connection string in the corpus.
pub(crate) const SECRET: &str = "hunter2";

/// More is no sentence; a file's whole text or a line of it would be.
const SENTENCE_MAX: usize = 6_000;

/// What only Debug prints.
const DUMPS: [&str; 9] = [
    "Some(", "None,", "Ok(", "Err(", "Error {", "Error(", "Os {", "Custom {", "kind:",
];

const PIECES: [&[u8]; 58] = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"\x1b[31m",
    b"\r\n",
    b"\n",
    b" ",
    b"'",
    b"\"",
    b"'''",
    b"\"\"\"",
    b"$$",
    b"$a$",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"(",
    b")",
    b",",
    b":",
    b";",
    b"=",
    b"@",
    b"%",
    b"%zz",
    b"/",
    b"?",
    b"#",
    b"/*",
    b"*/",
    b"--",
    b"/* highwater\n",
    b"-- highwater: up\n",
    b"-- highwater: apply\n",
    b"events = [\"A\"]\n",
    b"partitions = 9",
    b"begin atomic",
    b"copy t from stdin",
    b"[[test]]\n",
    b"[test.expect]\n",
    b"given = ",
    b"version = ",
    b"2024-05-01",
    b"null = true",
    b"inf",
    b"-1",
    b"99999999999999999999",
    b"1e999",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
];

/// The least number of cases; the environment may set more.
pub(crate) fn cases(least: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: config.cases.max(least),
        ..config
    }
}

/// The corpus of a parser: the inputs by their file's name.
pub(crate) fn corpus(parser: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let directory = directory.join(parser);
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("a corpus") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, std::fs::read(entry.path()).expect("an input")));
    }
    inputs.sort();
    assert!(inputs.len() > 9, "{}", directory.display());
    inputs
}

#[derive(Clone, Debug)]
enum Change {
    Cut(Index, Index),
    Set(Index, u8),
    Put(Index, Vec<u8>),
    Again(Index, Index),
    /// The rest of another input.
    Graft(Index, Vec<u8>, Index),
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..20),
        1 => any::<String>().prop_map(String::into_bytes),
    ]
}

fn change(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        6 => (at(), piece()).prop_map(|(at, piece)| Change::Put(at, piece)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Again(from, to)),
        1 => (at(), prop::sample::select(seeds), at())
            .prop_map(|(at, other, from)| Change::Graft(at, other, from)),
    ]
}

fn changed(mut input: Vec<u8>, change: &Change) -> Vec<u8> {
    let span = |from: &Index, to: &Index, len: usize| {
        let (from, to) = (from.index(len + 1), to.index(len + 1));
        from.min(to)..from.max(to)
    };
    match change {
        Change::Cut(from, to) => {
            input.drain(span(from, to, input.len()));
        }
        Change::Set(at, byte) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] = *byte;
        }
        Change::Set(..) => {}
        Change::Put(at, piece) => {
            let at = at.index(input.len() + 1);
            input.splice(at..at, piece.iter().copied());
        }
        Change::Again(from, to) => {
            let again = input[span(from, to, input.len())].to_vec();
            input.extend(again);
        }
        Change::Graft(at, other, from) => {
            input.truncate(at.index(input.len() + 1));
            input.extend(&other[from.index(other.len() + 1)..]);
        }
    }
    input
}

/// An input of the corpus after up to six changes; or anything.
pub(crate) fn mutated(parser: &str, more: &[&str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let mut seeds: Vec<Vec<u8>> = corpus(parser).into_iter().map(|(_, input)| input).collect();
    seeds.extend(more.iter().map(|text| text.as_bytes().to_vec()));
    let changes = prop::collection::vec(change(seeds.clone()), 0..6);
    let grown = (prop::sample::select(seeds), changes)
        .prop_map(|(seed, changes)| changes.iter().fold(seed, changed));
    prop_oneof![9 => grown, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

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
