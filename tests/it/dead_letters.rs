//! Dead letters from outside: list, show, retry, discard.

use highwater::internal::dead_letters::{self, Selection};
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, ProjectionName};
use tokio_postgres::Client;

use crate::support::{COUNTS, append_rows, one, run_to_head, sql_projection};

const LIMIT: i64 = 100;

fn counts() -> ProjectionName {
    "counts".parse().unwrap()
}

/// A read model at 9 with three dead letters of the key `a` (2, 4, 7), one of `b` (3) and one of
/// the key null (5), as the engine writes them.
async fn parked(database: &TestDatabase) -> Client {
    let client = database.client().await;
    append_rows(&client, "s", 1..=9).await;
    let projection = vec![sql_projection("counts", COUNTS)];
    let run = run_to_head(database, database.source(), projection);
    run.await.unwrap();
    let letters = r#"
        insert into highwater.dead_letter (projection, generation, position, key, id,
                    stream, version, type, data, metadata, recorded_at, error, fingerprint, attempts)
        select 'counts', 1, e.position, l.key, e.id, e.stream, e.version, e.type, e.data,
               e.metadata, e.recorded_at, l.error, l.fingerprint, (l.error is not null)::integer
          from highwater.event e
          join (values (2, 'a', '{"kind": "apply", "message": "no"}'::jsonb, 'f1'), (4, 'a', null, null),
                       (7, 'a', null, null), (3, 'b', '{"kind": "apply", "message": "no"}', 'f1'),
                       (5, null, '{"kind": "apply", "message": "never"}', 'f2')
               ) l (position, key, error, fingerprint) using (position);
        update highwater.checkpoint
           set parking = 3"#;
    client.batch_execute(letters).await.unwrap();
    client
}

/// How many dead letters there are, how many were discarded, and how often the parked keys have changed.
async fn totals(client: &Client) -> (i64, i64, i64) {
    let sql = "select (select count(*) from highwater.dead_letter),
                      (select count(*) from highwater.discarded), parking from highwater.checkpoint";
    let row = client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_are_listed_with_what_they_wait_for_and_alike_errors_together() {
    let database = TestDatabase::new().await;
    let _client = parked(&database).await;
    let target = database.pooled();
    let listed = dead_letters::by_key(&target, &counts(), &Selection::All, LIMIT)
        .await
        .unwrap();
    assert_eq!((listed.parked_keys, listed.dead_letters), (3, 5));
    let keys = listed.shown.keys.iter().map(|k| {
        (
            k.first.key.as_deref(),
            k.dead_letters,
            k.first.position.get(),
            k.first.fingerprint.as_deref(),
        )
    });
    let expected = [
        (Some("a"), 3, 2, Some("f1")),
        (Some("b"), 1, 3, Some("f1")),
        (None, 1, 5, Some("f2")),
    ];
    assert_eq!(keys.collect::<Vec<_>>(), expected);

    let listed = dead_letters::by_error(&target, &counts(), &Selection::All, LIMIT)
        .await
        .unwrap();
    let errors = listed.shown.errors.iter().map(|e| {
        (
            e.first.fingerprint.as_deref(),
            e.parked_keys,
            e.dead_letters,
            e.first.position.get(),
        )
    });
    let expected = [(Some("f1"), 2, 4, 2), (Some("f2"), 1, 1, 5)];
    assert_eq!(errors.collect::<Vec<_>>(), expected);

    let cut = dead_letters::by_key(&target, &counts(), &Selection::All, 1)
        .await
        .unwrap();
    assert_eq!((cut.parked_keys, cut.dead_letters), (3, 5));
    assert_eq!(cut.shown.keys.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_shown_with_its_event_and_how_many_of_its_key_follow() {
    let database = TestDatabase::new().await;
    let client = parked(&database).await;
    let target = database.pooled();
    let id = one(&client, "select id from highwater.event where position = 4").await;
    let shown = dead_letters::show(&target, &counts(), &Selection::Event(id), LIMIT)
        .await
        .unwrap();
    let full = &shown.shown[0];
    assert_eq!((shown.dead_letters, full.before, full.behind), (1, 1, 1));
    assert_eq!(full.event.data.get(), "{\"n\": 4}");
    let dead_letter = &full.dead_letter;
    assert_eq!(
        (dead_letter.error.as_ref(), dead_letter.attempts),
        (None, 0)
    );

    let null = dead_letters::show(&target, &counts(), &Selection::Key(None), LIMIT)
        .await
        .unwrap();
    assert_eq!(null.shown.len(), 1, "the key null is a key like any other");
    assert_eq!(null.shown[0].event.position.get(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_requested_for_whole_keys_whichever_dead_letter_is_named() {
    let database = TestDatabase::new().await;
    let client = parked(&database).await;
    let target = database.pooled();
    let id = one(&client, "select id from highwater.event where position = 7").await;
    let requested = dead_letters::retry(&target, &counts(), &Selection::Event(id))
        .await
        .unwrap();
    assert_eq!((requested.parked_keys, requested.dead_letters), (1, 3));
    assert!(!requested.is_run, "nobody runs it");
    let asked = "select array_agg(position order by position) from highwater.dead_letter
                  where retry_requested_at is not null";
    assert_eq!(one::<Vec<i64>>(&client, asked).await, [2, 4, 7]);

    let alike = Selection::Fingerprint("f2".to_owned());
    let requested = dead_letters::retry(&target, &counts(), &alike)
        .await
        .unwrap();
    assert_eq!((requested.parked_keys, requested.dead_letters), (1, 1));
    assert_eq!(one::<Vec<i64>>(&client, asked).await, [2, 4, 5, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_recorded_and_what_follows_it_stays_parked() {
    let database = TestDatabase::new().await;
    let client = parked(&database).await;
    let target = database.pooled();
    let id = one(&client, "select id from highwater.event where position = 2").await;
    let discarded = dead_letters::discard(&target, &counts(), &Selection::Event(id), "a typo")
        .await
        .unwrap();
    let (left, keys) = (discarded.left_behind, discarded.still_parked_keys);
    assert_eq!((discarded.discarded, left, keys), (1, 2, 1));
    assert_eq!(
        totals(&client).await,
        (4, 1, 3),
        "the key is parked as before, so nobody's picture of the parked keys is stale"
    );
    let record = "select format('%s %s %s %s %s', position, key, id, reason, error->>'message')
                    from highwater.discarded";
    let expected = format!("2 a {id} a typo no");
    assert_eq!(one::<String>(&client, record).await, expected);

    let key = Selection::Key(Some("a".to_owned()));
    let rest = dead_letters::discard(&target, &counts(), &key, "all of it")
        .await
        .unwrap();
    assert_eq!((rest.discarded, rest.left_behind), (2, 0));
    assert_eq!(totals(&client).await, (2, 3, 4), "now the key is free");

    let rest = dead_letters::discard(&target, &counts(), &Selection::All, "enough")
        .await
        .unwrap();
    assert_eq!(rest.discarded, 2);
    assert_eq!(totals(&client).await, (0, 5, 6));
    assert_eq!(dead_letters::counts(&target).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_dead_letter_is_an_error_and_nothing_parked_is_none() {
    let database = TestDatabase::new().await;
    let client = parked(&database).await;
    let target = database.pooled();
    let none = Selection::Key(Some("c".to_owned()));
    for error in [
        dead_letters::by_key(&target, &counts(), &none, LIMIT)
            .await
            .unwrap_err(),
        dead_letters::show(&target, &counts(), &none, LIMIT)
            .await
            .unwrap_err(),
        dead_letters::retry(&target, &counts(), &none)
            .await
            .unwrap_err(),
        dead_letters::discard(&target, &counts(), &none, "x")
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(
            error.message().contains("no dead letter of the key \"c\""),
            "{error}"
        );
    }
    let all = Selection::All;
    let error = dead_letters::discard(&target, &counts(), &all, " ")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    let unknown = "count".parse().unwrap();
    let error = dead_letters::by_key(&target, &unknown, &all, LIMIT)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("did you mean counts?"),
        "{error}"
    );
    client
        .batch_execute("delete from highwater.dead_letter")
        .await
        .unwrap();
    let requested = dead_letters::retry(&target, &counts(), &all).await.unwrap();
    assert_eq!(requested.dead_letters, 0);
}
