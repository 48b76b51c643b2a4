//! The key of a projection: one SQL expression over the columns of a batch.

use crate::projection::sql_text::{self, Fault, Kind, Piece};

/// The expression without blanks, if it can stand in parentheses.
///
/// # Errors
/// What is wrong with it. Whether the server knows what it names is not looked at.
pub(crate) fn normalised(key: &str) -> Result<String, Fault> {
    let pieces = sql_text::lex(key)?;
    let fault = |what: &str, hint: &str| {
        Err(Fault {
            offset: 0,
            what: what.to_owned(),
            hint: hint.to_owned(),
        })
    };
    if !pieces.iter().any(Piece::is_token) {
        return fault("it is empty", "leave it out, and the key is the stream");
    }
    let is_comment = |p: &Piece<'_>| matches!(p.kind, Kind::LineComment | Kind::BlockComment);
    if pieces.iter().any(is_comment) {
        return fault("it holds a comment", "move the comment out of the string");
    }
    if pieces.iter().any(|p| p.is(";")) {
        return fault("it holds a semicolon", "write one expression");
    }
    if !balanced(&pieces) {
        return fault("its parentheses do not match", "close what you open");
    }
    Ok(sql_text::join(&pieces))
}

fn balanced(pieces: &[Piece<'_>]) -> bool {
    let mut open = Vec::new();
    for piece in pieces {
        let closes = match piece.text {
            "(" | "[" => {
                open.push(piece.text);
                continue;
            }
            ")" => "(",
            "]" => "[",
            _ => continue,
        };
        if open.pop() != Some(closes) {
            return false;
        }
    }
    open.is_empty()
}
