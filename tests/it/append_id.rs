//! Ids: the same event again is the same append, another one under its id is refused.

use highwater::{ErrorKind, ExpectedVersion};
use serde_json::json;
use uuid::Uuid;

use crate::append::{count, event, test_store};

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
