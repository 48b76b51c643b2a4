//! Dead letters as text.

use std::fmt::Write as _;

use serde_json::Value;

use super::{events, keys};
use crate::cli::text::thousands;
use crate::dead_letters::{ByError, ByKey, Listed, Shown, ShownLetter};
use crate::name::ProjectionName;
use crate::position::Position;

/// The most characters of an error in a list.
const ERROR_MAX: usize = 160;

pub(super) fn by_key(listed: &Listed<ByKey>) -> String {
    let mut text = heading(listed);
    let name = &listed.projection;
    for parked in &listed.shown.keys {
        let waits = match parked.retry_requested_at {
            Some(_) => ", to be retried",
            None => "",
        };
        let _ = writeln!(
            text,
            "\n{}: {}, parked at {} ({}, {}){waits}",
            quoted(parked.key.as_deref()),
            events(parked.dead_letters),
            at(parked.position),
            parked.event_type,
            parked.event_id,
        );
        say_error(
            &mut text,
            parked.error.as_ref(),
            parked.fingerprint.as_deref(),
        );
    }
    more(&mut text, listed.parked_keys, listed.shown.keys.len());
    next(&mut text, name, listed.parked_keys);
    text
}

pub(super) fn by_error(listed: &Listed<ByError>) -> String {
    let mut text = heading(listed);
    let name = &listed.projection;
    for alike in &listed.shown.errors {
        let _ = writeln!(
            text,
            "\n{}: {} with {}, first at {} ({}, {})",
            alike.fingerprint.as_deref().unwrap_or("no error"),
            keys(alike.parked_keys),
            events(alike.dead_letters),
            at(alike.position),
            alike.event_type,
            alike.event_id,
        );
        say_error(&mut text, alike.error.as_ref(), None);
    }
    more(
        &mut text,
        listed.shown.fingerprints,
        listed.shown.errors.len(),
    );
    next(&mut text, name, listed.parked_keys);
    text
}

pub(super) fn letters(shown: &Shown) -> String {
    let name = &shown.projection;
    if shown.letters.is_empty() {
        return format!("{name}: nothing is parked\n");
    }
    let mut text = String::new();
    for letter in &shown.letters {
        if !text.is_empty() {
            text.push('\n');
        }
        say_letter(&mut text, letter);
    }
    more(&mut text, shown.dead_letters, shown.letters.len());
    text
}

fn say_letter(text: &mut String, letter: &ShownLetter) {
    let event = &letter.event;
    let _ = writeln!(
        text,
        "position {}: {}, event {}",
        at(event.position),
        event.event_type,
        event.id
    );
    let mut line = |what: &str, value: &str| {
        let _ = writeln!(text, "  {what:<9}{value}");
    };
    line("key", &quoted(letter.key.as_deref()));
    line("stream", &format!("{} ({})", event.stream, event.version));
    line("data", event.data.get());
    line("metadata", event.metadata.get());
    line("recorded", &event.recorded_at.to_string());
    if let Some(error) = &letter.error {
        line("error", &sentence(error));
        line("kind", field(error, "kind").unwrap_or_default());
        if let Some(hint) = field(error, "hint") {
            line("hint", hint);
        }
    }
    if let Some(fingerprint) = &letter.fingerprint {
        line("alike", &format!("fingerprint {fingerprint}"));
    }
    let tried = match letter.attempts {
        0 => "not yet, it waits for the event before it".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    line("tried", &tried);
    line("parked", &letter.parked_at.to_string());
    line("before", &events(letter.before));
    line("behind", &events(letter.behind));
    if let Some(when) = letter.retry_requested_at {
        line("retry", &format!("requested {when}"));
    }
}

fn heading<T>(listed: &Listed<T>) -> String {
    let name = &listed.projection;
    if listed.parked_keys == 0 {
        return format!("{name}: nothing is parked\n");
    }
    let (letters, parked) = (events(listed.dead_letters), keys(listed.parked_keys));
    format!("{name}: {letters} of {parked} parked\n")
}

fn next(text: &mut String, name: &ProjectionName, parked_keys: i64) {
    if parked_keys > 0 {
        let _ = writeln!(
            text,
            "\nhighwater dead-letters show {name} --key KEY shows the events; once the cause is \
             fixed, highwater dead-letters retry {name} --all applies them"
        );
    }
}

fn more(text: &mut String, all: i64, shown: usize) {
    let left = all.saturating_sub(i64::try_from(shown).unwrap_or(i64::MAX));
    if left > 0 {
        let _ = writeln!(text, "\n… and {} more", thousands(left.unsigned_abs()));
    }
}

fn say_error(text: &mut String, error: Option<&Value>, fingerprint: Option<&str>) {
    let Some(error) = error else {
        let untried = "the event before it is no longer parked; this one was not tried yet";
        let _ = writeln!(text, "  {untried}");
        return;
    };
    let mut sentence = sentence(error).replace('\n', " ");
    if let Some((end, _)) = sentence.char_indices().nth(ERROR_MAX) {
        sentence.truncate(end);
        sentence.push('…');
    }
    let _ = writeln!(text, "  {sentence}");
    if let Some(fingerprint) = fingerprint {
        let _ = writeln!(text, "  fingerprint {fingerprint}");
    }
}

fn sentence(error: &Value) -> String {
    let message = field(error, "message").unwrap_or("an error without a message");
    match field(error, "sqlstate") {
        Some(code) => format!("{message} (SQLSTATE {code})"),
        None => message.to_owned(),
    }
}

fn field<'a>(error: &'a Value, name: &str) -> Option<&'a str> {
    error.get(name).and_then(Value::as_str)
}

fn quoted(key: Option<&str>) -> String {
    match key {
        Some(key) => format!("key \"{}\"", key.escape_debug()),
        None => "the key null".to_owned(),
    }
}

fn at(position: Position) -> String {
    thousands(position.since(Position::START))
}
