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
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::event::NewEvent;
use crate::projection::file::{FILE_SIZE_MAX, read_text};
use crate::projection::toml_text::{TomlText, quoted};

pub use compare::{Difference, compare};

/// The columns that a test names, and their values.
pub type Row = Map<String, Value>;

const FILE_KEYS: [&str; 1] = ["test"];
const TEST_KEYS: [&str; 3] = ["name", "given", "expect"];
const EVENT_KEYS: [&str; 8] = [
    "stream",
    "type",
    "data",
    "version",
    "metadata",
    "occurred_at",
    "recorded_at",
    "id",
];

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
    pub rows: Vec<Row>,
    /// The line of the file on which they begin.
    pub line: usize,
}

impl GivenEvent {
    /// The event as it is appended.
    ///
    /// # Errors
    /// [`ErrorKind::BadEvent`] if its data or metadata cannot be written as JSON.
    pub fn to_new_event(&self) -> Result<NewEvent> {
        let event = NewEvent::new(self.event_type.as_str(), &self.data)?;
        let event = event.with_metadata(&self.metadata)?;
        Ok(match self.id {
            Some(id) => event.with_id(id),
            None => event,
        })
    }
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
                    .at(path.display().to_string())
                    .hint("a test needs a few events; remove the others"),
            );
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let reader = Reader(TomlText::new(path.display().to_string(), text, 1));
        let table = reader.0.parse()?;
        let tests = reader.tests(table.get_ref())?;
        if tests.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "there is no test in this file")
                    .at(path.display().to_string())
                    .hint("begin one with [[test]], or remove the file"),
            );
        }
        Ok(TestFile {
            path: path.to_owned(),
            tests,
        })
    }

    /// A place in the file as errors name it: `projections/files.test.toml: line 12`.
    pub fn place(&self, line: usize) -> String {
        format!("{}: line {line}", self.path.display())
    }
}

struct Reader<'a>(TomlText<'a>);

impl Reader<'_> {
    fn tests(&self, table: &DeTable<'_>) -> Result<Vec<Test>> {
        self.0.only(table, &FILE_KEYS, "the file")?;
        let Some(list) = table.get("test") else {
            return Ok(Vec::new());
        };
        let mut tests: Vec<Test> = Vec::new();
        for (value, entry) in self.tables(list, "test", "[[test]] tables")? {
            let test = self.test(value, entry)?;
            if tests.iter().any(|other| other.name == test.name) {
                let what = format!("there are two tests named {}", quoted(&test.name));
                return Err(self.0.error(value.span().start, what).hint("rename one"));
            }
            tests.push(test);
        }
        Ok(tests)
    }

    /// The tables of a list of tables.
    fn tables<'v, 'i>(
        &self,
        list: &'v Spanned<DeValue<'i>>,
        name: &str,
        wanted: &str,
    ) -> Result<Vec<(&'v Spanned<DeValue<'i>>, &'v DeTable<'i>)>> {
        let items = list.get_ref().as_array();
        let items = items.ok_or_else(|| self.0.unlike(list, name, wanted))?;
        items
            .iter()
            .map(|item| match item.get_ref().as_table() {
                Some(table) => Ok((item, table)),
                None => Err(self.0.unlike(item, name, wanted)),
            })
            .collect()
    }

    fn required<'v, 'i>(
        &self,
        entry: &Spanned<DeValue<'_>>,
        table: &'v DeTable<'i>,
        key: &str,
        whose: &str,
    ) -> Result<&'v Spanned<DeValue<'i>>> {
        table.get(key).ok_or_else(|| {
            self.0
                .error(entry.span().start, format!("{whose} has no {key}"))
                .hint(format!("add the key {key}"))
        })
    }

    fn test(&self, entry: &Spanned<DeValue<'_>>, table: &DeTable<'_>) -> Result<Test> {
        self.0.only(table, &TEST_KEYS, "a test")?;
        let name = self.required(entry, table, "name", "the test")?;
        let expect = self.required(entry, table, "expect", "the test")?;
        let given = match table.get("given") {
            Some(list) => self.given(list)?,
            None => Vec::new(),
        };
        Ok(Test {
            name: self.0.text(name, "name")?.to_owned(),
            line: self.0.line(entry.span().start),
            given,
            expect: self.expect(expect)?,
        })
    }

    fn given(&self, list: &Spanned<DeValue<'_>>) -> Result<Vec<GivenEvent>> {
        let events = self.tables(list, "given", "a list of events")?;
        events
            .into_iter()
            .map(|(entry, table)| self.event(entry, table))
            .collect()
    }

    fn event(&self, entry: &Spanned<DeValue<'_>>, table: &DeTable<'_>) -> Result<GivenEvent> {
        self.0.only(table, &EVENT_KEYS, "an event")?;
        let stream = self.required(entry, table, "stream", "the event")?;
        let event_type = self.required(entry, table, "type", "the event")?;
        let data = self.required(entry, table, "data", "the event")?;
        Ok(GivenEvent {
            stream: self.0.text(stream, "stream")?.to_owned(),
            version: self.version(table)?,
            event_type: self.0.text(event_type, "type")?.to_owned(),
            data: self.0.json(data)?,
            metadata: self.metadata(table)?,
            id: self.id(table)?,
            recorded_at: self.recorded_at(table)?,
            line: self.0.line(entry.span().start),
        })
    }

    fn version(&self, table: &DeTable<'_>) -> Result<Option<i64>> {
        let version = table.get("version");
        version
            .map(|value| self.0.integer(value, "version", 1..=i64::MAX))
            .transpose()
    }

    fn metadata(&self, table: &DeTable<'_>) -> Result<Map<String, Value>> {
        let mut metadata = match table.get("metadata") {
            None => Map::new(),
            Some(value) => match value.get_ref().as_table() {
                Some(facts) => self.0.json_map(facts)?,
                None => return Err(self.0.unlike(value, "metadata", "a table")),
            },
        };
        if let Some(value) = table.get("occurred_at") {
            self.timestamp(value, "occurred_at")?;
            metadata.insert("occurred_at".to_owned(), self.0.json(value)?);
        }
        Ok(metadata)
    }

    fn id(&self, table: &DeTable<'_>) -> Result<Option<Uuid>> {
        let Some(value) = table.get("id") else {
            return Ok(None);
        };
        let id = Uuid::parse_str(self.0.text(value, "id")?);
        id.map(Some).map_err(|error| {
            self.0
                .error(value.span().start, format!("id must be a UUID: {error}"))
                .hint("mend it, or remove the key to get a random one")
        })
    }

    fn recorded_at(&self, table: &DeTable<'_>) -> Result<Option<Timestamp>> {
        let recorded_at = table.get("recorded_at");
        recorded_at
            .map(|value| self.timestamp(value, "recorded_at"))
            .transpose()
    }

    fn timestamp(&self, value: &Spanned<DeValue<'_>>, name: &str) -> Result<Timestamp> {
        let text = match value.get_ref() {
            DeValue::Datetime(time) => time.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => return Err(self.0.unlike(value, name, "a date and time")),
        };
        text.parse().map_err(|_| {
            let what = format!("{name} must be a date and time with an offset");
            self.0
                .error(value.span().start, what)
                .hint("write it like 2024-05-01T12:00:00Z")
        })
    }

    fn expect(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<ExpectedTable>> {
        let tables = value.get_ref().as_table();
        let tables = tables.ok_or_else(|| self.0.unlike(value, "expect", "a table"))?;
        if tables.is_empty() {
            return Err(self
                .0
                .error(value.span().start, "the test expects nothing")
                .hint("name a table and its rows, [] for none"));
        }
        let tables = tables.iter();
        tables
            .map(|(name, rows)| self.expected_table(name, rows))
            .collect()
    }

    fn expected_table(
        &self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        rows: &Spanned<DeValue<'_>>,
    ) -> Result<ExpectedTable> {
        let table = name.get_ref().to_string();
        if table.is_empty() || table.contains('\0') {
            let error = self.0.error(name.span().start, "a table without a name");
            return Err(error.hint("name a table of the projection"));
        }
        let items = self.tables(rows, &table, "a list of rows")?;
        let rows = items.into_iter().map(|(_, row)| self.0.json_map(row));
        Ok(ExpectedTable {
            table,
            rows: rows.collect::<Result<_>>()?,
            line: self.0.line(name.span().start),
        })
    }
}
