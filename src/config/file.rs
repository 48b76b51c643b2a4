//! Finds and reads the file; errors name the line.

use std::path::{Path, PathBuf};

use super::Config;
use super::duration::FORM;
use crate::error::{Error, ErrorKind, Result};

/// The name of the file.
pub const FILE_NAME: &str = "highwater.toml";

impl Config {
    /// The file of this directory or of the nearest one above that has one, and its content.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn find(directory: &Path) -> Result<Option<(PathBuf, Config)>> {
        let directory = std::path::absolute(directory).map_err(|error| {
            Error::new(
                ErrorKind::Io,
                format!("cannot find the current directory: {error}"),
            )
            .with_location(directory.display().to_string())
        })?;
        let mut files = directory.ancestors().map(|above| above.join(FILE_NAME));
        let Some(file) = files.find(|file| file.is_file()) else {
            return Ok(None);
        };
        let config = Config::load(&file)?;
        Ok(Some((file, config)))
    }

    /// Reads and validates a file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the file and, where it is known, the line; it never shows a
    /// value of `url`.
    pub fn load(file: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::new(ErrorKind::Config, format!("cannot read the file: {error}"))
                .with_location(file.display().to_string())
                .with_hint(match error.kind() {
                    std::io::ErrorKind::NotFound => "give the path of a file that is there",
                    _ => "make it readable UTF-8 text",
                })
        })?;
        Config::parse(&text, &file.display().to_string())
    }

    /// Reads and validates a file's text; `location` names it in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, location: &str) -> Result<Config> {
        // The parser's own error prints the line it is about, password and all: take its message.
        let config: Config = toml::from_str(text).map_err(|error| {
            let location = match error.span() {
                Some(span) => format!("{location}: line {}", line_of(text, span.start)),
                None => location.to_owned(),
            };
            wrong(error.message()).with_location(location)
        })?;
        config
            .validate()
            .map_err(|error| error.with_location(location))?;
        Ok(config)
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

fn wrong(message: &str) -> Error {
    let Some((unknown, known)) = unknown_key(message) else {
        let what = message.trim().replace('\n', ", ");
        // A duration's error brings its own hint.
        let own = what
            .strip_suffix(FORM)
            .and_then(|what| what.strip_suffix("; "));
        return match own {
            Some(what) => Error::new(ErrorKind::Config, what).with_hint(FORM),
            None => Error::new(ErrorKind::Config, what)
                .with_hint("docs/highwater.toml in highwater's repository shows every key"),
        };
    };
    let what = format!("unknown key {unknown:?}");
    let known_keys = known.join(", ");
    let hint = match nearest(unknown, &known) {
        Some(near) => format!("did you mean {near:?}? known here are {known_keys}"),
        None => format!("known here are {known_keys}"),
    };
    Error::new(ErrorKind::Config, what).with_hint(hint)
}

/// The names in serde's "unknown field `x`, expected `a` or `b`".
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((unknown, known))
}

/// The known key that one or two typing mistakes lead away from.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let distances = known.iter().map(|key| (distance(unknown, key), *key));
    let (distance, key) = distances.min()?;
    (distance <= 2 && distance < key.len() / 2 + 1).then_some(key)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let changed = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = changed.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or_default()
}
