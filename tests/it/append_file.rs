//! Appending files of events: all of a file, a file twice, the line at fault.

use std::io::Cursor;
use std::path::Path;

use highwater::internal::append::{BATCH_EVENTS, Progress, Summary, append_ndjson};
use highwater::internal::ndjson::{NdjsonReader, to_line};
use highwater::{ErrorKind, EventStore, Position, Result};

use crate::append::{count, test_store};

async fn append(store: &EventStore, text: impl Into<Vec<u8>>) -> Result<Summary> {
    append_ndjson(
        store,
        NdjsonReader::new("events.ndjson", Cursor::new(text.into())),
        1000,
        |_| (),
    )
    .await
}

/// Line `n` of a file, with an id.
fn line(n: u32) -> String {
    format!(
        "{{\"id\":\"00000000-0000-0000-0000-{n:012}\",\"stream\":\"s-{}\",\"type\":\"T\",\"data\":{{\"n\":{n}}}}}\n",
        n % 7
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_history_is_appended_whole_and_a_second_time_adds_nothing() {
    let (client, _database, store) = test_store().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tokio-history.ndjson.gz");
    let mut last = Progress::default();
    let summary = append_ndjson(
        &store,
        NdjsonReader::open(&path).unwrap(),
        BATCH_EVENTS,
        |p| last = p,
    )
    .await
    .unwrap();
    assert_eq!(
        summary,
        Summary {
            appended: 24_935,
            duplicates: 0,
            first: Some(Position::new(1)),
            last: Some(Position::new(24_935)),
            without_id: 0,
        }
    );
    assert_eq!(last.appended, 24_935);
    assert_eq!(last.line, 24_935);
    assert_eq!(last.bytes_read, std::fs::metadata(&path).unwrap().len());
    let first = store.read(Position::START, 1, None, &[]).await.unwrap();
    assert_eq!(
        first[0].metadata.get(),
        "{\"occurred_at\": \"2016-07-30T22:50:58-07:00\"}"
    );

    let again = append_ndjson(
        &store,
        NdjsonReader::open(&path).unwrap(),
        BATCH_EVENTS,
        |_| (),
    )
    .await
    .unwrap();
    assert_eq!((again.appended, again.duplicates), (0, 24_935));
    assert_eq!((again.first, again.last), (None, None));
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        24_935
    );
}

#[tokio::test]
async fn a_line_that_is_no_event_ends_it_and_those_before_it_are_stored() {
    let (client, _database, store) = test_store().await;
    let text = [line(1), line(2), "\n{\"stream\":\n".to_owned(), line(3)].concat();
    let error = append(&store, text).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("events.ndjson: line 4: the JSON ends too early; "),
        "{text}"
    );
    assert!(
        text.ends_with(
            "the 2 events before it are stored, running again appends none of them twice"
        ),
        "{text}"
    );
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        2
    );
}

#[tokio::test]
async fn the_line_that_the_server_refuses_is_found_in_a_large_batch() {
    let cases: [(&str, ErrorKind); 4] = [
        (
            r#"{"stream":"s-1","type":"T","data":1,"version":1}"#,
            ErrorKind::VersionConflict,
        ),
        (
            r#"{"id":"00000000-0000-0000-0000-000000000001","stream":"s-1","type":"U","data":1}"#,
            ErrorKind::IdConflict,
        ),
        (
            r#"{"stream":"s-1","type":"T","data":1e999999}"#,
            ErrorKind::BadEvent,
        ),
        ("deep", ErrorKind::BadEvent),
    ];
    for (bad, kind) in cases {
        let bad = match bad {
            "deep" => {
                let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
                format!(r#"{{"stream":"s-1","type":"T","data":{open}{close}}}"#)
            }
            bad => bad.to_owned(),
        };
        let (client, _database, store) = test_store().await;
        let mut text: String = (1..=611).map(line).collect();
        text.push_str(&bad);
        text.push('\n');
        text.extend((612..=900).map(line));
        let error = append(&store, text.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error
                .to_string()
                .starts_with("events.ndjson: line 612: cannot append: "),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("the 611 events before it are stored"),
            "{error}"
        );
        let stored = "select count(*) from highwater.event where (data ->> 'n')::int <= 611";
        assert_eq!(count(&client, stored).await, 611);
        assert_eq!(
            count(&client, "select count(*) from highwater.event").await,
            611
        );

        let fixed = text.replace(&format!("{bad}\n"), "");
        let summary = append(&store, fixed).await.unwrap();
        assert_eq!((summary.appended, summary.duplicates), (289, 611));
    }
}

#[tokio::test]
async fn events_without_an_id_are_counted_and_appended_again() {
    let (client, _database, store) = test_store().await;
    let text = format!(
        "{}{}",
        line(1),
        "{\"stream\":\"s\",\"type\":\"T\",\"data\":null}\n"
    );
    for _ in 0..2 {
        assert_eq!(append(&store, text.clone()).await.unwrap().without_id, 1);
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        3
    );
    let summary = append(&store, "").await.unwrap();
    assert_eq!(summary, Summary::default());
}

#[tokio::test]
async fn what_is_read_from_the_log_as_lines_holds_what_was_appended() {
    let (_client, _database, store) = test_store().await;
    append(&store, line(5)).await.unwrap();
    let events = store.read(Position::START, 10, None, &[]).await.unwrap();
    let text = to_line(&events[0]).unwrap();
    assert!(
        text.starts_with(
            "{\"position\":1,\"stream\":\"s-5\",\"version\":1,\"type\":\"T\",\"data\":{\"n\": 5},\
             \"metadata\":{},\"id\":\"00000000-0000-0000-0000-000000000005\",\"recorded_at\":\""
        ),
        "{text}"
    );
}

#[tokio::test]
async fn large_events_pass_one_after_the_other_within_the_memory_bound() {
    let (client, _database, store) = test_store().await;
    let filler = "x".repeat(9 * 1024 * 1024);
    let text: String = (0..6)
        .map(|n| format!("{{\"stream\":\"s\",\"type\":\"T\",\"data\":[{n},\"{filler}\"]}}\n"))
        .collect();
    let summary = append(&store, text).await.unwrap();
    assert_eq!(summary.appended, 6);
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        6
    );
}

#[tokio::test]
async fn an_event_is_appended_as_soon_as_it_comes_in() {
    use std::io::Write;
    let (client, _database, store) = test_store().await;
    let (input, mut output) = std::io::pipe().unwrap();
    let (sender, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let reader = NdjsonReader::new("pipe", input);
    let run = tokio::spawn(async move {
        append_ndjson(&store, reader, BATCH_EVENTS, |done| {
            sender.send(done).unwrap()
        })
        .await
    });
    for n in 1..=3_u32 {
        output.write_all(line(n).as_bytes()).unwrap();
        let done = progress.recv().await.unwrap();
        assert_eq!((done.appended, done.line), (u64::from(n), u64::from(n)));
        assert_eq!(
            count(&client, "select count(*) from highwater.event").await,
            i64::from(n)
        );
    }
    drop(output);
    assert_eq!(run.await.unwrap().unwrap().appended, 3);
}
