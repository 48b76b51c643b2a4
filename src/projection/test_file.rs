//! The tests of a projection, `projections/<name>.test.toml`: given events, expected rows.
//!
//! ```toml
//! [[test]]
//! name = "a deleted file disappears"
//! given = [
//!     { stream = "file-a", type = "FileAdded", data = { path = "a", blob = "b1" } },
//!     { stream = "file-a", type = "FileDeleted", data = { path = "a", blob = { null = true } } },
//! ]
//! [test.expect]
//! files = []
//! ```
//!
//! TOML has no null: `{ null = true }` stands for it, in events and in rows. Dates and times
//! become text. Only the columns that a row names are compared, in any order of rows.

mod compare;
mod reader;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::projection::file::{FILE_SIZE_MAX, read_text};
use crate::projection::toml_text::TomlText;

pub use compare::{Difference, compare};

/// The columns that a test names, and their values.
pub type ExpectedRow = Map<String, Value>;

/// The tests of one projection.
#[derive(Clone, Debug)]
pub struct TestFile {
    /// Where the file is, as it was given.
    pub path: PathBuf,
    /// The tests, in the order of the file.
    pub tests: Vec<Test>,
}

/// One test: what is given, what is expected.
#[derive(Clone, Debug)]
pub struct Test {
    /// What the test says of the projection.
    pub name: String,
    /// The line of the file on which it begins.
    pub line: usize,
    /// The events, in the order in which they are appended.
    pub given: Vec<GivenEvent>,
    /// The tables of the projection's schema and their rows, sorted by table.
    pub expect: Vec<ExpectedTable>,
}

/// An event that a test appends.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenEvent {
    /// The stream it goes to.
    pub stream: String,
    /// Its version; `None` is the next one of the stream.
    pub version: Option<i64>,
    /// Its type.
    pub event_type: String,
    /// What happened.
    pub data: Value,
    /// Facts about it; `occurred_at` is put here under that name.
    pub metadata: Map<String, Value>,
    /// Its identity; `None` is a random one.
    pub id: Option<Uuid>,
    /// When it was recorded; `None` is now.
    pub recorded_at: Option<Timestamp>,
    /// The line of the file on which it begins.
    pub line: usize,
}

/// A table and the rows that it must have, no more and no fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedTable {
    /// The name of the table or view in the projection's schema, without quotes.
    pub table: String,
    /// The rows, in any order.
    pub rows: Vec<ExpectedRow>,
    /// The line of the file on which they begin.
    pub line: usize,
}

impl TestFile {
    /// The file that holds the tests of the projection at `path`, if there are any.
    pub fn path_beside(path: &Path) -> PathBuf {
        path.with_extension("test.toml")
    }

    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// As [`TestFile::parse`], and [`ErrorKind::Io`] or [`ErrorKind::NotFound`] if the file
    /// cannot be read.
    pub fn load(path: &Path) -> Result<TestFile> {
        TestFile::parse(path, &read_text(path)?)
    }

    /// Parses the text of the file at `path`, which is not read.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the file and the line.
    pub fn parse(path: &Path, text: &str) -> Result<TestFile> {
        if text.len() > FILE_SIZE_MAX {
            return Err(
                Error::new(ErrorKind::Config, "the file is larger than 1024 KiB")
                    .with_location(path.display().to_string())
                    .with_hint("a test needs a few events; remove the others"),
            );
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tests = reader::tests(&TomlText::new(path.display().to_string(), text, 1))?;
        if tests.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "there is no test in this file")
                    .with_location(path.display().to_string())
                    .with_hint("begin one with [[test]], or remove the file"),
            );
        }
        Ok(TestFile {
            path: path.to_owned(),
            tests,
        })
    }

    /// A location in the file as errors name it: `projections/files.test.toml: line 12`.
    pub fn location(&self, line: usize) -> String {
        format!("{}: line {line}", self.path.display())
    }
}
