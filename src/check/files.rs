//! What can be checked without a database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Candidate, Check, Finding};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::projection::file::{load_sound, refuse_taken_names};
use crate::projection::test_file::TestFile;
use crate::source::Source;
use crate::suggest;

/// Checks the configuration, the projection files and their tests. Returns the valid projections.
pub(super) fn check(check: &Check<'_>, findings: &mut Vec<Finding>) -> Vec<Candidate> {
    if let Some(Err(fault)) = check.config.map(Config::load) {
        findings.push(Finding::error(fault));
    }
    let Some(directory) = check.directory else {
        return Vec::new();
    };
    let (files, faults) = load_sound(directory);
    findings.extend(faults.into_iter().map(Finding::error));
    let compiled = check.compiled.iter().map(|c| c.definition().name.clone());
    let compiled: Vec<_> = compiled.collect();
    if let Err(faults) = refuse_taken_names(&files, &compiled) {
        findings.extend(faults.into_iter().map(Finding::error));
    }
    for path in test_files(directory) {
        if let Err(fault) = TestFile::load(&path) {
            findings.push(Finding::error(fault));
        }
        let file = projection_of(&path);
        let is_compiled = compiled
            .iter()
            .any(|name| file.file_stem() == Some(name.as_str().as_ref()));
        if !file.exists() && !is_compiled {
            findings.push(Finding::warning(orphan(&path)));
        }
    }
    files.into_iter().map(Candidate::of_file).collect()
}

/// The files that end in `.test.toml`. A directory that cannot be read was reported already.
fn test_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_test = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".test.toml") && !name.starts_with('.')
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_test).collect();
    paths.sort();
    paths
}

/// `files.test.toml` → `files.sql`.
fn projection_of(tests: &Path) -> PathBuf {
    tests.with_extension("").with_extension("sql")
}

fn orphan(path: &Path) -> Error {
    let name = projection_of(path);
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    Error::new(
        ErrorKind::NotFound,
        format!("these tests are for projection {name}, which does not exist"),
    )
    .with_location(path.display().to_string())
    .with_hint("rename one of the two; these tests never run")
}

/// Every projection reads a source that is configured.
pub(super) fn check_sources(
    sources: &[Arc<dyn Source>],
    candidates: &[Candidate],
    findings: &mut Vec<Finding>,
) {
    let known: Vec<&str> = sources.iter().map(|source| source.name()).collect();
    if known.is_empty() {
        return;
    }
    for candidate in candidates {
        let source = &candidate.definition().source;
        if !known.contains(&source.as_str()) {
            let what = format!("reads the source \"{source}\", which is not configured");
            let error =
                Error::new(ErrorKind::Config, what).with_hint(suggest::suggestion(source, &known));
            findings.push(Finding::error(candidate.located(error)));
        }
    }
}
