//! Where a statement takes the definition of `batch`: at the head of its `with`.

use super::lexer::{Kind, Piece};

/// Where a statement takes a definition of `batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// The byte of the text at which it is.
    pub at: usize,
    /// It joins the list of an existing `with`; else it adds one.
    pub joins: bool,
}

/// The statements that take a `with`. Others, and functions, see the view.
const TAKES_WITH: [&str; 8] = [
    "select", "insert", "update", "delete", "merge", "values", "table", "with",
];

/// Where `batch` is defined for this statement; `None` if it does not name it, defines it itself
/// or is of a kind that takes no `with`.
pub fn batch_place(statement: &[Piece<'_>]) -> Option<BatchPlace> {
    let tokens: Vec<&Piece<'_>> = statement.iter().filter(|p| p.is_token()).collect();
    let first = *tokens.iter().find(|p| !p.is("("))?;
    let takes_with = TAKES_WITH.iter().any(|word| first.is_word(word));
    if !takes_with || !names_batch(&tokens) || defines_batch(&tokens) {
        return None;
    }
    let (head, next) = (tokens.first()?, tokens.get(1));
    let with = match next {
        _ if !head.is_word("with") => {
            return Some(BatchPlace {
                at: head.offset,
                joins: false,
            });
        }
        Some(next) if next.is_word("recursive") => next,
        _ => head,
    };
    Some(BatchPlace {
        at: with.end(),
        joins: true,
    })
}

fn is_batch(piece: &Piece<'_>) -> bool {
    piece.is_word("batch") || (piece.kind == Kind::Quoted && piece.text == "\"batch\"")
}

/// Whether the name occurs without a schema before it.
fn names_batch(tokens: &[&Piece<'_>]) -> bool {
    let qualified = |at: usize| {
        at.checked_sub(1)
            .and_then(|before| tokens.get(before))
            .is_some_and(|before| before.is("."))
    };
    let mut named = tokens.iter().enumerate().filter(|(_, p)| is_batch(p));
    named.any(|(at, _)| !qualified(at))
}

/// Whether the statement's own `with` has a `batch`, with columns or without.
fn defines_batch(tokens: &[&Piece<'_>]) -> bool {
    if !tokens.first().is_some_and(|first| first.is_word("with")) {
        return false;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && is_batch(token) && begins_item(tokens, at) {
            return true;
        }
    }
    false
}

/// Whether the name at `at` begins an item of a `with`: `batch as (`, `batch (a, b) as (`.
fn begins_item(tokens: &[&Piece<'_>], at: usize) -> bool {
    let is_before = |p: &&Piece<'_>| p.is(",") || p.is_word("with") || p.is_word("recursive");
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    let mut after = tokens.get(at + 1..).unwrap_or_default();
    if after.first().is_some_and(|p| p.is("(")) {
        let end = after.iter().position(|p| p.is(")"));
        after = end.and_then(|end| after.get(end + 1..)).unwrap_or_default();
    }
    let is_as = after.first().is_some_and(|p| p.is_word("as"));
    let is_query = after
        .get(1)
        .is_some_and(|p| p.is("(") || p.is_word("materialized") || p.is_word("not"));
    before.is_some_and(is_before) && is_as && is_query
}
