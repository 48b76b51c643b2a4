//! Dead letters as text.

use std::fmt::Write as _;

use serde_json::Value;

use super::{events, keys};
use crate::cli::text::{at, thousands};
use crate::dead_letters::{ByError, ByKey, FullDeadLetter, Listed, Shown};
use crate::name::ProjectionName;

/// The most characters of an error in a list.
const ERROR_MAX: usize = 160;

pub(super) fn by_key(listed: &Listed<ByKey>) -> String {
    let mut text = heading(listed);
    let name = &listed.projection;
    for parked in &listed.shown.keys {
        let first = &parked.first;
        let waits = match first.retry_requested_at {
            Some(_) => ", to be retried",
            None => "",
        };
        let _ = writeln!(
            text,
            "\n{}: {}, parked at {} ({}, {}){waits}",
            quoted(first.key.as_deref()),
            events(parked.dead_letters),
            at(first.position),
            first.event_type,
            first.event_id,
        );
        say_error(
            &mut text,
            first.error.as_ref(),
            first.fingerprint.as_deref(),
        );
    }
    more(&mut text, listed.parked_keys, listed.shown.keys.len());
    next(&mut text, name, listed.parked_keys);
    text
}

pub(super) fn by_error(listed: &Listed<ByError>) -> String {
    let mut text = heading(listed);
    let name = &listed.projection;
    for group in &listed.shown.errors {
        let first = &group.first;
        let _ = writeln!(
            text,
            "\n{}: {} with {}, first at {} ({}, {})",
            first.fingerprint.as_deref().unwrap_or("no error"),
            keys(group.parked_keys),
            events(group.dead_letters),
            at(first.position),
            first.event_type,
            first.event_id,
        );
        say_error(&mut text, first.error.as_ref(), None);
    }
    more(
        &mut text,
        listed.shown.fingerprints,
        listed.shown.errors.len(),
    );
    next(&mut text, name, listed.parked_keys);
    text
}

pub(super) fn dead_letters(shown: &Shown) -> String {
    let name = &shown.projection;
    if shown.shown.is_empty() {
        return format!("{name}: nothing is parked\n");
    }
    let mut text = String::new();
    for full in &shown.shown {
        if !text.is_empty() {
            text.push('\n');
        }
        say_dead_letter(&mut text, full);
    }
    more(&mut text, shown.dead_letters, shown.shown.len());
    text
}

fn say_dead_letter(text: &mut String, full: &FullDeadLetter) {
    let (dead_letter, event) = (&full.dead_letter, &full.event);
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
    line("key", &quoted(dead_letter.key.as_deref()));
    line("stream", &format!("{} ({})", event.stream, event.version));
    line("data", event.data.get());
    line("metadata", event.metadata.get());
    line("recorded", &event.recorded_at.to_string());
    if let Some(error) = &dead_letter.error {
        line("error", &sentence(error));
        line("kind", field(error, "kind").unwrap_or_default());
        if let Some(hint) = field(error, "hint") {
            line("hint", hint);
        }
    }
    if let Some(fingerprint) = &dead_letter.fingerprint {
        line("alike", &format!("fingerprint {fingerprint}"));
    }
    let tried = match dead_letter.attempts {
        0 => "not yet, it waits for the event before it".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    line("tried", &tried);
    line("parked", &dead_letter.parked_at.to_string());
    line("before", &events(full.before));
    line("behind", &events(full.behind));
    if let Some(when) = dead_letter.retry_requested_at {
        line("retry", &format!("requested {when}"));
    }
}

fn heading<T>(listed: &Listed<T>) -> String {
    let name = &listed.projection;
    if listed.parked_keys == 0 {
        return format!("{name}: nothing is parked\n");
    }
    let (events, keys) = (events(listed.dead_letters), keys(listed.parked_keys));
    format!("{name}: {events} of {keys} parked\n")
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
