//! Wakes: after the commit, coalesced, and never inside an append.

use highwater::internal::event_store;
use highwater::internal::pg::connect::Notifications;
use highwater::internal::pg::database::Database;
use highwater::{EventStore, ExpectedVersion};
use tokio_postgres::Client;

use crate::append::{count, event, test_store};
use crate::database::test_database;

async fn listen(database: &Database) -> Notifications {
    database.connector().listen("highwater_wake").await.unwrap()
}

async fn assert_no_more(client: &Client, wakes: &mut Notifications) {
    client
        .batch_execute("notify highwater_wake, 'end'")
        .await
        .unwrap();
    assert_eq!(wakes.recv().await.unwrap().as_deref(), Some("end"));
}

#[tokio::test]
async fn wakes_that_wait_become_one_that_names_the_last_position() {
    let (mut client, database) = test_database().await;
    let mut wakes = listen(&database).await;
    let narrow = Database::new(database.connector().clone(), 1).unwrap();
    let store = event_store::in_database(narrow.clone());
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
    assert_eq!(wakes.recv().await.unwrap().as_deref(), Some("1"));
    assert_eq!(wakes.recv().await.unwrap().as_deref(), Some("10"));
    assert_no_more(&client, &mut wakes).await;
}

#[tokio::test]
async fn an_append_wakes_after_its_commit() {
    let (client, database, store) = test_store().await;
    let mut wakes = listen(&database).await;
    for expected in ["1", "2"] {
        store
            .append("s", ExpectedVersion::Any, &[event("A", 1)])
            .await
            .unwrap();
        assert_eq!(wakes.recv().await.unwrap().as_deref(), Some(expected));
    }
    assert_eq!(
        count(&client, "select count(*) from highwater.event").await,
        2
    );
}

#[tokio::test]
async fn an_append_sends_no_wake_inside_its_transaction() {
    let (mut client, database, store) = test_store().await;
    let mut wakes = listen(&database).await;
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
    assert_eq!(wakes.recv().await.unwrap(), None);
    assert_eq!(wakes.recv().await.unwrap().as_deref(), Some("2"));
    assert_no_more(&client, &mut wakes).await;
}
