//! The outcome of the tests.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;

use crate::error::Error;
use crate::name::ProjectionName;
use crate::projection::test_file::Test;

/// The outcome of the tests of several projections.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// The projections, in the order they were given.
    pub tested: Vec<Tested>,
}

/// The outcome of the tests of one projection.
#[derive(Clone, Debug, Serialize)]
pub struct Tested {
    /// Its name.
    pub projection: ProjectionName,
    /// Whether it has tests.
    pub has_tests: bool,
    /// Why its tests could not be read.
    #[serde(serialize_with = "fault_as_text")]
    pub fault: Option<Arc<Error>>,
    /// Its cases, in the order of the file.
    pub cases: Vec<Case>,
}

/// The outcome of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// The projection.
    pub projection: ProjectionName,
    /// The case's name.
    pub case: String,
    /// Whether it held in both runs.
    pub passed: bool,
    /// What did not hold.
    pub failures: Vec<Failure>,
}

/// How a run of a case failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The run.
    pub how: Batching,
    /// What did not hold, `FILE: line N: …`.
    pub difference: String,
}

/// How the events were cut into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Batching {
    /// All of them at once.
    #[serde(rename = "in one batch")]
    OneBatch,
    /// Each by itself.
    #[serde(rename = "one event a batch")]
    OneEventABatch,
    /// It made no difference.
    #[serde(rename = "in one batch and one event a batch")]
    Both,
}

impl fmt::Display for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Batching::OneBatch => "in one batch",
            Batching::OneEventABatch => "one event a batch",
            Batching::Both => "in one batch and one event a batch",
        })
    }
}

fn fault_as_text<S: serde::Serializer>(
    fault: &Option<Arc<Error>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match fault {
        None => serializer.serialize_none(),
        Some(error) => serializer.serialize_str(&error.to_string()),
    }
}

impl Tested {
    pub(super) fn new(projection: ProjectionName) -> Tested {
        Tested {
            projection,
            has_tests: false,
            fault: None,
            cases: Vec::new(),
        }
    }

    /// Whether all of its cases passed; without tests nothing failed.
    pub fn passed(&self) -> bool {
        self.fault.is_none() && self.cases.iter().all(|case| case.passed)
    }
}

impl Case {
    pub(super) fn new(projection: &ProjectionName, test: &Test, failures: Vec<Failure>) -> Case {
        Case {
            projection: projection.clone(),
            case: test.name.clone(),
            passed: failures.is_empty(),
            failures,
        }
    }
}

impl TestReport {
    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.tested.iter().all(Tested::passed)
    }

    /// The report as text that ends with a line end: a line for each projection, and below it
    /// what failed.
    pub fn render(&self) -> String {
        let names = self.tested.iter().map(|t| t.projection.as_str().len());
        let width = names.max().unwrap_or(0);
        let mut text = String::new();
        for tested in &self.tested {
            let name = tested.projection.as_str();
            let _ = writeln!(text, "{name:width$}  {}", summary(tested));
            if let Some(fault) = &tested.fault {
                let _ = writeln!(text, "  {fault}");
            }
            for case in &tested.cases {
                for failure in &case.failures {
                    let _ = writeln!(text, "\n  {}, {}:", case.case, failure.how);
                    for line in failure.difference.lines() {
                        let _ = writeln!(text, "    {line}");
                    }
                }
            }
        }
        text
    }
}

fn summary(tested: &Tested) -> String {
    if tested.fault.is_some() {
        return "its tests cannot be read".to_owned();
    }
    if !tested.has_tests {
        return "no tests".to_owned();
    }
    let failed = tested.cases.iter().filter(|case| !case.passed).count();
    let passed = tested.cases.len() - failed;
    match failed {
        0 => format!("{passed} passed"),
        _ => format!("{passed} passed, {failed} FAILED"),
    }
}
