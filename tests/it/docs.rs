//! What the documents say about the code is what the code says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const README: &str = include_str!("../../README.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");
const SETTINGS: &str = include_str!("../../docs/highwater.toml");
const FAILURES: &str = include_str!("../../docs/failures.md");

/// The names of the modules of `src` and of all directories in it.
fn modules() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let is_module = path.extension().is_some_and(|e| e == "rs") && directory == source();
            if path.is_dir() || is_module {
                let name = path.file_stem().unwrap().to_string_lossy();
                names.insert(name.into_owned());
            }
            if path.is_dir() {
                directories.push(path);
            }
        }
    }
    names
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn the_architecture_names_every_module_and_directory_of_src() {
    let is_named = |name: &String| {
        ["`NAME`", "`NAME/`", "`NAME.rs`", "/NAME/`"]
            .iter()
            .any(|form| ARCHITECTURE.contains(&form.replace("NAME", name)))
    };
    let missing: Vec<String> = modules().into_iter().filter(|m| !is_named(m)).collect();
    assert_eq!(missing, Vec::<String>::new(), "say what it is");
    assert!(ARCHITECTURE.lines().count() < 200);
}

#[test]
fn the_architecture_names_no_file_of_src_that_is_gone() {
    let gone: Vec<&str> = ARCHITECTURE
        .split(|c: char| !(c.is_ascii_alphanumeric() || "_/.".contains(c)))
        .filter(|word| word.ends_with(".rs"))
        .filter(|word| !source().join(word.trim_start_matches("src/")).exists())
        .collect();
    assert_eq!(gone, Vec::<&str>::new());
}

/// `section.key` of every key in `docs/highwater.toml`, those that stand in a comment included.
fn documented_settings() -> BTreeSet<String> {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in SETTINGS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn the_settings_of_the_readme_are_those_of_the_reference_with_their_defaults() {
    let (_, rest) = README.split_once("### Settings").unwrap();
    let (table, _) = rest.split_once("###").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<(&str, &str)> = rows.filter_map(|row| row.split_once("` | ")).collect();
    let named: BTreeSet<String> = rows.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(named, documented_settings());
    for (key, rest) in rows {
        let default = rest.split(" | ").next().unwrap().trim_matches('`');
        let name = key.split_once('.').unwrap().1;
        let is_there = [
            format!("\n{name} = {default}\n"),
            format!("\n{name} = \"{default}\"\n"),
        ]
        .iter()
        .any(|line| format!("{SETTINGS}\n").contains(line));
        assert!(
            default == "none" || is_there,
            "{key} is not {default} by default"
        );
    }
}

#[test]
fn the_readme_names_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = rest.split_once("\n\n").unwrap();
    let lines = commands.lines().filter(|line| !line.starts_with("   "));
    let commands: Vec<&str> = lines.filter_map(|l| l.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        assert!(
            README.contains(&format!("| `highwater {command}")),
            "{command}"
        );
    }
}

/// `module::name` of every test in `tests/it`.
fn tests() -> BTreeSet<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut names = BTreeSet::new();
    let mut directories = vec![top.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let module = path.strip_prefix(&top).unwrap().with_extension("");
            let module = module.to_string_lossy().replace('/', "::");
            let text = std::fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| {
                let line = line.trim_start().trim_start_matches("async ");
                line.strip_prefix("fn ")?.split(['(', '<']).next()
            });
            names.extend(functions.map(|name| format!("{module}::{name}")));
        }
    }
    names
}

#[test]
fn every_test_that_the_failures_name_is_there() {
    let there = tests();
    let named = FAILURES.split('`').skip(1).step_by(2);
    let named: Vec<&str> = named
        .filter(|word| word.contains("::") && !word.contains(' '))
        .collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !there.contains(**name))
        .collect();
    assert_eq!(missing, Vec::<&&str>::new(), "name tests that are there");
}
