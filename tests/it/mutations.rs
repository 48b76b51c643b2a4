//! Each rule of the heart, broken on purpose: a test that is named here fails.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use highwater::internal::mutation::MUTATIONS;

/// The mistake, and a test that finds it.
const FOUND: &[(&str, &str)] = &[
    (
        "fence",
        "fence::a_checkpoint_moves_only_forwards_from_its_position_and_under_its_epoch",
    ),
    (
        "fence.epoch",
        "fence::a_checkpoint_moves_only_forwards_from_its_position_and_under_its_epoch",
    ),
    (
        "fence.position",
        "fence::a_checkpoint_moves_only_forwards_from_its_position_and_under_its_epoch",
    ),
    (
        "fence.monotony",
        "fence::a_checkpoint_moves_only_forwards_from_its_position_and_under_its_epoch",
    ),
    (
        "fence.parking",
        "fence::a_checkpoint_moves_only_forwards_from_its_position_and_under_its_epoch",
    ),
    (
        "end_batch",
        "rust_projection::a_projection_that_ends_or_breaks_its_transaction_is_stopped_and_nothing_is_half_done",
    ),
    (
        "mark.locks_not_read",
        "mark::gaps::an_open_appender_holds_the_mark_until_it_commits_then_both_flow_in_order",
    ),
    (
        "mark.locks_before_rows",
        "mark::orders::locks_before_rows_lose_an_event",
    ),
    (
        "mark.rows_read_once",
        "mark::orders::a_commit_between_the_rows_and_the_snapshot_is_in_the_second_read",
    ),
    (
        "mark.unseen_rows_proven",
        "mark::orders::a_second_read_beyond_what_was_seen_first_loses_an_event",
    ),
    (
        "parking.followers",
        "parking::a_poison_event_parks_its_key_and_all_others_flow",
    ),
    (
        "parking.order",
        "parking::a_fixed_key_is_applied_in_order_and_then_flows_again",
    ),
    (
        "fence.parking",
        "parking::rust::a_runner_that_reads_the_events_learns_of_a_discard_before_its_next_batch",
    ),
    (
        "divergence",
        "divergence::a_log_that_lost_its_newest_events_is_diverged_though_its_numbers_go_on",
    ),
    (
        "divergence",
        "divergence::another_log_at_the_same_address_is_diverged",
    ),
];

/// How many servers are started beside each other.
const AT_ONCE: usize = 3;

/// Starts tests of this binary in a process, and on a server, of their own.
fn start(tests: &BTreeSet<&str>, mutation: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--exact").args(tests);
    command.env_remove("HIGHWATER_TEST_DATABASE_URL");
    match mutation {
        Some(name) => command.env("HIGHWATER_MUTATION", name),
        None => command.env_remove("HIGHWATER_MUTATION"),
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_rule_that_is_broken_is_found_by_the_test_that_is_named_for_it() {
    let tests: BTreeSet<&str> = FOUND.iter().map(|(_, test)| *test).collect();
    let sound = start(&tests, None).wait_with_output().unwrap();
    let passed = format!("{} passed; 0 failed", tests.len());
    assert!(
        sound.status.success() && shown(&sound).contains(&passed),
        "{}",
        shown(&sound)
    );
    let names: BTreeSet<&str> = FOUND.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, MUTATIONS.iter().copied().collect());
    let names: Vec<&str> = names.into_iter().collect();
    for names in names.chunks(AT_ONCE) {
        let started: Vec<_> = names
            .iter()
            .map(|name| {
                let finders = FOUND.iter().filter(|(mutation, _)| mutation == name);
                let finders: BTreeSet<&str> = finders.map(|(_, test)| *test).collect();
                (name, finders.len(), start(&finders, Some(name)))
            })
            .collect();
        for (name, finders, child) in started {
            let broken = shown(&child.wait_with_output().unwrap());
            let failed = format!("0 passed; {finders} failed");
            assert!(broken.contains(&failed), "{name} was not found:\n{broken}");
        }
    }
}

/// What is switched on is in the code: a rule that is not there any more breaks nothing.
#[test]
fn every_rule_that_can_be_broken_is_in_the_code_once() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = String::new();
    for file in [
        "mark.rs",
        "source/table/follower.rs",
        "source/table/locks.rs",
        "engine/divergence.rs",
        "engine/runner/park.rs",
        "pg/dead_letter.rs",
    ] {
        text += &std::fs::read_to_string(source.join(file)).unwrap();
    }
    let switches = |name: &&&str| text.matches(&format!("(\"{name}\"")).count() == 1;
    let in_rust = MUTATIONS.iter().filter(switches).count();
    let is_in_sql = |name: &&&str| name.starts_with("fence") || **name == "end_batch";
    let in_sql = MUTATIONS.iter().filter(is_in_sql).count();
    assert_eq!(in_rust + in_sql, MUTATIONS.len());
}
