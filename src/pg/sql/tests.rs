use std::fs;
use std::path::Path;

use proptest::prelude::*;

use hostile::HOSTILE;

use super::template::{TemplatePiece, filled, pieces};
use super::*;

#[path = "../../../tests/it/support/hostile.rs"]
mod hostile;

/// What a template becomes, or why it does not.
fn fill(template: &str, values: &[(&str, Sql)]) -> Result<String, String> {
    let values: Vec<(&str, &Sql)> = values.iter().map(|(name, sql)| (*name, sql)).collect();
    filled(template, &values).map(String::from)
}

/// The kinds of the tokens of a text.
fn tokens(text: &str) -> Vec<(Kind, String)> {
    let pieces = sql_text::lex(text).unwrap();
    let tokens = pieces.iter().filter(|piece| piece.is_token());
    tokens.map(|p| (p.kind, p.text.to_owned())).collect()
}

#[test]
fn a_placeholder_is_a_pair_of_comments_around_a_default() {
    use TemplatePiece::{Placeholder, Text};
    for (template, expected) in [
        ("select 1", vec![Text("select 1")]),
        (
            "select /*a:*/ 1 /*:a*/, 2",
            vec![Text("select "), Placeholder("a"), Text(", 2")],
        ),
        (
            "/*a_b:*//*:a_b*/",
            vec![Text(""), Placeholder("a_b"), Text("")],
        ),
        (
            "-- Purpose: `a` /*a:*/\n-- more\nselect /*a:*/ 'x' /* y */ /*:a*/ /* z: */\n",
            vec![Text("select "), Placeholder("a"), Text(" /* z: */")],
        ),
        ("-- nothing else", vec![Text("")]),
    ] {
        assert_eq!(pieces(template).unwrap(), expected, "{template}");
    }
    for (template, expected) in [
        ("/*a:*/ 1", "/*a:*/ is not closed"),
        ("1 /*:a*/", "/*:a*/ closes nothing"),
        ("/*a:*/ 1 /*:b*/", "/*a:*/ is closed by /*:b*/"),
        ("/*a:*/ /*b:*/ 1 /*:b*/ /*:a*/", "/*a:*/ is not closed"),
    ] {
        assert_eq!(pieces(template).unwrap_err(), expected, "{template}");
    }
}

#[test]
fn every_placeholder_is_given_and_every_value_is_used() {
    let one = || Sql::number(1);
    let template = "select /*a:*/ 0 /*:a*/ + /*b:*/ 0 /*:b*/ + /*a:*/ 0 /*:a*/";
    for (values, expected) in [
        (vec![("a", one()), ("b", one())], Ok("select 1 + 1 + 1")),
        (vec![("a", one())], Err("placeholder \"b\" was not given")),
        (
            vec![("a", one()), ("b", one()), ("c", one())],
            Err("there is no placeholder \"c\""),
        ),
        (
            vec![("a", one()), ("b", one()), ("a", one())],
            Err("placeholder \"a\" was given twice"),
        ),
    ] {
        let found = fill(template, &values);
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }
    let error = Template::new("x.sql", template).fill(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(
        error.message().starts_with("sql/queries/x.sql: "),
        "{error}"
    );
}

#[test]
fn every_query_file_is_a_template_or_a_statement_without_placeholders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/queries");
    let mut checked = 0;
    for directory in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(directory.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let cut = pieces(&text).map(|pieces| pieces.len());
            assert!(cut.is_ok(), "{}: {cut:?}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "where are the queries?");
}

#[test]
fn whatever_a_literal_or_a_name_holds_is_one_token() {
    for text in HOSTILE {
        let literal = tokens(&Sql::literal(text));
        assert_eq!(literal.len(), 1, "{text:?}: {literal:?}");
        assert_eq!(literal[0].0, Kind::Text, "{text:?}");
        let name = tokens(&Sql::identifier(text));
        assert_eq!(name.len(), 1, "{text:?}: {name:?}");
        assert_eq!(name[0].0, Kind::Quoted, "{text:?}");
    }
}

#[test]
fn names_and_texts_are_quoted_and_numbers_begin_no_comment() {
    for (sql, expected) in [
        (Sql::identifier("a\"b"), "\"a\"\"b\""),
        (Sql::qualified("s", "a.b"), "\"s\".\"a.b\""),
        (Sql::literal("it's"), "'it''s'"),
        (Sql::literal("a\\b"), " E'a\\\\b'"),
        (Sql::number(i64::MAX), "9223372036854775807"),
        (sql!("1 -{n}", n = Sql::number(-1)), "1 -(-1)"),
        (Sql::boolean(true), "true"),
        (
            Sql::uuid(Uuid::nil()),
            "'00000000-0000-0000-0000-000000000000'",
        ),
        (
            Sql::join([Sql::number(1), Sql::literal(", ")], ", "),
            "1, ', '",
        ),
    ] {
        assert_eq!(&*sql, expected);
    }
}

#[test]
fn an_expression_of_a_user_stays_within_its_parentheses() {
    for text in [
        "stream",
        "data->>'it''s {number} /*key:*/ -- $1'",
        "coalesce(data->>'a', split_part(stream, '-', 1))",
        "data->>$$/*$$",
        "\"type\"",
    ] {
        let sql = Sql::expression(text).unwrap();
        assert_eq!(&*sql, format!("(\n{text}\n)"));
        let whole = tokens(&sql!("x {key} y", key = sql));
        assert_eq!(whole[1].1, "(", "{text}");
        assert_eq!(whole[whole.len() - 2].1, ")", "{text}");
        assert_eq!(whole.last().unwrap().1, "y", "{text}");
    }
    for (text, expected) in [
        ("", "it is empty"),
        ("stream -- and more", "it holds a comment"),
        ("stream /* and more */", "it holds a comment"),
        ("stream; select 1", "it holds a semicolon"),
        ("stream) or (true", "its parentheses do not match"),
        ("lower(stream", "its parentheses do not match"),
        ("$1", "it holds a parameter"),
        ("'open", "the string that begins here never ends"),
        ("/* open", "the comment that begins here with /* never ends"),
        ("$$ open", "the string that begins here never ends"),
    ] {
        let error = Sql::expression(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().ends_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_relation_is_a_name_and_nothing_else() {
    for text in ["event", "highwater.event", "\"a.b\".\"c\"\"d\"", " s.t "] {
        assert_eq!(&*Sql::relation(text).unwrap(), text.trim());
    }
    for text in [
        "",
        "a b",
        "a.",
        ".a",
        "a..b",
        "(select 1)",
        "a; drop table b",
        "a -- b",
        "a/**/",
        "f()",
        "'a'",
        "\"a",
    ] {
        assert!(Sql::relation(text).is_err(), "{text}");
    }
}

/// Text with everything in it that means something to a template or to SQL.
fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        proptest::sample::select(HOSTILE.as_slice()).prop_map(str::to_owned),
        "[a-z'\"\\\\$:/* \n{}-]{0,6}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

/// The text that a literal stands for.
fn unquoted(literal: &str) -> String {
    let literal = literal.trim_start();
    match literal.strip_prefix("E'") {
        Some(escaped) => {
            let inside = escaped.strip_suffix('\'').unwrap();
            inside.replace("\\\\", "\\").replace("''", "'")
        }
        None => {
            let inside = literal.strip_prefix('\'').unwrap();
            inside.strip_suffix('\'').unwrap().replace("''", "'")
        }
    }
}

proptest! {
    #[test]
    fn filling_never_changes_what_is_put_in(a in any_text(), b in any_text()) {
        let (literal, name) = (Sql::literal(&a), Sql::identifier(&b));
        let template = "-- Purpose: `a`.\nselect /*a:*/ 'x' /*:a*/ as /*b:*/ n /*:b*/, /*a:*/ 'x' /*:a*/";
        let found = fill(template, &[("a", literal.clone()), ("b", name.clone())]).unwrap();
        prop_assert_eq!(&found, &["select ", &*literal, " as ", &*name, ", ", &*literal].concat());
        prop_assert_eq!(&found, &*sql!("select {a} as {b}, {a}", a = literal, b = name));
    }

    #[test]
    fn what_the_server_reads_is_what_was_put_in(text in any_text()) {
        let sql = sql!("select {a}, 1", a = Sql::literal(&text));
        let tokens = tokens(&sql);
        prop_assert_eq!(tokens.len(), 4);
        prop_assert_eq!(unquoted(&tokens[1].1), text);
    }
}
