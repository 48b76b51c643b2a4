//! The databases that tests are given.

use highwater::testing::TestDatabase;

use crate::support;

#[tokio::test]
async fn each_test_database_is_another_one_on_the_same_server() {
    let (one, two) = tokio::join!(TestDatabase::new(), TestDatabase::empty());
    assert_ne!(one.url(), two.url());
    let client = one.client().await;
    client
        .batch_execute("create table only_here ()")
        .await
        .unwrap();
    assert!(
        two.client()
            .await
            .batch_execute("table only_here")
            .await
            .is_err()
    );
    let prepared = "select current_setting('max_prepared_transactions')";
    assert_eq!(support::one::<String>(&client, prepared).await, "50");
    assert!(one.cluster_url("postgres").contains("/postgres?host="));
}

#[test]
fn the_test_server_outlives_the_runtime_that_asked_first() {
    for _ in 0..2 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let database = TestDatabase::new().await;
            database
                .client()
                .await
                .simple_query("select 1")
                .await
                .unwrap();
        });
    }
}
