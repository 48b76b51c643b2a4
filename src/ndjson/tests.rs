#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::event::RecordedEvent;
use crate::position::Position;

fn read(input: impl AsRef<[u8]>) -> Result<Vec<NdjsonEvent>> {
    let input = Cursor::new(input.as_ref().to_vec());
    NdjsonReader::new("events.ndjson", input).collect()
}

fn one(input: &str) -> NdjsonEvent {
    let mut events = read(input).unwrap();
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn refused(input: impl AsRef<[u8]>) -> String {
    match read(input) {
        Ok(events) => panic!("it was taken: {events:?}"),
        Err(error) => error.to_string(),
    }
}

fn gz(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

const LINE: &str = r#"{"stream":"order-1","type":"OrderPlaced","data":{"total":12.50}}"#;

#[test]
fn an_event_is_read_with_all_of_its_fields() {
    let event = one(
        r#"{"id":"2148b111-d54d-5f78-9495-c0fa2b02bac8","stream":"order-1","version":3,
            "type":"OrderPlaced","data":[1e0, 1.00],"metadata":{"by":"me"},
            "occurred_at":"2016-07-30T22:50:58-07:00"}"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(event.line, 1);
    assert_eq!(event.stream, "order-1");
    assert_eq!(event.expected, ExpectedVersion::Exact(2));
    assert_eq!(event.event.event_type, "OrderPlaced");
    assert_eq!(event.event.data.get(), "[1e0, 1.00]");
    let metadata: Value = serde_json::from_str(event.event.metadata.unwrap().get()).unwrap();
    assert_eq!(
        metadata,
        json!({"by": "me", "occurred_at": "2016-07-30T22:50:58-07:00"})
    );
}

#[test]
fn numbers_keep_every_digit() {
    let event = one(r#"{"stream":"s","type":"T","data":123456789012345678901234567890.10}"#);
    assert_eq!(event.event.data.get(), "123456789012345678901234567890.10");
}

#[test]
fn the_first_version_demands_that_there_is_no_stream() {
    let event = one(r#"{"stream":"s","type":"T","data":null,"version":1}"#);
    assert_eq!(event.expected, ExpectedVersion::NoStream);
    assert_eq!(one(LINE).expected, ExpectedVersion::Any);
}

#[test]
fn blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_matter() {
    let events = read(format!("\u{feff}\r\n{LINE}\r\n\r\n  \t\n{LINE}")).unwrap();
    let lines: Vec<u64> = events.iter().map(|event| event.line).collect();
    assert_eq!(lines, [2, 5]);
    assert_eq!(read(format!("\u{feff}{LINE}")).unwrap().len(), 1);
    assert!(read("").unwrap().is_empty());
}

#[test]
fn gz_is_known_by_its_first_bytes_and_may_have_many_members() {
    let mut bytes = gz(format!("{LINE}\n").as_bytes());
    bytes.extend(gz(LINE.as_bytes()));
    assert_eq!(read(bytes).unwrap().len(), 2);
    assert!(read(gz(b"")).unwrap().is_empty());
}

#[test]
fn gz_that_ends_too_early_gives_what_came_before_and_then_says_so() {
    // Lines that do not compress into one block of output at the very end.
    let text: String = (0..20_000)
        .map(|n| {
            format!(
                r#"{{"stream":"s-{n}","type":"T","data":{}}}{}"#,
                n * 7919,
                "\n"
            )
        })
        .collect();
    let whole = gz(text.as_bytes());
    let mut reader = NdjsonReader::new("a.gz", Cursor::new(whole[..whole.len() / 2].to_vec()));
    let mut events = 0_u64;
    let error = loop {
        match reader.next_event() {
            Ok(Some(_)) => events += 1,
            Ok(None) => panic!("the end was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(events > 0);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        error.to_string(),
        format!(
            "a.gz: line {}: the gz data ends too early; copy or download the file again",
            events + 1
        )
    );
    assert!(matches!(reader.next_event(), Ok(None)));
}

#[test]
fn damaged_gz_is_named() {
    let mut bytes = gz(LINE.as_bytes());
    let length = bytes.len();
    bytes[length - 6] ^= 0xff;
    assert!(refused(bytes).contains("the gz data is damaged"));
}

#[test]
fn what_is_wrong_is_said_with_the_line_and_what_to_do() {
    let cases: [(&str, &str); 18] = [
        ("nonsense", "it is not a JSON object"),
        ("[\"s\",1]", "it is not a JSON object"),
        ("{\"stream\":", "the JSON ends too early"),
        (
            "{\"stream\" 1}",
            "it is not JSON: expected `:` at column 11",
        ),
        (r#"{"type":"T","data":1}"#, "missing field `stream`"),
        (r#"{"stream":"s","data":1}"#, "missing field `type`"),
        (r#"{"stream":"s","type":"T"}"#, "missing field `data`"),
        (
            r#"{"stream":"s","type":"T","data":1,"dta":1}"#,
            "unknown field `dta`",
        ),
        (
            r#"{"stream":"s","type":"T","data":1,"data":1}"#,
            "duplicate field `data`",
        ),
        (r#"{"stream":"","type":"T","data":1}"#, "stream is empty"),
        (r#"{"stream":"s","type":"","data":1}"#, "type is empty"),
        (
            r#"{"stream":7,"type":"T","data":1}"#,
            "invalid type: integer `7`",
        ),
        (
            r#"{"stream":"s","type":"T","data":1,"version":0}"#,
            "version is 0",
        ),
        (
            r#"{"stream":"s","type":"T","data":1,"version":1.5}"#,
            "floating point `1.5`",
        ),
        (r#"{"stream":"s","type":"T","data":1,"id":"7"}"#, "UUID"),
        (
            r#"{"stream":"s","type":"T","data":1,"metadata":[]}"#,
            "metadata is not a JSON object",
        ),
        (
            r#"{"stream":"s","type":"T","data":1,"occurred_at":"yesterday"}"#,
            "occurred_at is \"yesterday\", which is not RFC 3339",
        ),
        (
            r#"{"stream":"s","type":"T","data":1,"occurred_at":"2026-08-07T12:30:00Z","metadata":{"occurred_at":"now"}}"#,
            "occurred_at and the metadata's occurred_at differ",
        ),
    ];
    for (line, what) in cases {
        let error = refused(format!("{LINE}\n\n{line}\n"));
        assert!(error.starts_with("events.ndjson: line 3: "), "{error}");
        assert!(error.contains(what), "{line} gave: {error}");
        assert!(error.contains("; "), "no hint: {error}");
    }
}

#[test]
fn what_postgresql_cannot_store_is_refused_wherever_it_is() {
    for text in [
        r#"{"stream":"a\u0000","type":"T","data":1}"#,
        r#"{"stream":"s","type":"\u0000","data":1}"#,
        r#"{"stream":"s","type":"T","data":{"deep":["x\u0000y"]}}"#,
        r#"{"stream":"s","type":"T","data":{"k\u0000":1}}"#,
        r#"{"stream":"s","type":"T","data":"\\\u0000"}"#,
        r#"{"stream":"s","type":"T","data":1,"metadata":{"a":"\u0000"}}"#,
    ] {
        assert!(refused(text).contains("\\u0000"), "{text}");
    }
    for text in [
        r#"\ud800"#,
        r#"\udc00"#,
        r#"\ud800\u0041"#,
        r#"\uD83D\\ude00"#,
    ] {
        let line = format!(r#"{{"stream":"s","type":"T","data":"{text}"}}"#);
        assert!(
            refused(&line).contains("half of a surrogate pair"),
            "{line}"
        );
    }
    for text in [
        r#"\\u0000"#,
        r#"\ud83d\ude00"#,
        r#"\\\\u0000"#,
        r#"\u00e9\n"#,
        r#"\"\\ud800"#,
    ] {
        one(&format!(r#"{{"stream":"s","type":"T","data":"{text}"}}"#));
    }
}

#[test]
fn occurred_at_is_rfc_3339_and_kept_as_it_is_given() {
    for good in [
        "2016-07-30T22:50:58-07:00",
        "2026-08-07T12:30:00Z",
        "2026-08-07t12:30:00.123456789012z",
        "2026-08-07T12:30:00.5+05:45",
        "2024-02-29T00:00:00Z",
        "2016-12-31T23:59:60Z",
    ] {
        let event = one(&format!(
            r#"{{"stream":"s","type":"T","data":1,"occurred_at":"{good}"}}"#
        ));
        let metadata = event.event.metadata.unwrap();
        assert_eq!(metadata.get(), format!(r#"{{"occurred_at":"{good}"}}"#));
    }
    for bad in [
        "2026-08-07",
        "2026-08-07T12:30:00",
        "2026-08-07 12:30:00Z",
        "2023-02-29T00:00:00Z",
        "2026-08-07T12:30:00+0200",
        "2026-08-07T12:30:00.Z",
        "20260807T123000Z",
        "2026-08-07T12:30:00Zé",
        "2026-08-07T25:30:00Z",
    ] {
        let line = format!(r#"{{"stream":"s","type":"T","data":1,"occurred_at":"{bad}"}}"#);
        assert!(refused(&line).contains("not RFC 3339"), "{bad}");
    }
}

#[test]
fn text_that_is_not_utf_8_is_refused_with_its_byte() {
    assert!(refused(b"{\"stream\":\"\xff\"}").contains("byte 12 is not UTF-8"));
    // UTF-16, as some editors save it.
    assert!(refused(b"\xff\xfe{\0\"\0").contains("is not UTF-8"));
}

/// Bytes without a line end; counts the bytes that are read.
struct Endless(Arc<AtomicU64>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'x');
        self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(buffer.len())
    }
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_not_read_on() {
    let given = Arc::new(AtomicU64::new(0));
    let mut reader = NdjsonReader::new("x", Endless(Arc::clone(&given))).with_line_limit(100_000);
    let error = reader.next_event().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("x: line 1: the line is longer than 100000 bytes")
    );
    assert!(given.load(Ordering::Relaxed) < 300_000);

    let exact = NdjsonReader::new("x", Cursor::new(LINE.as_bytes())).with_line_limit(LINE.len());
    assert_eq!(exact.count(), 1);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let Err(error) = NdjsonReader::open(Path::new("no/such/file.ndjson")) else {
        panic!("it was opened");
    };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("no/such/file.ndjson: "));
}

#[test]
fn a_recorded_event_is_one_line() {
    let event = RecordedEvent {
        position: Position::new(7),
        stream: "s\n".into(),
        version: 2,
        event_type: "T".into(),
        data: RawValue::from_string("{\n \"a\": 1.00\r\n}".into()).unwrap(),
        metadata: RawValue::from_string("{}".into()).unwrap(),
        id: Uuid::nil(),
        recorded_at: "2026-08-07T12:30:00.5Z".parse().unwrap(),
    };
    assert_eq!(
        to_line(&event).unwrap(),
        "{\"position\":7,\"stream\":\"s\\n\",\"version\":2,\"type\":\"T\",\"data\":{  \"a\": 1.00  },\
         \"metadata\":{},\"id\":\"00000000-0000-0000-0000-000000000000\",\
         \"recorded_at\":\"2026-08-07T12:30:00.5Z\"}"
    );
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[^\0]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[^\0]{0,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_in_gz_give_a_sentence(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for input in [[&GZ_MAGIC[..], &bytes].concat(), gz(&bytes)] {
            if let Err(error) = read(input) {
                prop_assert!(error.to_string().starts_with("events.ndjson: line "));
                prop_assert!(error.hint().is_some());
            }
        }
    }

    #[test]
    fn every_valid_event_is_read_back(
        stream in "[^\0]{1,40}", event_type in "[^\0]{1,40}", data in json_value(),
        id in prop::option::of(any::<u128>()), version in prop::option::of(1..i64::MAX),
        compressed in any::<bool>(),
    ) {
        let mut fields = json!({"stream": stream, "type": event_type, "data": data});
        let id = id.map(Uuid::from_u128);
        if let Some(id) = id {
            fields["id"] = json!(id);
        }
        if let Some(version) = version {
            fields["version"] = json!(version);
        }
        let line = format!("{fields}\n");
        let input = if compressed { gz(line.as_bytes()) } else { line.into_bytes() };
        let events = read(input).unwrap();
        prop_assert_eq!(events.len(), 1);
        let event = &events[0];
        prop_assert_eq!(&event.stream, &stream);
        prop_assert_eq!(&event.event.event_type, &event_type);
        prop_assert_eq!(serde_json::from_str::<Value>(event.event.data.get()).unwrap(), data);
        prop_assert_eq!(event.event.id, id);
        prop_assert_eq!(event.expected.as_sql(), version.map(|v| v - 1));
    }
}
