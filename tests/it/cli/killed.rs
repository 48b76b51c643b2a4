//! `highwater run`, killed again and again in the catch-up of the real history.

use highwater::testing::TestDatabase;
use tokio_postgres::Client;

use super::{LIMIT, Shop};
use crate::support::{Random, eventually, one};

const SHIPPED: [(&str, &str); 3] = [
    ("files", include_str!("../../../projections/files.sql")),
    ("authors", include_str!("../../../projections/authors.sql")),
    (
        "hotspots",
        include_str!("../../../projections/hotspots.sql"),
    ),
];

const TABLES: [&str; 5] = [
    "files.files",
    "authors.authors",
    "hotspots.hotspots",
    "hotspots.hotspot_pairs",
    "hotspots.unfinished_commits",
];

async fn contents(client: &Client) -> Vec<String> {
    let mut contents = Vec::new();
    for table in TABLES {
        let sql = format!(
            "select '{table} ' || count(*) || ' ' ||
                    coalesce(md5(string_agg(t::text, '|' order by t::text)), '')
               from {table} t"
        );
        contents.push(one(client, &sql).await);
    }
    contents
}

/// A project with the shipped projections, whose batches are small, on a database with the history.
async fn shop(database: &TestDatabase) -> Shop {
    let shop = Shop::new();
    for (name, text) in SHIPPED {
        shop.write(&format!("projections/{name}.sql"), text);
    }
    shop.write(
        "highwater.toml",
        "[engine]\nbatch_events_max = 100\nlease = \"1s\"\n",
    );
    let history = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tokio-history.ndjson.gz");
    let appended = shop.run(Some(database.url()), &["append", history]).await;
    appended.expect(0);
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn run_killed_at_fifty_moments_of_a_catch_up_leaves_what_an_undisturbed_run_leaves() {
    let to_the_head = ["run", "--until-caught-up"];
    let calm = TestDatabase::new().await;
    let undisturbed = shop(&calm).await;
    undisturbed
        .run(Some(calm.url()), &to_the_head)
        .await
        .expect(0);

    let database = TestDatabase::new().await;
    let shop = shop(&database).await;
    let client = database.client().await;
    let mut random = Random::new(Random::seed());
    let sum = "select coalesce(sum(position), 0)::bigint from highwater.checkpoint";
    for _ in 0..50 {
        let mut run = shop.start(Some(database.url()), &["run"]);
        let before: i64 = one(&client, sum).await;
        // Between its first commit and some later ones; 0 is in the middle of the start.
        let wanted = before + i64::try_from(random.below(1_400)).unwrap();
        eventually("the run gets further", LIMIT, async || {
            one::<i64>(&client, sum).await >= wanted
        })
        .await;
        run.child.kill().await.unwrap();
    }
    let behind = "select count(*) from highwater.checkpoint where position < 24935";
    assert!(one::<i64>(&client, behind).await > 0, "not in the catch-up");
    shop.run(Some(database.url()), &to_the_head).await.expect(0);
    let expected = contents(&calm.client().await).await;
    assert_eq!(contents(&client).await, expected);
}
