//! `highwater dead-letters` as its users see it.

use highwater::testing::TestDatabase;

use super::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_retried_and_discarded_from_the_command_line() {
    let database = TestDatabase::new().await;
    let shop = Shop::new();
    shop.write_counts();
    let url = Some(database.url());
    let run = async |arguments: &[&str]| shop.run(url, arguments).await;
    let events = "{\"stream\":\"s\",\"type\":\"T\",\"data\":{}}\n".repeat(3);
    shop.run_with(url, &["append", "-"], &events)
        .await
        .expect(0);
    run(&["run", "--until-caught-up"]).await.expect(0);
    let nothing = run(&["dead-letters", "list", "counts"]).await;
    assert_eq!(nothing.expect(0).stdout, "counts: nothing is parked\n");

    let letters = r#"
        insert into highwater.dead_letter (projection, generation, position, key, layout, partition, id,
                    stream, version, type, data, metadata, recorded_at, error, fingerprint, attempts)
        select 'counts', 1, position, '-k', 1, 0, id, stream, version, type, data, metadata,
               recorded_at, '{"kind": "apply", "message": "division by zero", "sqlstate": "22012"}',
               'f1', 1
          from highwater.event;
        update highwater.checkpoint
           set parking = 3, counted_from = 0, scanned = 3, applied = 0, filtered = 0, parked = 3"#;
    database
        .client()
        .await
        .batch_execute(letters)
        .await
        .unwrap();
    let list = run(&["dead-letters", "list", "counts"]).await;
    for text in [
        "3 events of 1 key",
        "key \"-k\"",
        "division by zero (SQLSTATE 22012)",
        "f1",
    ] {
        assert!(list.expect(0).stdout.contains(text), "{text}: {list:?}");
    }
    let list = run(&["dead-letters", "list", "counts", "--by-error", "--json"]).await;
    assert_eq!(list.expect(0).json()["errors"][0]["dead_letters"], 3);
    let show = run(&["dead-letters", "show", "counts", "--key", "-k"]).await;
    assert!(
        show.expect(0).stdout.contains("behind   2 events"),
        "{show:?}"
    );
    let show = run(&["dead-letters", "show", "counts", "--key", "-k", "--json"]).await;
    let event = &show.json()["letters"][0]["event"];
    assert_eq!(
        (&event["position"], &event["type"]),
        (&1.into(), &"T".into())
    );

    let status = run(&["status"]).await;
    let told = "counts: 1 key is parked with 3 events; highwater dead-letters list counts";
    assert!(status.stdout.contains(told), "{status:?}");
    let status = run(&["status", "--json"]).await.json();
    let projection = &status["projections"][0];
    assert_eq!(projection["parked_keys"], 1);
    assert_eq!(projection["dead_letters"], 3);

    run(&["dead-letters", "retry", "counts"])
        .await
        .expect_error(2, "it is not said which");
    run(&["dead-letters", "show", "counts", "--null-key"])
        .await
        .expect_error(2, "of the key null");
    run(&["dead-letters", "list", "count"])
        .await
        .expect_error(2, "did you mean counts");
    let retry = run(&["dead-letters", "retry", "counts", "--fingerprint", "f1"]).await;
    let told = "counts: 3 events of 1 key will be tried again in order, by the next highwater run";
    assert!(retry.expect(0).stdout.starts_with(told), "{retry:?}");
    run(&["dead-letters", "discard", "counts", "--all"])
        .await
        .expect(2);
    let id = event["id"].as_str().unwrap();
    let why = "--reason=sent by mistake";
    let discard = run(&["dead-letters", "discard", "counts", "--event", id, why]).await;
    let told = "counts: 1 event discarded\ncounts: 2 events of 1 key stay parked behind";
    assert!(discard.expect(0).stdout.starts_with(told), "{discard:?}");
    let discard = run(&["dead-letters", "discard", "counts", "--all", why, "--json"]).await;
    assert_eq!(discard.expect(0).json()["discarded"], 2);
}
