//! Appending: versions, positions, idempotency, conflicts, wakes; from Rust and from SQL.

use highwater::pg::database::Database;
use highwater::{ErrorKind, EventStore, ExpectedVersion, NewEvent, Position};
use serde_json::json;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};
use uuid::Uuid;

use crate::database::test_database;

pub(crate) async fn test_store() -> (Client, Database, EventStore) {
    let (client, database) = test_database().await;
    let store = EventStore::new(database.clone());
    (client, database, store)
}

fn event(event_type: &str, n: i64) -> NewEvent {
    NewEvent::new(event_type, &json!({ "n": n })).unwrap()
}

pub(crate) async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Versions start at 1 and have no hole, in every stream, in the order of positions.
async fn assert_dense(client: &Client) {
    let wrong = count(
        client,
        "select count(*) from (select version, row_number() over (partition by stream order by \
         position) as expected from highwater.event) as e where version <> expected",
    )
    .await;
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn events_are_recorded_as_they_were_given() {
    let (_client, _database, store) = test_store().await;
    let id = Uuid::from_u128(7);
    let placed = NewEvent {
        data: serde_json::value::RawValue::from_string("[1.00, 12345678901234567890]".into())
            .unwrap(),
        ..event("Placed", 0)
    };
    let placed = placed
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
    assert_eq!(error.code(), Some("HW001"));
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
async fn of_many_writers_that_expect_the_same_version_one_wins() {
    let (client, _database, store) = test_store().await;
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .append("s", ExpectedVersion::NoStream, &[event("A", n)])
                    .await
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::VersionConflict, "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_writers_append_to_few_streams_and_none_fails_or_is_lost() {
    let (client, _database, store) = test_store().await;
    let tasks: Vec<_> = (0..16_i64)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..25 {
                    let stream = format!("s-{}", (writer + round) % 3);
                    let events = [event("A", writer), event("B", round)];
                    store
                        .append(&stream, ExpectedVersion::Any, &events)
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        16 * 25 * 2
    );
    assert_dense(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_to_the_same_streams_in_other_orders_neither_deadlock_nor_fail() {
    let (client, database, _store) = test_store().await;
    let tasks: Vec<_> = (0..12)
        .map(|writer| {
            let database = database.clone();
            tokio::spawn(async move {
                let session = database.client().await.unwrap();
                let streams = if writer % 2 == 0 {
                    ["a", "b", "c"]
                } else {
                    ["c", "b", "a"]
                };
                for _ in 0..20 {
                    let all = "select highwater.append_all($1, '{T,T,T}', '{1,2,3}')";
                    session.execute(all, &[&streams.as_slice()]).await.unwrap();
                    let single = "select highwater.append($1, 'T', '{}')";
                    session.execute(single, &[&streams[0]]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        12 * 20 * 4
    );
    assert_dense(&client).await;
}

#[tokio::test]
async fn the_same_id_with_the_same_content_is_the_same_append() {
    let (client, _database, store) = test_store().await;
    let events = [
        event("A", 1).with_id(Uuid::from_u128(1)),
        event("B", 2).with_id(Uuid::from_u128(2)),
    ];
    let first = store
        .append("s", ExpectedVersion::NoStream, &events)
        .await
        .unwrap();
    store
        .append("s", ExpectedVersion::Any, &[event("C", 3)])
        .await
        .unwrap();

    for expected in [ExpectedVersion::NoStream, ExpectedVersion::Any] {
        let again = store.append("s", expected, &events).await.unwrap();
        assert!(again.events.iter().all(|event| event.duplicate));
        assert_eq!((again.first(), again.last()), (None, None));
        for (a, b) in again.events.iter().zip(&first.events) {
            assert_eq!((a.position, a.version), (b.position, b.version));
        }
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        3
    );
}

#[tokio::test]
async fn an_id_twice_in_one_append_is_stored_once() {
    let (client, _database, store) = test_store().await;
    let twin = event("A", 1).with_id(Uuid::from_u128(1));
    let events = [twin.clone(), event("B", 2), twin];
    let appended = store
        .append("s", ExpectedVersion::Any, &events)
        .await
        .unwrap();
    let versions: Vec<_> = appended
        .events
        .iter()
        .map(|e| (e.position.get(), e.version, e.duplicate))
        .collect();
    assert_eq!(versions, [(1, 1, false), (2, 2, false), (1, 1, true)]);
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        2
    );
}

#[tokio::test]
async fn an_id_with_other_content_is_refused_and_the_error_says_what_differs() {
    let (client, _database, store) = test_store().await;
    let id = Uuid::from_u128(1);
    store
        .append("s", ExpectedVersion::Any, &[event("A", 1).with_id(id)])
        .await
        .unwrap();
    let cases = [
        (
            "t",
            ExpectedVersion::Any,
            event("A", 1),
            "stream is 's', not 't'",
        ),
        (
            "s",
            ExpectedVersion::Any,
            event("B", 1),
            "type is 'A', not 'B'",
        ),
        ("s", ExpectedVersion::Any, event("A", 2), "data differs"),
        (
            "s",
            ExpectedVersion::Any,
            event("A", 1).with_metadata(&json!({"a": 1})).unwrap(),
            "metadata differs",
        ),
        (
            "s",
            ExpectedVersion::Exact(1),
            event("A", 1),
            "version is 1, not 2",
        ),
    ];
    for (stream, expected, other, what) in cases {
        let error = store
            .append(stream, expected, &[other.with_id(id)])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IdConflict, "{error}");
        assert!(
            error
                .message()
                .contains(&format!("event id {id} is there already")),
            "{error}"
        );
        assert!(error.message().contains("at position 1"), "{error}");
        assert!(error.message().contains(what), "{error}");
    }
    let twins = [
        event("A", 1).with_id(Uuid::from_u128(2)),
        event("A", 2).with_id(Uuid::from_u128(2)),
    ];
    let error = store
        .append("s", ExpectedVersion::Any, &twins)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IdConflict, "{error}");
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_appended_by_many_at_once_is_stored_once() {
    let (client, database, store) = test_store().await;
    for round in 1..=10_u128 {
        let tasks: Vec<_> = (0..8)
            .map(|writer| {
                let (store, database) = (store.clone(), database.clone());
                tokio::spawn(async move {
                    let id = Uuid::from_u128(round);
                    if writer % 2 == 0 {
                        let events = [event("A", 1).with_id(id)];
                        let appended = store
                            .append("s", ExpectedVersion::Any, &events)
                            .await
                            .unwrap();
                        return appended.events[0].position.get();
                    }
                    let session = database.client().await.unwrap();
                    let single = "select highwater.append('s', 'A', '{\"n\": 1}', id => $1)";
                    session.query_one(single, &[&id]).await.unwrap().get(0)
                })
            })
            .collect();
        let mut positions = Vec::new();
        for task in tasks {
            positions.push(task.await.unwrap());
        }
        assert!(
            positions.iter().all(|position| *position == positions[0]),
            "{positions:?}"
        );
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        10
    );
    assert_dense(&client).await;
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
async fn under_repeatable_read_a_lost_race_is_the_serialization_failure_of_the_server() {
    let (mut client, database, store) = test_store().await;
    for sql in [
        "select highwater.append('s', 'T', '{}')",
        "select highwater.append_all('{s}', '{T}', '{1}')",
    ] {
        let transaction = client
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .start()
            .await
            .unwrap();
        transaction
            .query("select count(*) from highwater.event", &[])
            .await
            .unwrap();
        store
            .append("s", ExpectedVersion::Any, &[event("A", 1)])
            .await
            .unwrap();
        let error = transaction.execute(sql, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "40001", "{sql}");
    }
    // A session whose default it is looks again by itself.
    let name = database.connector().database();
    let set =
        format!("alter database {name} set default_transaction_isolation = 'repeatable read'");
    client.batch_execute(&set).await.unwrap();
    let fresh = EventStore::new(Database::new(database.connector().clone(), 4).unwrap());
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let store = fresh.clone();
            tokio::spawn(async move {
                store
                    .append("r", ExpectedVersion::Any, &[event("A", n)])
                    .await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(
        count(
            &client,
            "select count(*) from highwater.event where stream = 'r'"
        )
        .await,
        4
    );
}

#[tokio::test]
async fn appending_without_the_schema_says_what_to_run() {
    let (_client, database) = crate::database::empty_database().await;
    let error = EventStore::new(database)
        .append("s", ExpectedVersion::Any, &[event("A", 1)])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert_eq!(error.what_to_do(), Some("run highwater init"));
}

/// What arrives on the channel of wakes of `database`.
async fn listen(database: &Database) -> (Client, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let url = std::env::var("HIGHWATER_TEST_DATABASE_URL").unwrap();
    let mut config: Config = url.parse().unwrap();
    config.dbname(database.connector().database());
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message
                && sender.send(notification.payload().to_owned()).is_err()
            {
                return;
            }
        }
    });
    client.batch_execute("listen highwater_wake").await.unwrap();
    (client, receiver)
}

#[tokio::test]
async fn wakes_that_wait_become_one_that_names_the_last_position() {
    let (mut client, database) = test_database().await;
    let (_listener, mut wakes) = listen(&database).await;
    let narrow = Database::new(database.connector().clone(), 1).unwrap();
    let store = EventStore::new(narrow.clone());
    let session = narrow.client().await.unwrap();
    for n in 0..10 {
        let transaction = client.transaction().await.unwrap();
        let events = [event("A", n)];
        let (_, wake) = EventStore::append_in(&transaction, "s", ExpectedVersion::Any, &events)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        wake.send(&store);
    }
    drop(session);
    store.wakes_sent().await;
    assert_eq!(wakes.recv().await.unwrap(), "1");
    assert_eq!(wakes.recv().await.unwrap(), "10");
    assert!(wakes.try_recv().is_err());
}

#[tokio::test]
async fn an_append_wakes_after_its_commit() {
    let (client, database, store) = test_store().await;
    let (_listener, mut wakes) = listen(&database).await;
    for expected in ["1", "2"] {
        store
            .append("s", ExpectedVersion::Any, &[event("A", 1)])
            .await
            .unwrap();
        assert_eq!(wakes.recv().await.unwrap(), expected);
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        2
    );
}

#[tokio::test]
async fn an_append_sends_no_wake_inside_its_transaction() {
    let (mut client, database, store) = test_store().await;
    let (_listener, mut wakes) = listen(&database).await;
    client
        .execute("select highwater.append('s', 'T', '{}')", &[])
        .await
        .unwrap();
    let transaction = client.transaction().await.unwrap();
    let (_, wake) =
        EventStore::append_in(&transaction, "s", ExpectedVersion::Any, &[event("A", 1)])
            .await
            .unwrap();
    transaction.commit().await.unwrap();
    client
        .execute("select highwater.wake()", &[])
        .await
        .unwrap();
    wake.send(&store);
    store.wakes_sent().await;
    assert_eq!(wakes.recv().await.unwrap(), "");
    assert_eq!(wakes.recv().await.unwrap(), "2");
    assert!(wakes.try_recv().is_err());
}
