//! PostgreSQL SQL as text: where its tokens, statements and comments begin and end.
//!
//! This is our own lexer because the hash of a projection is taken over [`normalise`], and that
//! must stay the same for ever. It follows PostgreSQL's own scanner for text that PostgreSQL
//! accepts (with `standard_conforming_strings = on`); the server judges all other text.

mod batch;
mod control;
mod expression;
mod lexer;
mod split;
#[cfg(test)]
mod tests;

pub use batch::BatchPlace;
pub(crate) use batch::batch_place;
pub(crate) use control::refusal;
pub(crate) use expression::expression;
pub(crate) use lexer::{Kind, Piece, lex};
pub(crate) use split::split;

/// A fault of a SQL text, and its byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The byte where the faulty part begins.
    pub offset: usize,
    /// What is wrong, as one clause.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// The text without comments and blanks, its tokens joined by one space.
///
/// Two texts with the same result mean the same to PostgreSQL. Keywords keep their case, so the
/// result need not be equal for texts that mean the same. Parts of a string that is continued
/// on a later line stay on lines of their own, because there a line break has a meaning.
///
/// # Errors
/// A quote or comment that never ends.
pub(crate) fn normalise(text: &str) -> Result<String, Fault> {
    Ok(join(&lex(text)?))
}

/// The tokens among `pieces`, joined as [`normalise`] says.
pub(crate) fn join(pieces: &[Piece<'_>]) -> String {
    let mut joined = String::new();
    for token in pieces.iter().filter(|piece| piece.is_token()) {
        if !joined.is_empty() {
            joined.push(match token.kind {
                Kind::Continuation => '\n',
                _ => ' ',
            });
        }
        joined.push_str(token.text);
    }
    joined
}

/// The lines of a text, to find the line of a byte.
#[derive(Clone, Debug)]
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Lines {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines(after.map(|(at, _)| at + 1).collect())
    }

    /// The line, from 1, of the byte at `offset`.
    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}
