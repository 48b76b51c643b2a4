//! One SQL expression, as users write the key of a projection.

use super::{Fault, Kind, Piece, join, lex};

/// The expression without blanks, if it fits in parentheses.
///
/// # Errors
/// What is wrong with it. It does not check whether the server knows the names in it.
pub fn expression(text: &str) -> Result<String, Fault> {
    let pieces = lex(text)?;
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
    let is_parameter = |p: &Piece<'_>| p.kind == Kind::Number && p.text.starts_with('$');
    if pieces.iter().any(is_parameter) {
        return fault("it holds a parameter", "write the value itself");
    }
    if !balanced(&pieces) {
        return fault("its parentheses do not match", "close what you open");
    }
    Ok(join(&pieces))
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
