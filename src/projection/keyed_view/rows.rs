//! Rows of a keyed view to the server and back, many in one statement, as JSON text.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::KeyedView;
use super::fold::RowState;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::column;
use crate::pg::sql::{Sql, query, sql};
use crate::pg::transaction::TextStatement;

/// About how many bytes of rows go to the server in one statement.
const STATEMENT_BYTES: usize = 1024 * 1024;

pub(super) struct Rows<'a, V> {
    view: &'a V,
}

impl<'a, V: KeyedView> Rows<'a, V> {
    pub(super) fn of(view: &'a V) -> Rows<'a, V> {
        Rows { view }
    }

    /// The statement that reads the rows of these keys.
    pub(super) fn load(&self, keys: &[V::Key]) -> Result<TextStatement> {
        let mut wanted = Text::default();
        for key in keys {
            self.write_key(key, &mut wanted)?;
        }
        let sql = query!("projection/load_rows.sql")
            .fill(&[("table", &self.table()), ("match", &self.key_match())])?;
        Ok(TextStatement {
            sql: Arc::from(&*sql),
            text: wanted.end(),
        })
    }

    /// The result of [`Rows::load`] for this many keys, in the order of the keys.
    pub(super) fn loaded(&self, keys: usize, read: &[Row]) -> Result<Vec<Option<V::Row>>> {
        let mut rows: Vec<Option<V::Row>> = (0..keys).map(|_| None).collect();
        for row in read {
            let number: i64 = column(row, 0)?;
            let state = serde_json::from_str(column(row, 1)?).map_err(|e| {
                let what = format!("a row of {} is not the Rust type: {e}", self.view.table());
                Error::new(ErrorKind::Apply, what).with_source(e)
            })?;
            let place = usize::try_from(number - 1).ok();
            if let Some(slot) = place.and_then(|place| rows.get_mut(place)) {
                *slot = Some(state);
            }
        }
        Ok(rows)
    }

    /// The statement that writes rows back and deletes those that no longer exist.
    pub(super) fn writes(
        &self,
        rows: HashMap<V::Key, RowState<V::Row>>,
    ) -> Result<Vec<TextStatement>> {
        let mut gone = Text::default();
        let mut present = vec![Text::default()];
        let mut columns = Columns::default();
        for (key, slot) in rows {
            let RowState::Known { row, is_stored } = slot else {
                continue;
            };
            match row {
                Some(row) => self.write_row(&row, &mut present, &mut columns)?,
                None if is_stored => self.write_key(&key, &mut gone)?,
                None => {}
            }
        }
        let delete = query!("projection/delete_rows.sql")
            .fill(&[("table", &self.table()), ("match", &self.key_match())])?;
        let store: Arc<str> = String::from(self.store_sql(&columns.0)?).into();
        let deletes = std::iter::once((String::from(delete).into(), gone));
        let stores = present.into_iter().map(|rows| (store.clone(), rows));
        let writes = deletes.chain(stores).filter(|(_, rows)| !rows.is_empty());
        let statement = |(sql, rows): (Arc<str>, Text)| TextStatement {
            sql,
            text: rows.end(),
        };
        Ok(writes.map(statement).collect())
    }

    fn store_sql(&self, columns: &BTreeSet<String>) -> Result<Sql> {
        let keys = self.view.key_columns();
        query!("projection/store_rows.sql").fill(&[
            ("table", &self.table()),
            ("columns", &column_list(columns.iter().map(String::as_str))),
            ("keys", &column_list(keys.iter().copied())),
            ("changes", &self.changes(columns)),
        ])
    }

    fn table(&self) -> Sql {
        Sql::identifier(self.view.table())
    }

    /// A key as a JSON object of its columns.
    fn write_key(&self, key: &V::Key, text: &mut Text) -> Result<()> {
        let columns = self.view.key_columns();
        let value = serde_json::to_string(key).map_err(not_json)?;
        let whole: &RawValue = serde_json::from_str(&value).map_err(not_json)?;
        let values = match columns.len() > 1 && value.starts_with('[') {
            true => serde_json::from_str(&value).map_err(not_json)?,
            false => vec![whole],
        };
        if values.len() != columns.len() {
            let what = format!(
                "projection \"{}\" has {} key columns, and a key of {} values",
                self.view.name(),
                columns.len(),
                values.len()
            );
            return Err(Error::new(ErrorKind::Config, what)
                .with_hint("make Key a tuple with a value for each key column"));
        }
        text.push(|out| {
            let pairs = columns.iter().zip(values);
            (&mut serde_json::Serializer::new(out)).collect_map(pairs)
        })
        .map(drop)
    }

    fn write_row(&self, row: &V::Row, texts: &mut Vec<Text>, columns: &mut Columns) -> Result<()> {
        if texts
            .last()
            .is_none_or(|text| text.0.len() >= STATEMENT_BYTES)
        {
            texts.push(Text::default());
        }
        let Some(text) = texts.last_mut() else {
            return Ok(());
        };
        let written = text.push(|out| serde_json::to_writer(out, row))?;
        let mut reader = serde_json::Deserializer::from_slice(written);
        reader.deserialize_map(columns).map_err(|e| {
            let what = format!("a row of {} is not a struct", self.view.table());
            Error::new(ErrorKind::Config, what).with_source(e)
        })
    }

    fn key_match(&self) -> Sql {
        let columns = self.view.key_columns().iter().map(|&c| Sql::identifier(c));
        Sql::join(columns.map(|c| sql!("t.{c} = k.{c}", c = c)), " and ")
    }

    fn changes(&self, columns: &BTreeSet<String>) -> Sql {
        let keys = self.view.key_columns();
        let others = columns.iter().filter(|c| !keys.contains(&c.as_str()));
        let sets = others
            .map(|c| Sql::identifier(c))
            .map(|c| sql!("{c} = excluded.{c}", c = c));
        let sets = Sql::join(sets, ", ");
        if sets.is_empty() {
            return Sql::trusted("nothing");
        }
        sql!("update set {sets}", sets = sets)
    }
}

/// How many bytes the JSON of a value has.
pub(super) fn written_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // A value that cannot be written fails when it is stored.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// A JSON array, written element by element.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    /// Appends what `write` writes, and returns it.
    fn push(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) -> Result<&[u8]> {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        let from = self.0.len();
        write(&mut self.0).map_err(not_json)?;
        Ok(&self.0[from..])
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(mut self) -> String {
        self.0.push(b']');
        // JSON is UTF-8: nothing is lost.
        String::from_utf8(self.0).unwrap_or_default()
    }
}

/// The columns of rows: a row may leave some out.
#[derive(Default)]
struct Columns(BTreeSet<String>);

impl<'de> Visitor<'de> for &mut Columns {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            map.next_value::<IgnoredAny>()?;
            if !self.0.contains(&*name) {
                self.0.insert(name.into_owned());
            }
        }
        Ok(())
    }
}

fn not_json(error: serde_json::Error) -> Error {
    let what = format!("a key or row cannot be written as JSON: {error}");
    Error::new(ErrorKind::Apply, what).with_source(error)
}

fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> Sql {
    Sql::join(names.map(Sql::identifier), ", ")
}
