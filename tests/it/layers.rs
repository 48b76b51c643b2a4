//! Who imports whom, as ARCHITECTURE.md says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// What a file imports: its path below `src`, without the ending, and its code.
struct File {
    path: Vec<String>,
    code: String,
}

fn files(directory: &Path) -> Vec<File> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths: Vec<PathBuf> = vec![directory.to_owned()];
    let mut files = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let name = path.strip_prefix(&source).unwrap().with_extension("");
            let path_of = name.iter().map(|part| part.to_string_lossy().into_owned());
            files.push(File {
                path: path_of.collect(),
                code: code(&std::fs::read_to_string(&path).unwrap()),
            });
        }
    }
    files
}

/// Without comments and unit tests.
fn code(text: &str) -> String {
    let (code, _) = text
        .split_once("#[cfg(test)]\nmod tests")
        .unwrap_or((text, ""));
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// The names that follow a prefix such as `crate::`, those in braces too.
fn named_after<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with("::") {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split(';').next().unwrap_or_default();
                names.extend(list.split([',', '{', '}']).map(|item| name(item.trim())));
            }
            None => {
                names.insert(name(rest));
            }
        }
    }
    names
}

fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_lowercase() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The modules of the code map, lowest first.
fn layers() -> Vec<&'static str> {
    let table = ARCHITECTURE.split_once("| layer | module |").unwrap().1;
    let rows = table.split("\n\n").next().unwrap().lines();
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let modules = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    modules.map(name).collect()
}

#[test]
fn a_module_imports_only_what_is_above_it_in_the_code_map() {
    let layers = layers();
    let place = |module: &str| layers.iter().position(|&layer| layer == module);
    let mut wrong = Vec::new();
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let module = file.path[0].as_str();
        let own = place(module).unwrap_or_else(|| panic!("{module} is not in the code map"));
        for imported in named_after(&file.code, "crate::") {
            if place(imported).is_some_and(|place| place > own) {
                wrong.push(format!("{} imports {imported}", file.path.join("/")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_two_parts_of_the_engine_import_each_other() {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine"));
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in &files {
        let own = file.path[1].as_str();
        let ours = named_after(&file.code, &"super::".repeat(file.path.len() - 1));
        let all = named_after(&file.code, "crate::engine::")
            .into_iter()
            .chain(ours);
        imports
            .entry(own)
            .or_default()
            .extend(all.filter(|&other| other != own));
    }
    assert!(imports["runner"].contains("apply"), "{imports:?}");
    for &part in imports.keys() {
        let mut reached = BTreeSet::new();
        let mut next = vec![part];
        while let Some(other) = next.pop() {
            for &further in imports.get(other).into_iter().flatten() {
                if reached.insert(further) {
                    next.push(further);
                }
            }
        }
        assert!(
            !reached.contains(part),
            "{part} reaches itself: {imports:?}"
        );
    }
}
