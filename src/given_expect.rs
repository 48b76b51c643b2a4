//! The tests of projections: given events, expected rows, on a scratch database.
//!
//! Each case runs twice with the real engine: all events in one batch, and one event a batch. How
//! a history is cut into batches changes from run to run, so the outcome must be the same.

mod case;
mod report;
mod scratch;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::connect::Connector;
use crate::projection::file::ProjectionFile;
use crate::projection::test_file::TestFile;
use crate::projection::{DynProjection, SqlProjection};

pub use report::{Batching, Case, Failure, TestReport, Tested};

use scratch::Scratch;

/// A projection and the file of its tests.
#[derive(Clone)]
pub struct TestedProjection {
    projection: Arc<dyn DynProjection>,
    tests: Option<PathBuf>,
}

impl TestedProjection {
    /// A projection file, with the tests in `NAME.test.toml` beside it if there are any.
    pub fn file(file: ProjectionFile) -> TestedProjection {
        let beside = TestFile::path_beside(&file.path);
        TestedProjection {
            tests: beside.exists().then_some(beside),
            projection: Arc::new(SqlProjection::new(file)),
        }
    }

    /// Any projection, with the tests in the file `tests`, for example
    /// `tests/accounts.test.toml`.
    pub fn new(projection: Arc<dyn DynProjection>, tests: impl Into<PathBuf>) -> TestedProjection {
        TestedProjection {
            projection,
            tests: Some(tests.into()),
        }
    }

    /// Any projection, with the tests in the file `tests` if it is there.
    pub fn beside(projection: Arc<dyn DynProjection>, tests: PathBuf) -> TestedProjection {
        TestedProjection {
            projection,
            tests: tests.exists().then_some(tests),
        }
    }

    /// The projection's name.
    pub fn name(&self) -> &ProjectionName {
        &self.projection.definition().name
    }
}

/// Takes the subjects of these names, all for none.
///
/// # Errors
/// [`ErrorKind::NotFound`], with the known names.
pub fn select(subjects: Vec<TestedProjection>, names: &[String]) -> Result<Vec<TestedProjection>> {
    let known: Vec<&str> = subjects.iter().map(|s| s.name().as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let what = format!("there is no projection \"{}\"", unknown.escape_debug());
        return Err(Error::new(ErrorKind::NotFound, what)
            .with_hint(crate::suggest::suggestion(unknown, &known)));
    }
    if names.is_empty() {
        return Ok(subjects);
    }
    let wanted = |s: &TestedProjection| names.iter().any(|name| name == s.name().as_str());
    Ok(subjects.into_iter().filter(wanted).collect())
}

/// Runs the tests of all subjects, in a database that is made on `server` for them and dropped
/// at the end.
///
/// # Errors
/// If there can be no scratch database: the role needs the right to create one. Faults of a test,
/// its file or its projection are in the report.
pub async fn run(server: &Connector, subjects: &[TestedProjection]) -> Result<TestReport> {
    let mut tested: Vec<Tested> = Vec::new();
    let mut files = Vec::new();
    for subject in subjects {
        let mut result = Tested::new(subject.name().clone());
        match subject.tests.as_deref().map(TestFile::load) {
            None => {}
            Some(Ok(file)) => {
                result.has_tests = true;
                files.push((tested.len(), file));
            }
            Some(Err(fault)) => {
                result.has_tests = true;
                result.fault = Some(Arc::new(fault));
            }
        }
        tested.push(result);
    }
    if !files.is_empty() {
        let scratch = Scratch::create(server).await?;
        let done = run_files(&scratch, subjects, &files, &mut tested).await;
        let dropped = scratch.drop().await;
        done?;
        dropped?;
    }
    Ok(TestReport { tested })
}

async fn run_files(
    scratch: &Scratch,
    subjects: &[TestedProjection],
    files: &[(usize, TestFile)],
    tested: &mut [Tested],
) -> Result<()> {
    for (at, file) in files {
        let (Some(subject), Some(tested)) = (subjects.get(*at), tested.get_mut(*at)) else {
            continue;
        };
        for test in &file.tests {
            let failures = case::run(scratch, &subject.projection, file, test).await?;
            tested.cases.push(Case::new(subject.name(), test, failures));
        }
    }
    Ok(())
}
