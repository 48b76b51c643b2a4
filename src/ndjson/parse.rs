//! One line to one event, or to the reason why it is not an event.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::NdjsonEvent;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ExpectedVersion, NewEvent};

/// What the table takes for a stream or a type, in bytes.
const NAME_LIMIT: usize = 1024;

const SHAPE: &str =
    r#"write it as {"stream": "order-1", "type": "OrderPlaced", "data": {}}, one event a line"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    id: Option<Uuid>,
    stream: String,
    version: Option<i64>,
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
    metadata: Option<Box<RawValue>>,
    occurred_at: Option<String>,
}

/// The event of a line; its line number is left to the caller.
pub(super) fn event(line: &[u8]) -> Result<NdjsonEvent> {
    let text = std::str::from_utf8(line).map_err(|e| {
        let at = e.valid_up_to() + 1;
        bad(format!("byte {at} is not UTF-8")).with_hint("convert the file to UTF-8")
    })?;
    let text = text.trim_ascii();
    if !text.starts_with('{') {
        return Err(bad("it is not a JSON object").with_hint(SHAPE));
    }
    check_escapes(text)?;
    let fields: Fields = serde_json::from_str(text).map_err(|e| json_error(&e))?;
    check_name("stream", &fields.stream)?;
    check_name("type", &fields.event_type)?;
    let expected = expected(fields.version)?;
    let metadata = metadata(fields.metadata, fields.occurred_at)?;
    Ok(NdjsonEvent {
        line: 0,
        bytes: line.len(),
        stream: fields.stream,
        expected,
        event: NewEvent {
            id: fields.id,
            event_type: fields.event_type,
            data: fields.data,
            metadata,
        },
    })
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadEvent, what)
}

/// What serde says, with its line (there is only one) left out.
fn json_error(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let location = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&location).unwrap_or(&text);
    match error.classify() {
        Category::Data => bad(what).with_hint(SHAPE),
        Category::Eof => bad("the JSON ends too early").with_hint(SHAPE),
        Category::Syntax | Category::Io => bad(format!(
            "it is not JSON: {what} at column {}",
            error.column()
        ))
        .with_hint(SHAPE),
    }
}

/// Refuses `\u0000` and surrogates without their other half, in any string or key of the line:
/// PostgreSQL cannot store them.
///
/// In JSON a backslash occurs in strings only, and the character after it belongs to it.
fn check_escapes(text: &str) -> Result<()> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[at..];
        let Some(unit) = unicode_escape(rest) else {
            rest = rest.get(2..).unwrap_or_default();
            continue;
        };
        let pair = rest.get(6..).and_then(unicode_escape);
        rest = match (unit, pair) {
            (0, _) => {
                return Err(bad("it holds \\u0000, which PostgreSQL cannot store")
                    .with_hint("remove that character"));
            }
            (0xD800..=0xDBFF, Some(0xDC00..=0xDFFF)) => &rest[12..],
            (0xD800..=0xDFFF, _) => {
                return Err(bad(format!(
                    "it holds \\u{unit:04x}, half of a surrogate pair, which is no character"
                ))
                .with_hint("remove it, or write both halves"));
            }
            _ => &rest[6..],
        };
    }
    Ok(())
}

/// The number of `\uXXXX` at the start of `bytes`.
fn unicode_escape(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| {
        Some(number * 16 + char::from(*digit).to_digit(16)?)
    })
}

fn check_name(field: &str, name: &str) -> Result<()> {
    let fault = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > NAME_LIMIT {
        format!("is longer than {NAME_LIMIT} bytes")
    } else {
        return Ok(());
    };
    Err(bad(format!("{field} {fault}"))
        .with_hint(format!("give it a {field} of 1 to {NAME_LIMIT} bytes")))
}

fn expected(version: Option<i64>) -> Result<ExpectedVersion> {
    match version {
        None => Ok(ExpectedVersion::Any),
        Some(1) => Ok(ExpectedVersion::NoStream),
        Some(version) if version > 1 => Ok(ExpectedVersion::Exact(version - 1)),
        Some(version) => Err(bad(format!("version is {version}"))
            .with_hint("versions count from 1; leave it out to take the next one")),
    }
}

fn metadata(
    given: Option<Box<RawValue>>,
    occurred_at: Option<String>,
) -> Result<Option<Box<RawValue>>> {
    if given
        .as_ref()
        .is_some_and(|raw| !raw.get().starts_with('{'))
    {
        return Err(bad("metadata is not a JSON object").with_hint("write it as {\"name\": value}"));
    }
    let Some(occurred_at) = occurred_at else {
        return Ok(given);
    };
    if !is_rfc3339(&occurred_at) {
        return Err(bad(format!(
            "occurred_at is {occurred_at:?}, which is not RFC 3339"
        ))
        .with_hint("write it as 2026-08-07T12:30:00Z"));
    }
    let moment = to_raw_value(&occurred_at).map_err(|e| json_error(&e))?;
    let mut fields: BTreeMap<String, Box<RawValue>> = match &given {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|e| json_error(&e))?,
        None => BTreeMap::new(),
    };
    if let Some(other) = fields.get("occurred_at")
        && other.get() != moment.get()
    {
        return Err(
            bad("occurred_at and the metadata's occurred_at differ").with_hint("keep one of them")
        );
    }
    fields.insert("occurred_at".to_owned(), moment);
    to_raw_value(&fields).map(Some).map_err(|e| json_error(&e))
}

/// The shape by hand, since a lenient reader takes more than RFC 3339; the calendar by jiff.
fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((moment, rest)) = bytes.split_at_checked(19) else {
        return false;
    };
    let fits = |bytes: &[u8], shape: &[u8]| {
        bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                b'+' => matches!(byte, b'+' | b'-'),
                wanted => byte.eq_ignore_ascii_case(wanted),
            })
    };
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(digits) => {
            let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            if count == 0 {
                return false;
            }
            digits.split_at(count)
        }
        None => rest.split_at(0),
    };
    if !fits(moment, b"0000-00-00T00:00:00") || !(fits(zone, b"Z") || fits(zone, b"+00:00")) {
        return false;
    }
    // Digits below the nanosecond say nothing about whether the moment exists.
    let kept = fraction.len().min(9);
    let end = 19 + if kept == 0 { 0 } else { kept + 1 };
    let (Some(head), Some(zone)) = (text.get(..end), text.get(text.len() - zone.len()..)) else {
        return false;
    };
    format!("{head}{zone}").parse::<Timestamp>().is_ok()
}
