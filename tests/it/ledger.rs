//! The ledger: what was scanned is what was applied, filtered, parked or discarded.

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::engine::rebuild::{Rebuild, Rebuilt, accept};
use highwater::internal::engine::{Engine, Settings, Until};
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{Coded, Projection, Runnable};
use highwater::internal::source::Batch;
use highwater::testing::{MemorySource, TestDatabase, run_to_head};
use highwater::{BoxError, NewEvent, Outcome, Result};
use serde_json::json;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{COUNTS, Random, append_rows, one, sql_projection};

/// Scanned, applied, filtered, parked and discarded of the one live partition.
type Ledger = (i64, i64, i64, i64, i64);

async fn ledger(client: &Client) -> Ledger {
    let sql = "select scanned, applied, filtered, parked, discarded
               from highwater.checkpoint c join highwater.projection p
                 on p.name = c.projection and p.generation = c.generation";
    let row = client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

/// The same, recounted: `own` are the events of the projection.
async fn recounted(client: &Client, own: &str) -> Ledger {
    let sql = format!(
        "select count(*), count(*) filter (where {own})
         from highwater.event e, highwater.checkpoint c join highwater.projection p
           on p.name = c.projection and p.generation = c.generation
         where e.position > c.counted_from and e.position <= c.position"
    );
    let row = client.query_one(&sql, &[]).await.unwrap();
    let (scanned, own): (i64, i64) = (row.get(0), row.get(1));
    (scanned, own, scanned - own, 0, 0)
}

const ODD: &str = "/* highwater
events = [\"Odd\"]
*/
-- highwater: up
create table seen (position bigint primary key, n int not null);
-- highwater: apply
insert into seen select position, 100 / (data->>'n')::int from batch;
";

/// Writers that commit and roll back beside each other, with events of two types.
async fn storm(database: &TestDatabase, seed: u64, rounds: u64) {
    let writers = (0..4).map(|writer| {
        let url = database.url().to_owned();
        tokio::spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            let mut random = Random::new(seed + writer);
            for round in 0..rounds {
                let kind = if random.below(3) == 0 { "Odd" } else { "Even" };
                let end = if random.below(4) == 0 {
                    "rollback"
                } else {
                    "commit"
                };
                let sql = format!(
                    "begin; insert into highwater.event (stream, version, type, data)
                     values ('{seed}-{writer}', {round} + 1, '{kind}', '{{\"n\": 1}}'); {end}"
                );
                // A version that was rolled back is not drawn again: none is there twice.
                client.batch_execute(&sql).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

fn odd() -> Arc<dyn Runnable> {
    sql_projection("odd", ODD)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_equals_a_recount_after_storms_rollbacks_and_halving() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let seed = Random::seed();
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(odd());
    let running = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    storm(&database, seed, 200).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    run_to_head(&database, database.source(), vec![odd()])
        .await
        .unwrap();
    let counted = ledger(&client).await;
    assert_eq!(counted, recounted(&client, "e.type = 'Odd'").await);
    assert_eq!(
        counted.0,
        one::<i64>(&client, "select count(*) from highwater.event").await
    );
    assert_eq!(
        counted.1,
        one::<i64>(&client, "select count(*) from odd.seen").await
    );
    let poison = "insert into highwater.event (stream, version, type, data)
        select 'p', n, 'Odd', jsonb_build_object('n', n - 700) from generate_series(1, 1000) n";
    client.batch_execute(poison).await.unwrap();
    let report = run_to_head(&database, database.source(), vec![odd()])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::Stopped(_)),
        "{report:?}"
    );
    let halved = ledger(&client).await;
    assert_eq!(halved, recounted(&client, "e.type = 'Odd'").await);
    assert_eq!(halved.1, counted.1 + 699, "those before the poison event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_counts_from_the_first_event_and_an_accepted_change_from_where_it_stands() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    storm(&database, 1, 40).await;
    run_to_head(&database, database.source(), vec![odd()])
        .await
        .unwrap();
    let both = ODD.replace("[\"Odd\"]", "[\"Even\", \"Odd\"]");
    let both = sql_projection("odd", &both);
    accept(&database.pooled(), &*both, &*database.source())
        .await
        .unwrap();
    assert_eq!(ledger(&client).await, (0, 0, 0, 0, 0));
    storm(&database, 2, 40).await;
    run_to_head(&database, database.source(), vec![both.clone()])
        .await
        .unwrap();
    let counted = ledger(&client).await;
    assert_eq!(counted, recounted(&client, "true").await);
    assert!(counted.0 > 0 && counted.2 == 0, "{counted:?}");
    let rebuild = Rebuild::new(
        database.pooled(),
        database.source(),
        both,
        Settings::default(),
    );
    let rebuilt = rebuild.run(CancellationToken::new()).await.unwrap();
    assert!(matches!(rebuilt, Rebuilt::Swapped { .. }));
    let all: i64 = one(&client, "select count(*) from highwater.event").await;
    assert_eq!(ledger(&client).await, (all, all, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_nobody_wants_are_counted_as_filtered_when_they_are_passed_over() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=30).await;
    let odd = odd();
    run_to_head(&database, database.source(), vec![odd.clone()])
        .await
        .unwrap();
    assert_eq!(ledger(&client).await, (30, 0, 30, 0, 0));
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(odd);
    let running = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    append_rows(&client, "t", 1..=5).await;
    crate::support::eventually("all are counted", Duration::from_secs(10), async || {
        ledger(&client).await == (35, 0, 35, 0, 0)
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// Takes note of what it sees, in Rust.
struct Noted;

impl Projection for Noted {
    fn name(&self) -> &str {
        "noted"
    }

    fn up(&self) -> &str {
        "create table seen (position bigint primary key)"
    }

    fn events(&self) -> Option<Vec<String>> {
        Some(vec!["Odd".to_owned()])
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let sql = format!("insert into seen values ({})", event.position);
            tx.batch_execute(&sql).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_rust_is_counted_alike_whatever_the_source() {
    let noted: Arc<dyn Runnable> = Arc::new(Coded::new(Noted).unwrap());
    let database = TestDatabase::new().await;
    let client = database.client().await;
    storm(&database, 3, 50).await;
    run_to_head(&database, database.source(), vec![noted.clone()])
        .await
        .unwrap();
    let counted = ledger(&client).await;
    assert_eq!(counted, recounted(&client, "e.type = 'Odd'").await);
    assert!(counted.1 > 0 && counted.2 > 0, "{counted:?}");

    let database = TestDatabase::new().await;
    let client = database.client().await;
    let memory = MemorySource::new("default");
    for n in 0..30 {
        let kind = if n % 3 == 0 { "Odd" } else { "Even" };
        memory.append("s", NewEvent::new(kind, &json!({})).unwrap());
        memory.burn(1);
    }
    run_to_head(&database, Arc::new(memory), vec![noted])
        .await
        .unwrap();
    assert_eq!(ledger(&client).await, (30, 10, 20, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_rolled_back_is_not_counted() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=10).await;
    let broken = COUNTS.replace("from batch", "from batch cross join gone");
    let broken = sql_projection("counts", &broken);
    let report = run_to_head(&database, database.source(), vec![broken])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::Stopped(_)),
        "{report:?}"
    );
    assert_eq!(ledger(&client).await, (0, 0, 0, 0, 0));
}
