//! `audit`.

use highwater::testing::TestDatabase;

use super::Shop;
use crate::support::{append_rows, one};

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_ends_with_0_where_all_agrees_and_with_1_where_not() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=10).await;
    let url = Some(database.url());
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    assert_eq!(
        one::<i64>(&client, "select scanned from highwater.checkpoint").await,
        10
    );
    let ran = shop.run(url, &["audit"]).await;
    let text = "counts: positions (0, 10], 10 scanned = 10 applied + 0 filtered + 0 parked + \
                0 discarded: as the log says\n";
    assert_eq!(ran.expect(0).stdout, text);
    client
        .batch_execute("update highwater.checkpoint set scanned = 11, filtered = 1")
        .await
        .unwrap();
    let ran = shop.run(url, &["audit", "counts", "--json"]).await;
    let json = ran.expect(1).json();
    assert_eq!(json["agrees"], false);
    assert_eq!(json["ledgers"][0]["differences"][0]["kind"], "gone");
    for command in ["audit", "pause", "resume", "drop"] {
        let ran = shop.run(url, &[command, "count"]).await;
        ran.expect_error(2, "unknown projection \"count\"");
        assert!(ran.stderr.contains("did you mean counts?"), "{ran:?}");
    }
    // One that has a file and no read model is known.
    shop.run(url, &["drop", "counts"]).await.expect(0);
    let ran = shop.run(url, &["audit", "counts"]).await;
    ran.expect_error(1, "has no read model here");
}
