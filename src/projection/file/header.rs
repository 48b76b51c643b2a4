//! The settings of a projection: TOML in the file's first comment.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::SourceText;
use crate::error::Result;
use crate::projection::PARTITIONS_MAX;
use crate::projection::toml_text::{TomlText, quoted};
use crate::source::Keys;
use crate::sql_text::{self, Piece};

const KEYS: [&str; 5] = ["events", "source", "key", "partitions", "on_error"];

const SOURCE_DEFAULT: &str = "default";

/// The header of a projection's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The types of events it wants, as written; `None` is all types.
    pub events: Option<Vec<String>>,
    /// The name of its source in `highwater.toml`.
    pub source: String,
    /// A SQL expression over the batch's columns that order and parking are per; `None` is the
    /// stream.
    pub key: Option<String>,
    /// How many partitions run side by side, by hash of the key.
    pub partitions: u16,
    /// What happens at an event that can never be applied.
    pub on_error: OnError,
}

/// What a projection does at an event that can never be applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnError {
    /// It stops there; nothing is lost.
    #[default]
    Stop,
    /// It parks the event's key and continues with the others.
    Park,
}

impl OnError {
    /// The word in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnError::Stop => "stop",
            OnError::Park => "park",
        }
    }
}

impl Default for Header {
    fn default() -> Header {
        Header {
            events: None,
            source: SOURCE_DEFAULT.to_owned(),
            key: None,
            partitions: 1,
            on_error: OnError::Stop,
        }
    }
}

impl Header {
    /// Parses the comment `/* highwater … */`.
    pub(super) fn parse(source: &SourceText<'_>, comment: &Piece<'_>) -> Result<Header> {
        let inside = comment.text.trim_end_matches("*/");
        let word = inside.to_ascii_lowercase().find("highwater").unwrap_or(0);
        let from = word + "highwater".len();
        let text = TomlText::new(
            source.path.display().to_string(),
            inside.get(from..).unwrap_or_default(),
            source.line_at(comment.offset + from),
        );
        let table = text.parse()?;
        Header::from_table(&text, table.get_ref())
    }

    fn from_table(text: &TomlText<'_>, table: &DeTable<'_>) -> Result<Header> {
        text.only(table, &KEYS, "the header")?;
        let mut header = Header::default();
        if let Some(value) = table.get("events") {
            header.events = Some(events(text, value)?);
        }
        if let Some(value) = table.get("source") {
            header.source = text.text(value, "source")?.trim().to_owned();
        }
        if let Some(value) = table.get("key") {
            header.key = key(text, value)?;
        }
        if let Some(value) = table.get("partitions") {
            let count = text.integer(value, "partitions", 1..=i64::from(PARTITIONS_MAX))?;
            header.partitions = u16::try_from(count).unwrap_or(1);
        }
        if let Some(value) = table.get("on_error") {
            header.on_error = on_error(text, value)?;
        }
        Ok(header)
    }

    /// The types in an order that does not depend on how they were written.
    pub(super) fn events_sorted(&self) -> Option<Vec<&str>> {
        let events = self.events.as_ref()?;
        let mut events: Vec<&str> = events.iter().map(String::as_str).collect();
        events.sort_unstable();
        Some(events)
    }

    /// The key without comments and blanks.
    pub(in crate::projection) fn key_normal(&self) -> String {
        let key = self.key.as_deref().unwrap_or(Keys::STREAM);
        // It was lexed when it was parsed, so the text itself is never used.
        sql_text::expression(key).unwrap_or_else(|_| key.to_owned())
    }
}

fn events(text: &TomlText<'_>, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
    let list = value.get_ref().as_array();
    let list = list.ok_or_else(|| text.unlike(value, "events", "a list of strings"))?;
    let mut events: Vec<String> = Vec::new();
    for item in list.iter() {
        let event = text.text(item, "an event type")?;
        if events.iter().any(|seen| seen == event) {
            return Err(text
                .error(
                    item.span().start,
                    format!("the event type {} is listed twice", quoted(event)),
                )
                .with_hint("remove one"));
        }
        events.push(event.to_owned());
    }
    if events.is_empty() {
        return Err(text
            .error(value.span().start, "the list of events is empty")
            .with_hint("name a type, or remove the key to get all types"));
    }
    Ok(events)
}

fn on_error(text: &TomlText<'_>, value: &Spanned<DeValue<'_>>) -> Result<OnError> {
    match text.text(value, "on_error")? {
        "stop" => Ok(OnError::Stop),
        "park" => Ok(OnError::Park),
        other => Err(text
            .error(
                value.span().start,
                format!("on_error cannot be {}", quoted(other)),
            )
            .with_hint("write \"stop\" or \"park\"")),
    }
}

/// The key as one SQL expression that fits in parentheses; `None` if it is the stream.
fn key(text: &TomlText<'_>, value: &Spanned<DeValue<'_>>) -> Result<Option<String>> {
    let key = text.text(value, "key")?.trim();
    sql_text::expression(key).map_err(|fault| {
        let what = format!("the key is not a SQL expression: {}", fault.what);
        text.error(value.span().start, what).with_hint(fault.hint)
    })?;
    Ok((key != Keys::STREAM).then(|| key.to_owned()))
}
