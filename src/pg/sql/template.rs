//! Files with placeholders, filled in one pass.

use super::Sql;
use crate::error::{Error, ErrorKind, Result};

/// A statement of `sql/queries` with placeholders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    name: &'static str,
    text: &'static str,
}

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TemplatePiece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

impl Template {
    /// For [`query!`](super::query) alone.
    pub(crate) const fn new(name: &'static str, text: &'static str) -> Template {
        Template { name, text }
    }

    /// The statement, without the comments before it, with each placeholder replaced by its value.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the template is malformed, a placeholder has no value, or a value
    /// no placeholder: the code and its file do not match.
    pub(crate) fn fill(&self, values: &[(&str, &Sql)]) -> Result<Sql> {
        filled(self.text, values).map_err(|what| {
            let what = format!("sql/queries/{}: {what}", self.name);
            Error::new(ErrorKind::Internal, what)
        })
    }
}

pub(super) fn filled(template: &str, values: &[(&str, &Sql)]) -> Result<Sql, String> {
    let pieces = pieces(template)?;
    let mut sql = String::with_capacity(template.len());
    for piece in &pieces {
        sql.push_str(match piece {
            TemplatePiece::Text(text) => text,
            TemplatePiece::Placeholder(name) => value_of(name, values)?,
        });
    }
    let is_used = |name: &str| pieces.contains(&TemplatePiece::Placeholder(name));
    match values.iter().find(|(name, _)| !is_used(name)) {
        Some((name, _)) => Err(format!("there is no placeholder \"{name}\"")),
        None => Ok(Sql(sql.into())),
    }
}

fn value_of<'v>(name: &str, values: &'v [(&str, &Sql)]) -> Result<&'v Sql, String> {
    let mut given = values.iter().filter(|(given, _)| *given == name);
    match (given.next(), given.next()) {
        (Some((_, value)), None) => Ok(value),
        (Some(_), Some(_)) => Err(format!("placeholder \"{name}\" was given twice")),
        (None, _) => Err(format!("placeholder \"{name}\" was not given")),
    }
}

/// Cuts a template, without the comments before the statement, into its pieces.
pub(super) fn pieces(template: &str) -> Result<Vec<TemplatePiece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = statement(template);
    while let Some((before, marker, after)) = next_marker(rest) {
        let Marker::Opens(name) = marker else {
            return Err(format!("{marker} closes nothing"));
        };
        let Some((_, Marker::Closes(closed), after)) = next_marker(after) else {
            return Err(format!("{marker} is not closed"));
        };
        if closed != name {
            return Err(format!("{marker} is closed by /*:{closed}*/"));
        }
        pieces.extend([
            TemplatePiece::Text(before),
            TemplatePiece::Placeholder(name),
        ]);
        rest = after;
    }
    pieces.push(TemplatePiece::Text(rest));
    Ok(pieces)
}

/// The text after the line comments at the beginning.
fn statement(mut template: &str) -> &str {
    while template.starts_with("--") {
        template = template.split_once('\n').map_or("", |(_, rest)| rest);
    }
    template.trim_end()
}

#[derive(Clone, Copy, Debug)]
enum Marker<'a> {
    Opens(&'a str),
    Closes(&'a str),
}

impl<'a> Marker<'a> {
    /// The meaning of a comment; `None` for an ordinary comment.
    fn of(inside: &'a str) -> Option<Marker<'a>> {
        let (name, marker): (&str, fn(&'a str) -> Marker<'a>) =
            match (inside.strip_suffix(':'), inside.strip_prefix(':')) {
                (Some(name), None) => (name, Marker::Opens),
                (None, Some(name)) => (name, Marker::Closes),
                _ => return None,
            };
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name.then(|| marker(name))
    }
}

impl std::fmt::Display for Marker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Marker::Opens(name) => write!(f, "/*{name}:*/"),
            Marker::Closes(name) => write!(f, "/*:{name}*/"),
        }
    }
}

/// The first marker, with what is before and after it.
fn next_marker(text: &str) -> Option<(&str, Marker<'_>, &str)> {
    text.match_indices("/*").find_map(|(at, _)| {
        let (before, comment) = text.split_at(at);
        let (inside, after) = comment.strip_prefix("/*")?.split_once("*/")?;
        Some((before, Marker::of(inside)?, after))
    })
}
