use proptest::prelude::*;
use serde_json::json;

use super::*;

const FILES: &str = r#"
[[test]]
name = "a deleted file disappears"
given = [
    { stream = "file-a", type = "FileAdded", data = { path = "a", blob = "b1", n = 1.5, at = 2024-05-01T12:00:00Z } },
    { stream = "file-a", type = "FileDeleted", version = 2, id = "2148b111-d54d-5f78-9495-c0fa2b02bac8", data = { blob = { null = true } }, metadata = { by = [1, 0x1f] }, occurred_at = "2016-07-30T22:50:58-07:00", recorded_at = 2024-05-01 12:00:00Z },
]
[test.expect]
files = []
"count of" = [ { n = 0 } ]

[[test]]
name = "nothing is nothing"
expect.files = [ { path = { null = true } } ]
"#;

fn parse(text: &str) -> Result<TestFile> {
    TestFile::parse(Path::new("projections/files.test.toml"), text)
}

fn row(value: Value) -> ExpectedRow {
    value.as_object().expect("object").clone()
}

fn rows(values: &[Value]) -> Vec<ExpectedRow> {
    values.iter().cloned().map(row).collect()
}

#[test]
fn a_file_of_tests_is_read_with_its_lines() {
    let file = parse(FILES).expect("tests");
    let [first, second] = file.tests.as_slice() else {
        panic!("two tests")
    };
    assert_eq!((first.line, second.line), (2, 12));
    assert_eq!(first.name, "a deleted file disappears");
    let [added, deleted] = first.given.as_slice() else {
        panic!("two events")
    };
    let data = json!({"path": "a", "blob": "b1", "n": 1.5, "at": "2024-05-01T12:00:00Z"});
    assert_eq!((&added.data, added.line, added.version), (&data, 5, None));
    assert_eq!(deleted.data, json!({"blob": null}));
    assert_eq!(
        Value::Object(deleted.metadata.clone()),
        json!({"by": [1, 31], "occurred_at": "2016-07-30T22:50:58-07:00"})
    );
    assert_eq!(deleted.version, Some(2));
    assert!(deleted.id.is_some() && deleted.recorded_at.is_some());
    let tables: Vec<_> = first
        .expect
        .iter()
        .map(|t| (t.table.as_str(), t.rows.len(), t.line))
        .collect();
    assert_eq!(tables, [("count of", 1, 10), ("files", 0, 9)]);
    assert_eq!(second.expect[0].rows, rows(&[json!({"path": null})]));
    assert!(second.given.is_empty());
    assert_eq!(file.location(9), "projections/files.test.toml: line 9");
}

#[test]
fn faults_name_the_line_and_what_to_do() {
    let event =
        |event: &str| format!("[[test]]\nname = \"a\"\nexpect.f = []\ngiven = [\n{event}\n]");
    for (text, expected) in [
        (
            "".to_owned(),
            "projections/files.test.toml: there is no test in this file; begin one with [[test]], or remove the file",
        ),
        (
            "\n[[tests]]".to_owned(),
            "projections/files.test.toml: line 2: the file has no key \"tests\"; did you mean test? (known: test)",
        ),
        (
            "test = 1".to_owned(),
            "projections/files.test.toml: line 1: test must be [[test]] tables, not a whole number; fix the value",
        ),
        (
            "[[test]]\nname = \"a\"".to_owned(),
            "projections/files.test.toml: line 1: the test has no expect; add the key expect",
        ),
        (
            "[[test]]\nname = \"a\"\nexpected = 1".to_owned(),
            "projections/files.test.toml: line 3: a test has no key \"expected\"; did you mean expect? (known: name, given, expect)",
        ),
        (
            "[[test]]\nname = \"a\"\nexpect = {}".to_owned(),
            "projections/files.test.toml: line 3: the test expects nothing; name a table and its rows, [] for none",
        ),
        (
            "[[test]]\nname = \"a\"\nexpect.f = [1]".to_owned(),
            "projections/files.test.toml: line 3: f must be a list of rows, not a whole number; fix the value",
        ),
        (
            "[[test]]\nname = \"a\"\nexpect.f = []\n[[test]]\nname = \"a\"\nexpect.f = []"
                .to_owned(),
            "projections/files.test.toml: line 4: there are two tests named \"a\"; rename one",
        ),
        (
            event("{ type = \"A\", data = 1 }"),
            "projections/files.test.toml: line 5: the event has no stream; add the key stream",
        ),
        (
            event("{ stream = \"a\", typ = \"A\", data = 1 }"),
            "projections/files.test.toml: line 5: an event has no key \"typ\"; did you mean type? (known: stream, type, data, version, metadata, occurred_at, recorded_at, id)",
        ),
        (
            event("{ stream = \"a\", type = \"A\", data = nan }"),
            "projections/files.test.toml: line 5: JSON has no number nan; write it as a string",
        ),
        (
            event("{ stream = \"a\", type = \"A\", data = 1, version = 0 }"),
            "projections/files.test.toml: line 5: version must be a whole number from 1, not 0; fix the value",
        ),
        (
            event("{ stream = \"a\", type = \"A\", data = 1, metadata = 1 }"),
            "projections/files.test.toml: line 5: metadata must be a table, not a whole number; fix the value",
        ),
        (
            event("{ stream = \"a\", type = \"A\", data = 1, recorded_at = 2024-05-01 }"),
            "projections/files.test.toml: line 5: recorded_at must be a date and time with an offset; write it like 2024-05-01T12:00:00Z",
        ),
    ] {
        assert_eq!(parse(&text).expect_err(&text).to_string(), expected);
    }
    let broken = parse("\n[[test]]\nname = ")
        .expect_err("broken")
        .to_string();
    assert!(
        broken.starts_with("projections/files.test.toml: line 3: this is not TOML"),
        "{broken}"
    );
}

#[test]
fn rows_agree_in_any_order_and_only_in_the_columns_named() {
    let actual = rows(&[json!({"path": "a", "n": 1}), json!({"path": "b", "n": 2})]);
    assert_eq!(
        compare(&rows(&[json!({"path": "b"}), json!({"n": 1.0})]), &actual),
        None
    );
    assert_eq!(compare(&[], &[]), None);
    assert_eq!(
        compare(&rows(&[json!({})]), &rows(&[json!({"a": 1})])),
        None
    );
}

#[test]
fn values_agree_by_what_they_are() {
    for (expected, actual, agree) in [
        (json!(1), json!(1.0), true),
        (json!(1), json!("1"), false),
        (json!(null), json!(null), true),
        (json!(null), json!("NULL"), false),
        (json!({"a": [1]}), json!({"a": [1.0]}), true),
        (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
        (
            json!("2016-07-30T22:50:58-07:00"),
            json!("2016-07-31T05:50:58+00:00"),
            true,
        ),
        (
            json!("2016-07-30T22:50:58"),
            json!("2016-07-30T22:50:59"),
            false,
        ),
        (
            json!(9007199254740993_i64),
            json!(9007199254740993_i64),
            true,
        ),
        (
            json!(9007199254740993_i64),
            json!(9007199254740992_i64),
            false,
        ),
    ] {
        let (e, a) = (
            rows(&[json!({"x": expected})]),
            rows(&[json!({"x": actual})]),
        );
        assert_eq!(compare(&e, &a).is_none(), agree, "{e:?} {a:?}");
    }
}

#[test]
fn a_row_that_fits_twice_leaves_the_place_that_another_needs() {
    let actual = rows(&[
        json!({"a": 1, "b": 1}),
        json!({"a": 1, "b": 2}),
        json!({"a": 1, "b": 3}),
    ]);
    let expected = rows(&[json!({"a": 1}), json!({"a": 1, "b": 1}), json!({"b": 2})]);
    assert_eq!(compare(&expected, &actual), None);
}

#[test]
fn equal_rows_count_as_often_as_they_are_there() {
    let one = rows(&[json!({"a": 1})]);
    let two = rows(&[json!({"a": 1}), json!({"a": 1})]);
    let difference = compare(&two, &one).expect("difference");
    assert_eq!(
        (difference.missing, difference.unexpected),
        (one.clone(), vec![])
    );
    let difference = compare(&one, &two).expect("difference");
    assert_eq!((difference.missing, difference.unexpected), (vec![], one));
}

#[test]
fn a_difference_shows_rows_as_a_test_would_write_them() {
    let expected = rows(&[
        json!({"path": "a", "n": null}),
        json!({"path": "c", "n": 1}),
    ]);
    let actual = rows(&[
        json!({"path": "c", "n": 1}),
        json!({"path": "a\"", "n": [2], "x": true}),
    ]);
    assert_eq!(
        compare(&expected, &actual).expect("difference").to_string(),
        "expected, but not there:\n    { n = { null = true }, path = \"a\" }\n\
         there, but not expected:\n    { n = [2], path = \"a\\\"\" }"
    );
    let many = vec![row(json!({"a b": 1})); 25];
    let shown = compare(&[], &many).expect("difference").to_string();
    assert!(
        shown.starts_with("there, but not expected:\n    { \"a b\" = 1 }\n"),
        "{shown}"
    );
    assert!(shown.ends_with("    and 5 more"), "{shown}");
}

fn small_rows() -> impl Strategy<Value = Vec<ExpectedRow>> {
    let row = prop::collection::btree_map("[ab]", 0..2_i32, 0..3);
    let row = row.prop_map(|map| {
        map.into_iter()
            .map(|(k, v)| (k, json!(v)))
            .collect::<ExpectedRow>()
    });
    prop::collection::vec(row, 0..5)
}

/// Whether some order of the actual rows fits the expected ones, by trying all.
fn fits(expected: &[ExpectedRow], actual: &[ExpectedRow]) -> bool {
    let Some((first, rest)) = expected.split_first() else {
        return actual.is_empty();
    };
    (0..actual.len()).any(|at| {
        let mut others = actual.to_vec();
        let row = others.remove(at);
        first.iter().all(|(k, v)| row.get(k) == Some(v)) && fits(rest, &others)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn comparing_finds_a_match_exactly_if_there_is_one(
        expected in small_rows(),
        actual in small_rows(),
    ) {
        let difference = compare(&expected, &actual);
        prop_assert_eq!(difference.is_none(), fits(&expected, &actual));
        if let Some(difference) = difference {
            let matched = expected.len() - difference.missing.len();
            prop_assert_eq!(actual.len() - difference.unexpected.len(), matched);
            prop_assert!(!difference.to_string().is_empty());
        }
    }
}
