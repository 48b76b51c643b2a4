//! Writers that append at the same time: none fails, none is lost, none waits in a circle.

use highwater::internal::event_store;
use highwater::internal::pg::database::Database;
use highwater::{ErrorKind, ExpectedVersion};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::append::{count, event, test_store};

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
    let fresh = event_store::in_database(Database::new(database.connector().clone(), 4).unwrap());
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
