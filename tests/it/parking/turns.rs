//! Parking and retries beside everything else that a process and a partition have to do.

use highwater::pg::connect::Connector;
use highwater::pg::database::Database;

use super::*;

/// All that a process has are these sessions.
fn sessions(database: &TestDatabase, most: usize) -> Database {
    Database::new(Connector::parse(database.url()).unwrap(), most).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_one_session_for_batches_parks_and_goes_on() {
    for most in [1, 2] {
        let (database, client) = log(4, &[8, 14]).await;
        let engine = Engine::new(sessions(&database, most), Settings::default())
            .source(database.source())
            .projection(applied("partitions = 2"));
        let running = engine.run(Until::CaughtUp, CancellationToken::new());
        let report = tokio::time::timeout(LIMIT, running).await;
        caught_up(&report.expect("it waits for a turn").unwrap());
        assert_eq!(letters(&client).await, [8, 13, 14, 18, 19]);
        is_in_order(&client).await;
    }
}
