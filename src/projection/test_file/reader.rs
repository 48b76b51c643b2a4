//! From TOML to tests, with an error about the first fault.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use uuid::Uuid;

use super::{ExpectedTable, GivenEvent, Test};
use crate::error::Result;
use crate::projection::toml_text::{TomlText, quoted};

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

/// The tests that the text holds.
pub(super) fn tests(text: &TomlText<'_>) -> Result<Vec<Test>> {
    let table = text.parse()?;
    TestReader(text).tests(table.get_ref())
}

struct TestReader<'t, 'a>(&'t TomlText<'a>);

impl TestReader<'_, '_> {
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
                return Err(self
                    .0
                    .error(value.span().start, what)
                    .with_hint("rename one"));
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
                .with_hint(format!("add the key {key}"))
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
                .with_hint("fix it, or remove the key to get a random one")
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
                .with_hint("write it like 2024-05-01T12:00:00Z")
        })
    }

    fn expect(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<ExpectedTable>> {
        let tables = value.get_ref().as_table();
        let tables = tables.ok_or_else(|| self.0.unlike(value, "expect", "a table"))?;
        if tables.is_empty() {
            return Err(self
                .0
                .error(value.span().start, "the test expects nothing")
                .with_hint("name a table and its rows, [] for none"));
        }
        let tables = tables.iter();
        tables
            .map(|(name, rows)| self.expected_table(name, rows))
            .collect()
    }

    fn expected_table(
        &self,
        name: &Spanned<Cow<'_, str>>,
        rows: &Spanned<DeValue<'_>>,
    ) -> Result<ExpectedTable> {
        let table = name.get_ref().to_string();
        if table.is_empty() || table.contains('\0') {
            let error = self.0.error(name.span().start, "a table without a name");
            return Err(error.with_hint("name a table of the projection"));
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
