//! Appending: versions, positions, conflicts, what cannot be stored; from Rust and from SQL.

use highwater::internal::event_store;
use highwater::internal::pg::database::Database;
use highwater::{ErrorKind, EventStore, ExpectedVersion, NewEvent, Position};
use serde_json::json;
use serde_json::value::RawValue;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::test_database;

pub(crate) async fn test_store() -> (Client, Database, EventStore) {
    let (client, database) = test_database().await;
    let store = event_store::in_database(database.clone());
    (client, database, store)
}

pub(crate) fn event(event_type: &str, n: i64) -> NewEvent {
    NewEvent::new(event_type, &json!({ "n": n })).unwrap()
}

pub(crate) async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn events_are_recorded_as_they_were_given() {
    let (_client, _database, store) = test_store().await;
    let id = Uuid::from_u128(7);
    let data = RawValue::from_string("[1.00, 12345678901234567890]".into()).unwrap();
    let placed = NewEvent::new("Placed", &data)
        .unwrap()
        .with_id(id)
        .with_metadata(&json!({"by": "me"}))
        .unwrap();
    let appended = store
        .append(
            "order-1",
            ExpectedVersion::NoStream,
            &[placed, event("Paid", 1)],
        )
        .await
        .unwrap();
    assert_eq!(appended.version(), Some(2));
    assert_eq!(appended.first(), Some(Position::new(1)));
    assert_eq!(appended.last(), Some(Position::new(2)));

    let read = store.read(Position::START, 10, None, &[]).await.unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].position, Position::new(1));
    assert_eq!((read[0].stream.as_str(), read[0].version), ("order-1", 1));
    assert_eq!(read[0].event_type, "Placed");
    assert_eq!(read[0].data.get(), "[1.00, 12345678901234567890]");
    assert_eq!(read[0].metadata.get(), "{\"by\": \"me\"}");
    assert_eq!(read[0].id, id);
    assert_eq!(read[1].metadata.get(), "{}");
}

#[tokio::test]
async fn reading_keeps_to_the_position_the_limit_the_stream_and_the_types() {
    let (_client, _database, store) = test_store().await;
    for (stream, kind) in [("a", "X"), ("b", "X"), ("a", "Y"), ("a", "Z"), ("b", "Y")] {
        store
            .append(stream, ExpectedVersion::Any, &[event(kind, 0)])
            .await
            .unwrap();
    }
    let positions = async |after, limit, stream, types: &[&str]| -> Vec<i64> {
        let types: Vec<String> = types.iter().map(ToString::to_string).collect();
        let events = store
            .read(Position::new(after), limit, stream, &types)
            .await
            .unwrap();
        events.iter().map(|event| event.position.get()).collect()
    };
    assert_eq!(positions(0, 10, None, &[]).await, [1, 2, 3, 4, 5]);
    assert_eq!(positions(2, 2, None, &[]).await, [3, 4]);
    assert_eq!(positions(0, 10, Some("a"), &[]).await, [1, 3, 4]);
    assert_eq!(positions(0, 10, None, &["Y", "Z"]).await, [3, 4, 5]);
    assert_eq!(positions(1, 1, Some("a"), &["X", "Z"]).await, [4]);
    assert!(positions(5, 10, None, &[]).await.is_empty());
}

#[tokio::test]
async fn a_stream_that_is_not_at_the_expected_version_is_a_conflict_that_names_both() {
    let (client, _database, store) = test_store().await;
    let events = [event("A", 1), event("B", 2)];
    let error = store
        .append("s", ExpectedVersion::Exact(1), &events)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VersionConflict);
    assert_eq!(error.sqlstate(), Some("HW001"));
    assert!(
        error
            .message()
            .contains("stream 's': expected version 1, found no stream"),
        "{error}"
    );

    store
        .append("s", ExpectedVersion::NoStream, &events)
        .await
        .unwrap();
    store
        .append("s", ExpectedVersion::Exact(2), &events)
        .await
        .unwrap();
    for wrong in [
        ExpectedVersion::NoStream,
        ExpectedVersion::Exact(2),
        ExpectedVersion::Exact(5),
    ] {
        let error = store.append("s", wrong, &events).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::VersionConflict);
        assert!(error.message().contains("found version 4"), "{error}");
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        4
    );
}

#[tokio::test]
async fn positions_follow_the_order_of_the_arrays_whatever_the_streams() {
    let (client, _database, _store) = test_store().await;
    let sql = "select position, version from highwater.append_all(array['z','a','m','a','z'], \
               array['A','B','C','D','E'], array['1','2','3','4','5']::jsonb[])";
    let rows = client.query(sql, &[]).await.unwrap();
    let places: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(places, [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]);
    let types: String = client
        .query_one(
            "select string_agg(type, '' order by position) from highwater.event",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(types, "ABCDE");
}

#[tokio::test]
async fn events_earlier_in_the_arrays_count_for_the_expected_version() {
    let (client, _database, _store) = test_store().await;
    let append = async |expected: &[Option<i64>]| {
        let sql = "select version from highwater.append_all(array['s','s','s'], array['A','B','C'], \
                   array['1','2','3']::jsonb[], null, null, $1)";
        client.query(sql, &[&expected]).await.map(|rows| rows.len())
    };
    assert_eq!(append(&[Some(0), Some(1), Some(2)]).await.unwrap(), 3);
    assert_eq!(append(&[None, Some(4), None]).await.unwrap(), 3);
    let error = append(&[Some(6), Some(6), None]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "HW001");
    assert_eq!(
        error.message(),
        "stream 's': expected version 6, found version 7"
    );
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        6
    );
}

#[tokio::test]
async fn an_event_that_cannot_be_stored_is_refused_with_the_reason() {
    let (client, _database, _store) = test_store().await;
    for (call, what) in [
        ("append(null, 'T', '{}')", "its stream is empty"),
        ("append('', 'T', '{}')", "its stream is empty"),
        ("append('s', '', '{}')", "its type is empty"),
        ("append('s', null, '{}')", "its type is empty"),
        (
            "append(repeat('s', 1025), 'T', '{}')",
            "its stream is longer",
        ),
        ("append('s', 'T', null)", "its data is null"),
        (
            "append('s', 'T', '{}', '[]')",
            "its metadata is not a JSON object",
        ),
        (
            "append('s', 'T', '{}', expected_version => -1)",
            "its expected version is below 0",
        ),
        (
            "append_all('{s,null}', '{T,T}', '{1,2}')",
            "its stream is empty",
        ),
        ("append_all('{s,s}', '{T}', '{1,2}')", "different lengths"),
        (
            "append_all('{s,s}', '{T,T}', '{1,2}', '{null}')",
            "different lengths",
        ),
        (
            "append_all('{s,s}', '{T,T}', '{1,2}', null, '{}')",
            "different lengths",
        ),
        (
            "append_all('{s,s}', '{T,T}', '{1,null}')",
            "its data is null",
        ),
        ("append_all(null, '{T,T}', '{1,2}')", "different lengths"),
    ] {
        let error = client
            .execute(&format!("select highwater.{call}"), &[])
            .await
            .unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "HW003", "{call}: {error}");
        assert!(error.message().contains(what), "{call}: {error}");
    }
    client
        .execute("select highwater.append('s', 'T', 'null', null)", &[])
        .await
        .unwrap();
    client
        .execute("select highwater.append_all('{}', '{}', '{}')", &[])
        .await
        .unwrap();
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        1
    );
}

#[tokio::test]
async fn a_plan_made_while_the_table_was_empty_never_scans_it() {
    let (client, _database, _store) = test_store().await;
    client
        .batch_execute("vacuum analyze highwater.event")
        .await
        .unwrap();
    let scans =
        "select seq_scan from pg_stat_xact_user_tables where relid = 'highwater.event'::regclass";
    client.batch_execute("begin").await.unwrap();
    let before = count(&client, scans).await;
    for n in 0..10_u128 {
        let id = Uuid::from_u128(n);
        let single = "select highwater.append('s', 'T', '1', id => $1)";
        let all =
            "select highwater.append_all('{s,t}', '{T,T}', '{1,2}', null, array[$1::uuid, null])";
        client.execute(single, &[&id]).await.unwrap();
        client.execute(single, &[&id]).await.unwrap();
        client.execute(all, &[&id]).await.unwrap();
    }
    assert_eq!(count(&client, scans).await, before);
}

#[tokio::test]
async fn a_plain_insert_is_an_append_like_any_other() {
    let (client, _database, store) = test_store().await;
    let insert =
        "insert into highwater.event (stream, version, type, data) values ('s', 1, 'T', '{}')";
    client.execute(insert, &[]).await.unwrap();
    let appended = store
        .append("s", ExpectedVersion::Exact(1), &[event("A", 1)])
        .await
        .unwrap();
    assert_eq!(appended.version(), Some(2));
}

#[tokio::test]
async fn an_append_in_a_transaction_that_is_rolled_back_leaves_nothing() {
    let (mut client, _database, store) = test_store().await;
    let transaction = client.transaction().await.unwrap();
    let events = [event("A", 1), event("B", 2)];
    let (appended, _wake) =
        EventStore::append_in(&transaction, "s", ExpectedVersion::NoStream, &events)
            .await
            .unwrap();
    assert_eq!(appended.version(), Some(2));
    transaction.rollback().await.unwrap();
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        0
    );

    let transaction = client.transaction().await.unwrap();
    let (_appended, wake) =
        EventStore::append_in(&transaction, "s", ExpectedVersion::NoStream, &events)
            .await
            .unwrap();
    transaction.commit().await.unwrap();
    wake.send(&store);
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        2
    );
}

#[tokio::test]
async fn appending_without_the_schema_says_what_to_run() {
    let (_client, database) = crate::database::empty_database().await;
    let error = event_store::in_database(database)
        .append("s", ExpectedVersion::Any, &[event("A", 1)])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert_eq!(error.hint(), Some("run highwater init"));
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_in_public_with_nearer_types_are_never_called() {
    let (client, _) = test_database().await;
    for function in [
        "format(text, text)",
        "format(text, bigint)",
        "format(text, text, text)",
        "format(text, text, text, text)",
        "format(text, text, bigint, bigint)",
        "cardinality(text[])",
        "cardinality(jsonb[])",
        "hashtextextended(text, integer)",
        "array_fill(jsonb, integer[])",
        "nextval(text)",
        "unnest(text[])",
        "unnest(bigint[])",
    ] {
        let create = format!(
            "create function public.{function} returns text language plpgsql as \
             $$ begin raise exception 'called'; end $$"
        );
        client.batch_execute(&create).await.unwrap();
    }
    for (sql, error) in [
        ("select highwater.append('s', 'T', '{}')", None),
        (
            "select highwater.append('s', 'T', '{}', expected_version => 7)",
            Some("HW001"),
        ),
        ("select highwater.append('', 'T', '{}')", Some("HW003")),
        (
            "select * from highwater.append_all('{s,t}', '{T,T}', array['{}', '1']::jsonb[])",
            None,
        ),
        (
            "select * from highwater.append_all('{s,t}', '{T,T}', array['{}', '1']::jsonb[],
                 null, null, '{9,9}')",
            Some("HW001"),
        ),
        ("select highwater.wake()", None),
    ] {
        let done = client.batch_execute(sql).await;
        let found = done.as_ref().err().and_then(|e| e.code()).map(|c| c.code());
        assert_eq!(found, error, "{sql}: {done:?}");
    }
}
