//! A crate of its own uses highwater as users do: all that it needs is public.

use std::process::{Command, Output};

use highwater::testing::TestDatabase;

use crate::support::one;

const COUNTS: &str = "
-- highwater: up
create table counts (type text primary key, events bigint not null);

-- highwater: apply
insert into counts select type, count(*) from batch group by type
    on conflict (type) do update set events = counts.events + excluded.events;
";

fn cargo(arguments: &[&str]) -> Output {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(program)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .args(["--offline", "--package", "outside"])
        .output()
        .unwrap()
}

fn succeeded(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_projections_with_what_is_public_and_nothing_else() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counts.sql");
    std::fs::write(&file, COUNTS).unwrap();
    succeeded(cargo(&["build"]));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    let program = Command::new(program.join("debug/outside"))
        .arg(database.url())
        .arg(&file)
        .output();
    let said = succeeded(program.unwrap());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "counts is at 2",
            "balances is at 2",
            "lengths is at 2",
            "counts paused: true",
            "counts resumed: true",
            "3 projections",
            "balances stopped: TooRich at 3",
            "counts Drained",
            "lengths Drained",
        ]
    );
    let client = database.client().await;
    let cents = one::<i64>(&client, "select cents from balances.balance").await;
    assert_eq!(cents, 500);
}

#[test]
fn a_program_tests_a_source_and_projections_of_its_own() {
    succeeded(cargo(&["test"]));
}

#[test]
fn a_program_that_wants_only_projections_builds_without_what_else_there_is() {
    succeeded(cargo(&["check", "--no-default-features"]));
    let tree = [
        "tree",
        "--no-default-features",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    let tree = succeeded(cargo(&tree));
    let crates: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(crates.contains(&"highwater") && crates.contains(&"tokio-postgres"));
    for unwanted in ["nix", "tempfile", "flate2", "etcetera", "clap", "indicatif"] {
        assert!(!crates.contains(&unwanted), "{unwanted} in\n{tree}");
    }
}
