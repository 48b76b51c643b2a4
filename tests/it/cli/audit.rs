//! `audit`.

use highwater::testing::TestDatabase;

use super::Shop;
use crate::support::append_rows;

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_ends_with_0_where_all_agrees_and_with_1_where_not() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "a", 1..=10).await;
    let url = Some(database.url());
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    shop.run(url, &["audit"]).await.expect(0);
    let ran = shop.run(url, &["audit"]).await;
    let text = "source default: 10 events in 1 blocks are unchanged\n\
                counts: no event that it has read has changed, up to 10\n";
    assert_eq!(ran.expect(0).stdout, text);
    let unseen = "alter table highwater.event disable trigger user;
                  delete from highwater.event where position = 4;
                  alter table highwater.event enable trigger user";
    client.batch_execute(unseen).await.unwrap();
    let ran = shop.run(url, &["audit", "counts", "--json"]).await;
    let json = ran.expect(1).json();
    assert_eq!(json["agrees"], false);
    let change = &json["projections"][0]["changes"][0];
    assert_eq!(
        (&change["events_before"], &change["events_now"]),
        (&10.into(), &9.into())
    );
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
