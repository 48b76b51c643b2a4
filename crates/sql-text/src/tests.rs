use proptest::prelude::*;

use super::*;

fn normal(text: &str) -> String {
    normalise(text).expect(text)
}

fn statements(text: &str) -> Vec<String> {
    let pieces = lex(text).expect(text);
    let texts = split(&pieces)
        .into_iter()
        .map(|s| text[s[0].offset..s[s.len() - 1].end()].to_owned());
    texts.collect()
}

fn refused(text: &str) -> Option<String> {
    let pieces = lex(text).expect(text);
    split(&pieces)
        .into_iter()
        .find_map(refusal)
        .map(|fault| fault.what)
}

#[test]
fn comments_and_blanks_do_not_change_the_normal_form() {
    assert_eq!(
        normal("select 1,\t-- one\n  a.b /* nested /* twice */ */ from\r\n t"),
        "select 1 , a . b from t"
    );
}

#[test]
fn what_looks_like_a_comment_inside_quotes_is_text() {
    for text in [
        "'-- no comment'",
        "'/* none */'",
        "\"--\"",
        "$$ -- ; /* $$",
        "$a$ $$ ' $a$",
        "E'it\\'s -- text'",
        "'it''s'",
        "U&'\\0041'",
        "U&\"d\\0061t\"",
        "N'x'",
        "b'01'",
        "X'1F'",
    ] {
        assert_eq!(lex(text).expect(text).len(), 1, "{text}");
    }
    assert_eq!(normal("'a\\' || 'b'"), "'a\\' || 'b'");
}

#[test]
fn a_string_continued_on_the_next_line_keeps_the_rules_of_its_beginning() {
    assert_eq!(
        normal("select E'a' -- c\n  'b\\'c'"),
        "select E'a'\n'b\\'c'"
    );
    assert_eq!(normal("select 'a' 'b\\'"), "select 'a' 'b\\'");
    assert_eq!(normal("E'a' /* c */\n 'b\\'"), "E'a' 'b\\'");
}

#[test]
fn numbers_and_operators_are_cut_as_postgresql_cuts_them() {
    assert_eq!(normal("1.5e-3+x"), "1.5e-3 + x");
    assert_eq!(normal("a=-1"), "a = - 1");
    assert_eq!(normal("a@-1"), "a @- 1");
    assert_eq!(normal("1..2"), "1 . .2");
    assert_eq!(normal("$1::int[]"), "$1 :: int [ ]");
    assert_eq!(normal("f(x:=.5)"), "f ( x := .5 )");
    assert_eq!(normal("a->>'b'"), "a ->> 'b'");
    assert_eq!(normal("a*/*c*/b"), "a * b");
    assert_eq!(normal("0x1E+1"), "0x1E + 1");
    assert_eq!(normal("a$b$c"), "a$b$c");
}

#[test]
fn an_unterminated_quote_says_where_it_began() {
    for (text, offset) in [
        ("select 'x", 7),
        ("a \"b", 2),
        ("/* a /* b */", 0),
        ("\n$x$ $y$", 1),
        ("E'\\'", 0),
    ] {
        assert_eq!(lex(text).expect_err(text).offset, offset, "{text}");
    }
}

#[test]
fn statements_end_at_a_semicolon_and_empty_ones_are_dropped() {
    assert_eq!(
        statements(" ; select 1 -- a;\n; /* ; */ ;select ';' ; -- end"),
        ["select 1", "select ';'"]
    );
    assert_eq!(
        statements("create rule r as on insert to t do (select 1; select 2); select 3"),
        [
            "create rule r as on insert to t do (select 1; select 2)",
            "select 3"
        ]
    );
}

#[test]
fn the_body_of_an_sql_function_is_not_split() {
    let function = "create or replace function f(a int) returns int language sql BEGIN ATOMIC\n\
        select case a when 1 then case when true then 2 end else 3 end as end;\n\
        select 2; end";
    assert_eq!(
        statements(&format!("{function}; select 1;")),
        [function, "select 1"]
    );
    assert_eq!(
        statements("do $$ begin perform 1; end $$; select 1"),
        ["do $$ begin perform 1; end $$", "select 1"]
    );
}

#[test]
fn what_would_take_the_transaction_from_the_engine_is_refused() {
    for text in [
        "BEGIN",
        "begin isolation level serializable",
        "Commit",
        "/* x */ end",
        "rollback to savepoint a",
        "abort",
        "start transaction",
        "savepoint a",
        "release a",
        "prepare transaction 'x'",
        "set transaction read only",
        "set session characteristics as transaction read only",
        "set search_path = public",
        "set local search_path to x",
        "set session search_path to x",
        "set \"search_path\" to x",
        "set schema 'x'",
        "set work_mem = '1GB'",
        "set role x",
        "reset all",
        "reset search_path",
        "discard all",
        "copy t (a) from stdin",
        "copy t to STDOUT with (format csv)",
        "listen x",
        "\\i other.sql",
        "select 1 \\gset",
        "prepare p as select 1",
    ] {
        assert!(refused(text).is_some(), "{text}");
        assert!(refused(&format!("select 1; {text};")).is_some(), "{text}");
    }
}

#[test]
fn what_only_looks_like_transaction_control_is_allowed() {
    for text in [
        "select begin from t",
        "update t set search_path = 1",
        "set local work_mem = '64MB'",
        "set constraints all deferred",
        "insert into t select 'commit'",
        "\"commit\"",
        "copy t from program 'true'",
        "do $$ begin null; end $$",
        "create function f() returns int begin atomic select 1; end",
        "select E'\\\\'",
    ] {
        if text != "\"commit\"" {
            assert_eq!(refused(text), None, "{text}");
        }
    }
}

/// Texts made of the tokens that the lexer distinguishes, which random characters seldom hit.
fn sql_like() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "select", "E", "u&", "'", "''", "\"", "\\", "$", "$$", "$a$", "--", "/*", "*/", "\n", "\r",
        " ", ";", "(", ")", ".", "..", "1", "1e", "+", "-", "=", ":", "::", "é", "begin", "atomic",
        "case", "end", "create", "'a'", "e'\\''", "/", "*", "0x", "a", "\0",
    ]);
    prop::collection::vec(parts, 0..24).prop_map(|parts| parts.concat())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![sql_like(), any::<String>()]
}

fn tokens(text: &str) -> Vec<(Kind, String)> {
    let pieces = lex(text).expect(text);
    let tokens = pieces.iter().filter(|p| p.is_token());
    tokens.map(|p| (p.kind, p.text.to_owned())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_byte_belongs_to_one_piece(text in any_text()) {
        if let Ok(pieces) = lex(&text) {
            let joined: String = pieces.iter().map(|p| p.text).collect();
            prop_assert_eq!(joined, text);
        }
    }

    #[test]
    fn normalising_twice_is_normalising_once(text in any_text()) {
        if let Ok(once) = normalise(&text) {
            prop_assert_eq!(tokens(&once), tokens(&text));
            prop_assert_eq!(normalise(&once).expect("normal form"), once);
        }
    }

    #[test]
    fn comments_between_tokens_change_nothing(
        text in any_text(),
        filler in prop::sample::select(vec![" ", "\t", "/* ; ' */", " /* /* */ */ ", " -- x\n", "\n"]),
    ) {
        let Ok(pieces) = lex(&text) else { return Ok(()) };
        let mut stretched = String::new();
        let mut string_before = false;
        for token in pieces.iter().filter(|p| p.is_token()) {
            let is_string = matches!(token.kind, Kind::Text | Kind::Continuation);
            // Between two strings a line break has a meaning of its own.
            let between = match token.kind {
                Kind::Continuation => "\n",
                _ if is_string && string_before => " ",
                _ => filler,
            };
            stretched.push_str(between);
            stretched.push_str(token.text);
            string_before = is_string;
        }
        prop_assert_eq!(normal(&stretched), join(&pieces));
    }

    #[test]
    fn splitting_loses_nothing_but_separators(text in any_text()) {
        let Ok(pieces) = lex(&text) else { return Ok(()) };
        let kept: Vec<&str> = split(&pieces).concat().iter()
            .filter(|p| p.is_token()).map(|p| p.text).collect();
        let all: Vec<&str> = pieces.iter().filter(|p| p.is_token()).map(|p| p.text).collect();
        let without = |texts: Vec<&str>| -> Vec<String> {
            texts.into_iter().filter(|t| *t != ";").map(str::to_owned).collect()
        };
        prop_assert_eq!(without(kept), without(all));
        for statement in split(&pieces) {
            let _ = refusal(statement);
        }
    }
}
