//! `init`, and that what it makes works.

use std::fs;

use highwater::testing::TestDatabase;
use serde_json::json;

use super::{Shop, read};
use crate::support::one;

#[tokio::test(flavor = "multi_thread")]
async fn what_init_makes_runs_and_a_second_init_keeps_it() {
    let shop = Shop::new();
    let database = TestDatabase::empty().await;
    let url = Some(database.url());
    let ran = shop.run(url, &["init"]).await;
    ran.expect(0);
    for line in [
        "created highwater.toml\n",
        "created projections/streams.sql\n",
        "created projections/streams.test.toml\n",
        "created schema highwater in database ",
    ] {
        assert!(ran.stdout.contains(line), "{ran:?}");
    }
    let events = "{\"stream\":\"a\",\"type\":\"T\",\"data\":1}\n".repeat(3);
    shop.run_with(url, &["append"], &events).await.expect(0);
    shop.run(url, &["run", "--until-caught-up"]).await.expect(0);
    let client = database.client().await;
    let sql = "select events from streams.streams where stream = 'a' and type = 'T'";
    assert_eq!(one::<i64>(&client, sql).await, 3);

    shop.run(url, &["test"]).await.expect(0);

    shop.write("highwater.toml", "# mine\n");
    fs::remove_file(shop.dir().join("projections/streams.test.toml")).unwrap();
    let ran = shop.run(url, &["init", "--json"]).await;
    let result = ran.expect(0).json();
    assert_eq!(result["created"], json!([]));
    assert_eq!(result["kept"], json!(["highwater.toml", "projections"]));
    assert_eq!(result["migrations"], json!([]));
    assert_eq!(read(&shop.dir().join("highwater.toml")), "# mine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_to_is_named() {
    let shop = Shop::new();
    let database = TestDatabase::empty().await;
    shop.write("projections", "a file of that name");
    let ran = shop.run(Some(database.url()), &["init"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (1, "created highwater.toml\n"),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .starts_with("error: projections: cannot read the directory: "),
        "{ran:?}"
    );
}
