//! Composed SQL: the only place that composes and quotes it.
//!
//! [`Sql`] is text that may be sent. It is made of text of our own, of what a constructor quotes or
//! checks, and of other `Sql`. Inserted text is never read again: a name, a literal or an
//! expression that looks like a placeholder, a parameter or a comment stays what it is.
//!
//! Short statements and parts of statements are written with [`sql!`], where the compiler compares
//! names and values. Whole statements are files in `sql/queries`, which [`query!`] names. There a
//! placeholder is a pair of comments around a default:
//!
//! ```sql
//! select max(e.position) from /*events:*/ highwater.event /*:events*/ e
//! ```
//!
//! So an editor can run the file as it is, and a test prepares it. The default is never sent: every
//! placeholder must be given, and every value used ([`Template::fill`]). In defaults `s` is the
//! schema of a read model and `t (k, n)` its table.

mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::sql_text::{self, Kind};

pub(crate) use template::Template;

/// SQL text with values by name: `sql!("drop schema {schema}", schema = Sql::identifier(name))`.
macro_rules! sql {
    ($text:literal $(, $name:ident = $value:expr)* $(,)?) => {
        // With concat! the text itself cannot name a variable, which would not be typed.
        $crate::pg::sql::Sql::composed(format_args!(
            concat!($text), $($name = $crate::pg::sql::typed(&$value)),*
        ))
    };
}

/// A file of `sql/queries`: `query!("source/read.sql")`.
macro_rules! query {
    ($path:literal) => {
        $crate::pg::sql::Template::new(
            $path,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/queries/", $path)),
        )
    };
}

pub(crate) use {query, sql};

/// Text that may be sent, or become a part of other text that may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sql(Cow<'static, str>);

impl Sql {
    /// Text of our own.
    pub(crate) const fn trusted(text: &'static str) -> Sql {
        Sql(Cow::Borrowed(text))
    }

    /// For [`sql!`] alone, which makes sure that all arguments are typed.
    pub(crate) fn composed(text: fmt::Arguments<'_>) -> Sql {
        Sql(text.to_string().into())
    }

    /// A name.
    pub(crate) fn identifier(name: &str) -> Sql {
        Sql(quote_identifier(name).into())
    }

    /// A name in a schema.
    pub(crate) fn qualified(schema: &str, name: &str) -> Sql {
        sql!(
            "{schema}.{name}",
            schema = Sql::identifier(schema),
            name = Sql::identifier(name)
        )
    }

    /// A string.
    pub(crate) fn literal(text: &str) -> Sql {
        Sql(quote_literal(text).into())
    }

    /// A whole number. One below 0 is in parentheses: two signs in a row would begin a comment.
    pub(crate) fn number(number: impl Into<i128>) -> Sql {
        match number.into() {
            number if number < 0 => Sql(format!("({number})").into()),
            number => Sql(number.to_string().into()),
        }
    }

    /// `true` or `false`.
    pub(crate) const fn boolean(value: bool) -> Sql {
        match value {
            true => Sql::trusted("true"),
            false => Sql::trusted("false"),
        }
    }

    /// An id.
    pub(crate) fn uuid(id: Uuid) -> Sql {
        Sql(format!("'{id}'").into())
    }

    /// An expression of a user, in parentheses and on lines of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it does not lex as one expression.
    pub(crate) fn expression(text: &str) -> Result<Sql> {
        let checked = sql_text::expression(text);
        checked.map_err(|fault| {
            let what = format!("{text:?} is not a SQL expression: {}", fault.what);
            Error::new(ErrorKind::Config, what).with_hint(fault.hint)
        })?;
        Ok(Sql(format!("(\n{text}\n)").into()))
    }

    /// The name of a table or view as a user wrote it, quoted where it must be: `log.event`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none.
    pub(crate) fn relation(text: &str) -> Result<Sql> {
        if is_relation(text) {
            return Ok(Sql(text.trim().to_owned().into()));
        }
        let what = format!("{text:?} is not the name of a table");
        Err(Error::new(ErrorKind::Config, what)
            .with_hint("write schema.table, quoted where it must be"))
    }

    /// Statements of a projection's file, or a part of them, as the user wrote them. Other `Sql` of
    /// the same message stands before and after them, never inside of a token.
    pub(crate) fn of_projection(statements: &str) -> Sql {
        Sql(statements.to_owned().into())
    }

    /// Statements to be sent together.
    pub(crate) fn message(statements: impl IntoIterator<Item = Sql>) -> Sql {
        Sql::join(statements, ";\n")
    }

    /// All of them, with a separator between.
    pub(crate) fn join(parts: impl IntoIterator<Item = Sql>, separator: &'static str) -> Sql {
        let parts: Vec<Sql> = parts.into_iter().collect();
        Sql(parts.join(separator).into())
    }
}

/// Names and dots in turn, and nothing else.
fn is_relation(text: &str) -> bool {
    let Ok(pieces) = sql_text::lex(text.trim()) else {
        return false;
    };
    let is_name = |kind| matches!(kind, Kind::Word | Kind::Quoted);
    let in_turn = pieces.iter().enumerate().all(|(at, piece)| match at % 2 {
        0 => is_name(piece.kind),
        _ => piece.is("."),
    });
    in_turn && pieces.len() % 2 == 1
}

/// Accepts `Sql` and references to it, and nothing else.
pub(crate) fn typed(sql: &impl AsRef<Sql>) -> &Sql {
    sql.as_ref()
}

impl AsRef<Sql> for Sql {
    fn as_ref(&self) -> &Sql {
        self
    }
}

impl Deref for Sql {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Sql {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Sql> for String {
    fn from(sql: Sql) -> String {
        sql.0.into_owned()
    }
}

/// An identifier, quoted for SQL text.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal, whatever `standard_conforming_strings` says. The blank before an `E` keeps it
/// from becoming a part of the word before.
fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}
