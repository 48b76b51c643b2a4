//! What the documents say about the code is what the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater::ErrorKind;
use highwater::internal::engine::RunnerState;
use highwater::internal::retry::{Verdict, verdict};

const README: &str = include_str!("../../README.md");
const REFERENCE: &str = include_str!("../../docs/reference.md");
const SUMMARY: &str = include_str!("../../docs/SUMMARY.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");
const SETTINGS: &str = include_str!("../../docs/highwater.toml");
const FAILURES: &str = include_str!("../../docs/failures.md");

/// The names of the modules of `src` and of the crates, and of all directories in them.
fn modules() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut directories = sources();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let is_module =
                path.extension().is_some_and(|e| e == "rs") && directory.ends_with("src");
            let name = path.file_stem().unwrap().to_string_lossy();
            if (path.is_dir() || is_module) && name != "tests" {
                names.insert(name.into_owned());
            }
            if path.is_dir() {
                directories.push(path);
            }
        }
    }
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `src`, and that of each crate beside it.
fn sources() -> Vec<PathBuf> {
    let members = std::fs::read_dir(root().join("crates")).unwrap();
    let members = members.map(|entry| entry.unwrap().path().join("src"));
    [root().join("src")].into_iter().chain(members).collect()
}

#[test]
fn the_architecture_names_every_module_and_directory() {
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
fn the_architecture_names_no_file_that_is_gone() {
    let gone: Vec<&str> = ARCHITECTURE
        .split(|c: char| !(c.is_ascii_alphanumeric() || "_/.".contains(c)))
        .filter(|word| word.ends_with(".rs"))
        .filter(|word| !root().join(word).exists() && !root().join("src").join(word).exists())
        .collect();
    assert_eq!(gone, Vec::<&str>::new());
}

/// `section.key` of every key in `docs/highwater.toml`, those in a comment included.
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

/// The rows of the table under this heading, each cut into its cells.
fn table<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// The first column of that table, without its backticks.
fn first_column(page: &str, heading: &str) -> BTreeSet<String> {
    let rows = table(page, heading).into_iter();
    rows.map(|row| row[0].trim_matches('`').to_owned())
        .collect()
}

#[test]
fn the_settings_of_the_reference_are_those_of_highwater_toml_with_their_defaults() {
    assert_eq!(
        first_column(REFERENCE, "## Settings"),
        documented_settings()
    );
    for row in table(REFERENCE, "## Settings") {
        let [key, default] = [row[0], row[1]].map(|cell| cell.trim_matches('`'));
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
fn the_readme_and_the_reference_name_every_command() {
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
        let row = format!("| `highwater {command}");
        assert!(REFERENCE.contains(&row), "{command}");
        assert!(command == "help" || README.contains(&row), "{command}");
    }
}

/// What the reference says about every state, or every kind of error.
fn words(is_a: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = table(REFERENCE, "## States and errors").into_iter();
    rows.filter(|row| row[1] == is_a)
        .map(|row| (row[0].trim_matches('`'), row))
        .collect()
}

#[test]
fn the_reference_has_every_state_and_every_kind_of_error_in_one_table() {
    let states = RunnerState::ALL.map(RunnerState::as_str);
    let states: BTreeSet<&str> = states.into_iter().chain(["idle"]).collect();
    assert_eq!(words("state").into_keys().collect::<BTreeSet<_>>(), states);
    let kinds: BTreeSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words("error").into_keys().collect::<BTreeSet<_>>(), kinds);
    let rows = table(REFERENCE, "## States and errors");
    assert_eq!(rows.len(), states.len() + kinds.len());
    assert!(rows.iter().all(|row| row.len() == 5 && !row[4].is_empty()));
}

#[test]
fn the_reference_says_what_the_engine_does_about_every_kind_of_error() {
    for (name, row) in words("error") {
        let kind = *ErrorKind::ALL.iter().find(|k| k.as_str() == name).unwrap();
        let verb = match verdict(kind) {
            Verdict::Transient => "retries",
            Verdict::Poison => "isolates",
            _ => "stops",
        };
        // The others never come out of a run, and a fenced one is no failure.
        let is_of_a_run = ["retries", "isolates", "stops"]
            .iter()
            .any(|v| row[3].starts_with(v));
        assert!(!is_of_a_run || row[3].starts_with(verb), "{row:?}");
    }
}

#[test]
fn the_readme_is_short() {
    assert!(README.lines().count() <= 250);
}

/// README.md and the pages of the book, by their paths below the root.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = root();
    let book = std::fs::read_dir(root.join("docs")).unwrap();
    let book = book.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    let pages = book.filter(|path| path.extension().is_some_and(|e| e == "md"));
    pages
        .chain([PathBuf::from("README.md")])
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

/// The lines of a page outside of its blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    page.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    })
}

/// The anchor that GitHub and mdBook give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn anchors(page: &str) -> Vec<String> {
    let headings = prose(page).filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|heading| anchor(heading.trim_start_matches('#').trim()))
        .collect()
}

#[test]
fn every_page_is_in_the_summary() {
    for path in pages().keys().filter(|path| path.starts_with("docs")) {
        let name = path.file_name().unwrap().to_string_lossy();
        let is_listed = SUMMARY.contains(&format!("({name})"));
        assert!(is_listed || name == "SUMMARY.md", "{name}");
    }
}

#[test]
fn every_link_of_the_docs_leads_somewhere() {
    let root = root();
    let mut broken = Vec::new();
    for (path, page) in pages() {
        let links = prose(&page).flat_map(|line| line.split("](").skip(1));
        let links = links.filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root.join(&path),
                file => root.join(path.parent().unwrap()).join(file),
            };
            let is_there = match wanted {
                "" => target.exists(),
                wanted => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).iter().any(|anchor| anchor == wanted)),
            };
            // The book has the pages of docs alone.
            let leaves_the_book = path.starts_with("docs") && file.starts_with("..");
            if !is_there || leaves_the_book {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn code_of_the_examples_is_shown_as_it_is() {
    let root = root();
    let mut shown = 0;
    for (path, page) in pages() {
        for block in page.split("\n```rust,ignore from=").skip(1) {
            let (file, rest) = block.split_once('\n').unwrap();
            let (code, _) = rest.split_once("\n```").unwrap();
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            assert!(text.contains(code), "{}: {file} differs", path.display());
            shown += 1;
        }
    }
    assert!(shown >= 3);
}

/// `module::name` of every test in `tests/it`.
fn tests() -> BTreeSet<String> {
    let top = root().join("tests/it");
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
