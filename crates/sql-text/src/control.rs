//! Statements that a projection may not use: the engine owns the transaction and the session.

use super::Fault;
use super::lexer::{Kind, Piece};

const OWNS_TRANSACTION: &str = "the engine opens and commits the transaction, so that the read model and its checkpoint are \
     stored together";
const OWNS_SEARCH_PATH: &str =
    "the engine sets search_path to the projection's own schema, which a rebuild changes";
const OWNS_SESSION: &str = "it would outlive the transaction on a connection that others use";

/// Why a projection may not use this statement, if it may not.
pub fn refusal(statement: &[Piece<'_>]) -> Option<Fault> {
    if let Some(meta) = statement
        .iter()
        .find(|p| p.kind == Kind::Other && p.text == "\\")
    {
        return Some(Fault {
            offset: meta.offset,
            what: "a backslash outside of quotes: commands of psql are not SQL".to_owned(),
            hint: "remove it".to_owned(),
        });
    }
    let words = leading_words(statement);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (what, why, hint) = reason(&words).or_else(|| copy(statement, &words))?;
    Some(Fault {
        offset: statement.first()?.offset,
        what: format!("{what} cannot be used in a projection: {why}"),
        hint: hint.to_owned(),
    })
}

/// The first words, in lower case, up to something that is not a word.
fn leading_words(statement: &[Piece<'_>]) -> Vec<String> {
    let tokens = statement.iter().filter(|piece| piece.is_token());
    tokens
        .take_while(|piece| matches!(piece.kind, Kind::Word | Kind::Quoted))
        .take(3)
        .map(|piece| piece.text.trim_matches('"').to_ascii_lowercase())
        .collect()
}

type Reason = (String, &'static str, &'static str);

fn reason(words: &[&str]) -> Option<Reason> {
    let transaction = |what: &str| Some((what.to_owned(), OWNS_TRANSACTION, "remove it"));
    let session = |what: &str, hint| Some((what.to_owned(), OWNS_SESSION, hint));
    match words {
        [
            first @ ("begin" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release"),
            ..,
        ] => transaction(first),
        ["start", "transaction", ..] => transaction("start transaction"),
        ["prepare", "transaction", ..] => transaction("prepare transaction"),
        ["set", "transaction", ..] | ["set", "local", "transaction"] => {
            transaction("set transaction")
        }
        ["set", "session", "characteristics"] => transaction("set session characteristics"),
        ["set", "search_path" | "schema", ..]
        | ["set", "local" | "session", "search_path" | "schema"] => Some((
            format!("set {}", words.last().unwrap_or(&"search_path")),
            OWNS_SEARCH_PATH,
            "remove it, or write the schema before the name: public.orders",
        )),
        ["set", "local" | "constraints", ..] => None,
        ["set", ..] => session("set", "write set local"),
        [
            first @ ("reset" | "discard" | "listen" | "unlisten" | "deallocate"),
            ..,
        ] => session(first, "remove it"),
        ["prepare", ..] => session("prepare", "write the statement itself"),
        _ => None,
    }
}

/// `copy … from stdin` and `to stdout` need a client that speaks COPY.
fn copy(statement: &[Piece<'_>], words: &[&str]) -> Option<Reason> {
    if *words.first()? != "copy" {
        return None;
    }
    let mut stream = statement
        .iter()
        .filter(|p| p.is_word("stdin") || p.is_word("stdout"));
    stream.next().map(|found| {
        (
            format!("copy with {}", found.text.to_ascii_lowercase()),
            "nobody is there to send or take the rows",
            "write insert with values or select",
        )
    })
}
