//! Any vector of arguments is a command, a request for help, or a readable error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::{command, exit, parse};
use crate::fuzz::{SECRET, cases, corpus, mutated};

/// Every command and option that there is.
fn words() -> Vec<Vec<u8>> {
    let program = command("highwater");
    let mut words = vec![b"--help".to_vec(), b"--version".to_vec(), b"help".to_vec()];
    for part in program.get_subcommands().chain([&program]) {
        words.push(part.get_name().as_bytes().to_vec());
        words.extend(
            part.get_subcommands()
                .map(|part| part.get_name().as_bytes().to_vec()),
        );
        for argument in part.get_arguments() {
            words.extend(
                argument
                    .get_long()
                    .map(|long| format!("--{long}").into_bytes()),
            );
            words.extend(
                argument
                    .get_short()
                    .map(|short| format!("-{short}").into_bytes()),
            );
        }
    }
    words
}

fn arguments(words: impl IntoIterator<Item = Vec<u8>>) -> Vec<OsString> {
    let words = words.into_iter().map(OsString::from_vec);
    std::iter::once("highwater".into()).chain(words).collect()
}

fn one_a_line(input: &[u8]) -> Vec<OsString> {
    arguments(input.split(|byte| *byte == b'\n').map(<[u8]>::to_vec))
}

fn shown(error: &clap::Error, arguments: &[OsString]) -> String {
    exit::complaint(error, arguments).unwrap_or_else(|| error.to_string())
}

fn taken_or_told(arguments: &[OsString]) -> TestCaseResult {
    let Err(error) = parse(arguments) else {
        return Ok(());
    };
    let text = shown(&error, arguments);
    prop_assert!(!text.trim().is_empty());
    if !error.use_stderr() {
        return Ok(());
    }
    prop_assert_eq!(error.exit_code(), exit::Exit::Usage as i32);
    if text.starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let message = value["error"]["message"].as_str().unwrap_or_default();
        prop_assert!(!message.trim().is_empty(), "{}", text);
    } else {
        prop_assert!(
            text.starts_with("error: ") || text.contains("Usage: "),
            "{}",
            text
        );
    }
    Ok(())
}

#[test]
fn the_command_line_is_described_without_contradictions() {
    command("highwater").debug_assert();
}

#[test]
fn every_argument_list_of_the_corpus_is_taken_or_answered_without_a_password() {
    for (name, input) in corpus("arguments") {
        let arguments = one_a_line(&input);
        taken_or_told(&arguments).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        if let Err(error) = parse(&arguments) {
            let text = shown(&error, &arguments);
            assert!(!text.contains(SECRET), "{name}: {text}");
        }
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn any_list_of_words_and_bytes_is_taken_or_answered(
        list in prop::collection::vec(prop_oneof![
            4 => prop::sample::select(words()),
            1 => mutated("arguments", &[]),
            1 => prop::collection::vec(any::<u8>(), 0..12),
            1 => (prop::sample::select(words()), prop::collection::vec(any::<u8>(), 0..8))
                .prop_map(|(word, bytes)| [word, b"=".to_vec(), bytes].concat()),
        ], 0..6),
    ) {
        taken_or_told(&arguments(list))?;
    }

    #[test]
    fn any_change_of_a_known_command_line_is_taken_or_answered(input in mutated("arguments", &[])) {
        taken_or_told(&one_a_line(&input))?;
    }
}
