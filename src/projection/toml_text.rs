//! TOML with places: every error names the file and the line in that file.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, ErrorKind, Result};
use crate::sql_text::Lines;
use crate::suggest;

/// A TOML text and its place.
pub(crate) struct TomlText<'a> {
    location: String,
    text: &'a str,
    lines: Lines,
    first_line: usize,
}

impl<'a> TomlText<'a> {
    /// A text that begins on line `first_line` of the file `location`.
    pub(crate) fn new(location: String, text: &'a str, first_line: usize) -> TomlText<'a> {
        TomlText {
            location,
            text,
            lines: Lines::of(text),
            first_line,
        }
    }

    /// The table that the text is.
    pub(crate) fn parse(&self) -> Result<Spanned<DeTable<'a>>> {
        DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let message = error.message().trim().replace('\n', ", ");
            self.error(offset, format!("this is not TOML: {message}"))
                .with_hint("fix the line; see https://toml.io")
        })
    }

    /// The line of the file that has the byte at `offset` of the text.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.first_line + self.lines.line_at(offset) - 1
    }

    /// An error about the byte at `offset`.
    pub(crate) fn error(&self, offset: usize, what: impl Into<String>) -> Error {
        let line = self.line(offset);
        Error::new(ErrorKind::Config, what).with_location(format!("{}: line {line}", self.location))
    }

    /// An error about a value of a wrong kind.
    pub(crate) fn unlike(&self, value: &Spanned<DeValue<'_>>, name: &str, wanted: &str) -> Error {
        let found = kind_of(value.get_ref());
        self.error(
            value.span().start,
            format!("{name} must be {wanted}, not {found}"),
        )
        .with_hint("fix the value")
    }

    /// Refuses keys that are not among `known`; `whose` names their owner.
    pub(crate) fn only(&self, table: &DeTable<'_>, known: &[&str], whose: &str) -> Result<()> {
        let stranger = table
            .keys()
            .find(|key| !known.contains(&key.get_ref().as_ref()));
        match stranger {
            None => Ok(()),
            Some(key) => Err(self
                .error(
                    key.span().start,
                    format!("{whose} has no key {}", quoted(key.get_ref())),
                )
                .with_hint(suggest::suggestion(key.get_ref(), known))),
        }
    }

    /// The value as text that is not empty and has no NUL.
    pub(crate) fn text<'v>(&self, value: &'v Spanned<DeValue<'_>>, name: &str) -> Result<&'v str> {
        let text = value.get_ref().as_str();
        let text = text.ok_or_else(|| self.unlike(value, name, "a string"))?;
        if text.trim().is_empty() {
            return Err(self
                .error(value.span().start, format!("{name} is empty"))
                .with_hint("give it a text, or remove the key"));
        }
        if text.contains('\0') {
            return Err(self.nul(value.span().start));
        }
        Ok(text)
    }

    fn nul(&self, offset: usize) -> Error {
        self.error(offset, "the character NUL, which PostgreSQL cannot store")
            .with_hint("remove it")
    }

    /// The value as a whole number from `range`.
    pub(crate) fn integer(
        &self,
        value: &Spanned<DeValue<'_>>,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<i64> {
        let wanted = match (range.start(), range.end()) {
            (low, &i64::MAX) => format!("a whole number from {low}"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        let integer = value.get_ref().as_integer();
        let integer = integer.ok_or_else(|| self.unlike(value, name, &wanted))?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|n| range.contains(n)).ok_or_else(|| {
            self.error(
                value.span().start,
                format!("{name} must be {wanted}, not {}", integer.as_str()),
            )
            .with_hint("fix the value")
        })
    }

    /// The value as JSON. Dates and times become text; `{ null = true }` becomes null.
    pub(crate) fn json(&self, value: &Spanned<DeValue<'_>>) -> Result<Value> {
        let offset = value.span().start;
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => Err(self.nul(offset)),
            DeValue::String(text) => Ok(Value::from(text.as_ref())),
            DeValue::Integer(n) => integer_json(n.as_str(), n.radix()).ok_or_else(|| {
                self.error(offset, format!("the number {} is too large", n.as_str()))
                    .with_hint("write it as a string")
            }),
            DeValue::Float(n) => float_json(n.as_str()).ok_or_else(|| {
                self.error(offset, format!("JSON has no number {}", n.as_str()))
                    .with_hint("write it as a string")
            }),
            DeValue::Boolean(truth) => Ok(Value::from(*truth)),
            DeValue::Datetime(time) => Ok(Value::from(time.to_string())),
            DeValue::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            DeValue::Table(table) if is_null(table) => Ok(Value::Null),
            DeValue::Table(table) => self.json_map(table).map(Value::Object),
        }
    }

    /// The table as a JSON object.
    pub(crate) fn json_map(&self, table: &DeTable<'_>) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        for (key, value) in table {
            if key.get_ref().contains('\0') {
                return Err(self.nul(key.span().start));
            }
            map.insert(key.get_ref().to_string(), self.json(value)?);
        }
        Ok(map)
    }
}

/// `{ null = true }`: TOML has no null.
fn is_null(table: &DeTable<'_>) -> bool {
    table.len() == 1
        && table
            .iter()
            .all(|(key, value)| key.get_ref() == "null" && value.get_ref().as_bool() == Some(true))
}

fn integer_json(digits: &str, radix: u32) -> Option<Value> {
    let signed = i64::from_str_radix(digits, radix).ok().map(Value::from);
    signed.or_else(|| u64::from_str_radix(digits, radix).ok().map(Value::from))
}

fn float_json(digits: &str) -> Option<Value> {
    let number = digits.parse().ok()?;
    serde_json::Number::from_f64(number).map(Value::Number)
}

/// A word of the user's, safe to print.
pub(crate) fn quoted(word: &str) -> String {
    format!("\"{}\"", word.escape_debug())
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
