//! Parking for projections in Rust, over the source in memory and over the event table.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{
    Keyed, KeyedView, OnError, OnUnknown, Projection, RustProjection,
};
use highwater::internal::source::{Batch, Source};
use highwater::testing::MemorySource;
use highwater::{BoxError, Error, NewEvent, RecordedEvent, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;

/// As [`applied`], in Rust; what is poison is in its hands.
struct Applied {
    poison: Arc<Mutex<BTreeSet<i64>>>,
}

impl Projection for Applied {
    fn name(&self) -> &str {
        "applied"
    }

    fn up(&self) -> &str {
        "create table applied (n bigint generated always as identity, position bigint unique,
                               stream text not null, version bigint not null)"
    }

    fn on_error(&self) -> OnError {
        OnError::Park
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let is_poison = {
                let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
                poison.contains(&event.position.get())
            };
            if is_poison {
                return Err(Error::new(ErrorKind::Undigestible, "this event is poison").into());
            }
            let sql = "insert into applied (position, stream, version) values ($1, $2, $3)";
            tx.execute(sql, &[&event.position.get(), &event.stream, &event.version])
                .await?;
        }
        Ok(())
    }
}

async fn parks_and_retries(database: &TestDatabase, client: &Client, source: Arc<dyn Source>) {
    let poison = Arc::new(Mutex::new(BTreeSet::from([8, 31])));
    let run = async || {
        let poison = poison.clone();
        let projection = Arc::new(RustProjection::new(Applied { poison }).unwrap());
        let report = run_to_head(database, source.clone(), vec![projection]);
        caught_up(&report.await.unwrap());
    };
    run().await;
    // Every fifth event is one of c, which 8 parks; 31 and 36 are of a.
    assert_eq!(
        dead_letters_at(client).await,
        [8, 13, 18, 23, 28, 31, 33, 36, 38]
    );
    let sql = "select position from applied.applied where stream in ('a', 'c') order by n";
    assert_eq!(positions(client, sql).await, [1, 3, 6, 11, 16, 21, 26]);
    let sql = "select error->>'kind' from highwater.dead_letter where position = 31";
    assert_eq!(one::<String>(client, sql).await, "undigestible");

    *poison.lock().unwrap() = BTreeSet::from([33]);
    retry(database, Selection::All).await;
    run().await;
    assert_eq!(dead_letters_at(client).await, [33, 38]);
    let sql = "select position from applied.applied where stream in ('a', 'c') order by stream, n";
    assert_eq!(
        positions(client, sql).await,
        [1, 6, 11, 16, 21, 26, 31, 36, 3, 8, 13, 18, 23, 28]
    );
    poison.lock().unwrap().clear();
    retry(database, Selection::Key(Some("c".to_owned()))).await;
    run().await;
    assert_eq!(dead_letters_at(client).await, [0_i64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_rust_parks_over_the_source_in_memory() {
    let (database, client) = log(0, &[]).await;
    let source = MemorySource::new("default");
    for _ in 1..=8 {
        for stream in ["a", "b", "c", "d", "e"] {
            source.append(stream, NewEvent::new("T", &json!({})).unwrap());
        }
    }
    parks_and_retries(&database, &client, Arc::new(source)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_rust_parks_over_the_event_table() {
    let (database, client) = log(8, &[]).await;
    parks_and_retries(&database, &client, database.source()).await;
    is_in_order(&client).await;
}

/// The sum of the cents of each stream; `STRICT` cannot read an event without cents.
struct Totals<const STRICT: bool>;

#[derive(Deserialize)]
enum Lenient {
    Paid { cents: Option<i64> },
}

#[derive(Serialize, Deserialize)]
struct Total {
    stream: String,
    cents: i64,
}

#[derive(Deserialize)]
enum Strict {
    Paid { cents: i64 },
}

macro_rules! totals {
    ($strict:literal, $event:ty, $cents:expr) => {
        impl KeyedView for Totals<$strict> {
            type Event = $event;
            type Key = String;
            type Row = Total;
            const ON_UNKNOWN: OnUnknown = OnUnknown::Stop;

            fn name(&self) -> &str {
                "totals"
            }

            fn up(&self) -> &str {
                "create table total (stream text primary key, cents bigint not null)"
            }

            fn table(&self) -> &str {
                "total"
            }

            fn key_columns(&self) -> &[&str] {
                &["stream"]
            }

            fn on_error(&self) -> OnError {
                OnError::Park
            }

            fn key(
                &self,
                _: &$event,
                recorded: &RecordedEvent,
            ) -> Result<Option<String>, BoxError> {
                Ok(Some(recorded.stream.clone()))
            }

            fn fold(
                &self,
                row: Option<Total>,
                event: $event,
                recorded: &RecordedEvent,
            ) -> Result<Option<Total>, BoxError> {
                let before = row.map_or(0, |row| row.cents);
                let cents: i64 = ($cents)(event);
                let stream = recorded.stream.clone();
                Ok(Some(Total {
                    stream,
                    cents: before + cents,
                }))
            }
        }
    };
}
totals!(true, Strict, |Strict::Paid { cents }: Strict| cents);
totals!(false, Lenient, |Lenient::Paid { cents }: Lenient| cents
    .unwrap_or(100));

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_view_parks_what_it_cannot_read_and_a_fixed_one_reads_it() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let source = MemorySource::new("default");
    let paid = |stream: &str, data| source.append(stream, NewEvent::new("Paid", &data).unwrap());
    paid("a", json!({"cents": 1}));
    paid("b", json!({"cents": 10}));
    paid("a", json!({}));
    paid("a", json!({"cents": 2}));
    paid("b", json!({"cents": 20}));
    let sums = "select string_agg(stream || ' ' || cents, ', ' order by stream) from totals.total";
    let run = async |projection: Arc<dyn DynProjection>| {
        let report = run_to_head(&database, Arc::new(source.clone()), vec![projection]);
        caught_up(&report.await.unwrap());
    };
    run(Arc::new(Keyed::new(Totals::<true>).unwrap())).await;
    assert_eq!(one::<String>(&client, sums).await, "a 1, b 30");
    assert_eq!(dead_letters_at(&client).await, [3, 4]);
    let message = "select error->>'message' from highwater.dead_letter where position = 3";
    assert!(one::<String>(&client, message).await.contains("cents"));
    let target = database.pooled();
    dead_letters::retry(&target, &"totals".parse().unwrap(), &Selection::All)
        .await
        .unwrap();
    run(Arc::new(Keyed::new(Totals::<false>).unwrap())).await;
    assert_eq!(one::<String>(&client, sums).await, "a 103, b 30");
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_reads_the_events_learns_of_a_discard_before_its_next_batch() {
    let (database, client) = log(2, &[]).await;
    let poison = Arc::new(Mutex::new(BTreeSet::from([8])));
    let stop = CancellationToken::new();
    let engine = Engine::new(database.pooled(), Settings::default())
        .source(database.source())
        .projection(Arc::new(RustProjection::new(Applied { poison }).unwrap()));
    let engine = tokio::spawn(engine.run(Until::Stopped, stop.clone()));
    let is_at = async |position: i64| {
        let sql = format!("select count(*) from highwater.checkpoint where position = {position}");
        eventually("it follows", LIMIT, async || {
            one::<i64>(&client, &sql).await == 1
        })
        .await;
    };
    is_at(10).await;
    assert_eq!(dead_letters_at(&client).await, [8]);
    let target = database.pooled();
    dead_letters::discard(&target, &name(), &Selection::All, "a test")
        .await
        .unwrap();
    append_rows(&client, "c", 3..=3).await;
    is_at(11).await;
    assert_eq!(
        dead_letters_at(&client).await,
        [0_i64; 0],
        "the key is free"
    );
    is_in_order(&client).await;
    stop.cancel();
    engine.await.unwrap().unwrap();
}
