//! Finds faults before anything runs: in configuration, files, sources and SQL.
//!
//! All faults are found at once. The SQL is tried in a transaction that is always rolled back, in
//! a schema of its own, on an empty batch: nothing is left behind and nothing is applied.

mod database;
mod files;
mod index;
mod trial;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::pg::database::Database;
use crate::projection::file::ProjectionFile;
use crate::projection::{Definition, DynProjection, SqlProjection};
use crate::source::Source;

/// What to check.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    /// `highwater.toml`, if there is one.
    pub config: Option<&'a Path>,
    /// The directory of the projection files, if there is one.
    pub directory: Option<&'a Path>,
    /// The projections in Rust.
    pub compiled: &'a [Arc<dyn DynProjection>],
    /// The database of the read models; without one only files are checked.
    pub database: Option<&'a Database>,
    /// The sources that are configured.
    pub sources: &'a [Arc<dyn Source>],
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It would not run.
    Error,
    /// It would run, or stop on purpose; an operator should know.
    Warning,
}

/// A fault.
#[derive(Debug)]
pub struct Finding {
    /// Its severity.
    pub level: Level,
    /// What, where, and what to do.
    pub error: Error,
}

impl Finding {
    fn error(error: Error) -> Finding {
        Finding {
            level: Level::Error,
            error,
        }
    }

    fn warning(error: Error) -> Finding {
        Finding {
            level: Level::Warning,
            error,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Error => write!(f, "error: {}", self.error),
            Level::Warning => write!(f, "warning: {}", self.error),
        }
    }
}

/// A projection that is checked, with its file if it has one.
struct Candidate {
    projection: Arc<dyn DynProjection>,
    file: Option<ProjectionFile>,
}

impl Candidate {
    fn of_file(file: ProjectionFile) -> Candidate {
        Candidate {
            projection: Arc::new(SqlProjection::new(file.clone())),
            file: Some(file),
        }
    }

    fn compiled(projection: &Arc<dyn DynProjection>) -> Candidate {
        Candidate {
            projection: projection.clone(),
            file: None,
        }
    }

    fn definition(&self) -> &Definition {
        self.projection.definition()
    }

    fn place(&self) -> String {
        match &self.file {
            Some(file) => file.path.display().to_string(),
            None => format!("projection {}", self.definition().name),
        }
    }

    /// Adds the place of the projection to an error without a place.
    fn located(&self, error: Error) -> Error {
        match error.location() {
            Some(_) => error,
            None => error.with_location(self.place()),
        }
    }
}

/// Checks everything and returns the findings: errors first, each in the order of the files.
pub async fn run(check: Check<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut candidates = files::check(&check, &mut findings);
    candidates.extend(check.compiled.iter().map(Candidate::compiled));
    files::check_sources(check.sources, &candidates, &mut findings);
    if let Some(target) = check.database {
        database::check(target, check.sources, &candidates, &mut findings).await;
    }
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// Whether something would not run.
pub fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.level == Level::Error)
}

/// The findings as text, a line for each unless the server's own text has more; empty if there
/// are none.
pub fn render(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("{f}\n")).collect()
}
