//! Projections in Rust over the source in memory, as users test theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use highwater::internal::engine::{Engine, Settings, Until};
use highwater::internal::pg::database::Database;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{Keyed, KeyedView, OnUnknown, Projection, RustProjection};
use highwater::internal::source::Batch;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::{MemorySource, TestDatabase};
use highwater::{BoxError, Error, ErrorKind, NewEvent, Outcome, RecordedEvent, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{append_rows, eventually, one, run_to_head};

#[derive(Deserialize)]
enum Account {
    Opened { owner: String },
    Deposited { cents: i64 },
    Closed,
}

#[derive(Serialize, Deserialize)]
struct Balance {
    bank: String,
    account: i32,
    owner: String,
    cents: i64,
}

/// A key of two columns: the stream is `bank-account`.
struct Balances<const STOP: bool>;

impl<const STOP: bool> KeyedView for Balances<STOP> {
    type Event = Account;
    type Key = (String, i32);
    type Row = Balance;
    const ON_UNKNOWN: OnUnknown = if STOP {
        OnUnknown::Stop
    } else {
        OnUnknown::Ignore
    };

    fn name(&self) -> &str {
        "balances"
    }

    fn up(&self) -> &str {
        "create table balance (bank text, account int, owner text not null, cents bigint not null,
                               primary key (bank, account))"
    }

    fn table(&self) -> &str {
        "balance"
    }

    fn key_columns(&self) -> &[&str] {
        &["bank", "account"]
    }

    fn key(
        &self,
        _: &Account,
        recorded: &RecordedEvent,
    ) -> Result<Option<(String, i32)>, BoxError> {
        let Some((bank, account)) = recorded.stream.split_once('-') else {
            return Ok(None);
        };
        Ok(Some((bank.to_owned(), account.parse()?)))
    }

    fn fold(
        &self,
        row: Option<Balance>,
        event: Account,
        recorded: &RecordedEvent,
    ) -> Result<Option<Balance>, BoxError> {
        Ok(match event {
            Account::Opened { owner } => {
                let key = self.key(&Account::Closed, recorded)?;
                key.map(|(bank, account)| Balance {
                    bank,
                    account,
                    owner,
                    cents: 0,
                })
            }
            Account::Deposited { cents } => row.map(|row| Balance {
                cents: row.cents + cents,
                ..row
            }),
            Account::Closed => None,
        })
    }
}

fn event(event_type: &str, data: serde_json::Value) -> NewEvent {
    NewEvent::new(event_type, &data).unwrap()
}

async fn run_one(database: &TestDatabase, source: &MemorySource, stop: bool) -> Outcome {
    let projection: Arc<dyn highwater::internal::projection::DynProjection> = if stop {
        Arc::new(Keyed::new(Balances::<true>).unwrap())
    } else {
        Arc::new(Keyed::new(Balances::<false>).unwrap())
    };
    let report = run_to_head(database, Arc::new(source.clone()), vec![projection])
        .await
        .unwrap();
    report.outcomes.into_iter().next().unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_folded_per_key_across_batches_and_deleted_when_the_fold_says_so() {
    let database = TestDatabase::new().await;
    let source = MemorySource::new("default");
    source.append("a-1", event("Opened", json!({"owner": "Ada"})));
    source.append("a-2", event("Opened", json!({"owner": "Bob"})));
    source.append("a-1", event("Deposited", json!({"cents": 250})));
    source.burn(100);
    assert!(matches!(
        run_one(&database, &source, false).await,
        Outcome::CaughtUp
    ));
    source.append("a-1", event("Deposited", json!({"cents": 50})));
    source.append("a-2", event("Closed", json!(null)));
    source.append("b-1", event("Opened", json!({"owner": "Eve"})));
    assert!(matches!(
        run_one(&database, &source, false).await,
        Outcome::CaughtUp
    ));
    let client = database.client().await;
    let rows: String = one(&client, "select string_agg(concat_ws(' ', bank, account, owner, cents), ', ' order by bank, account) from balances.balance").await;
    assert_eq!(rows, "a 1 Ada 300, b 1 Eve 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_type_is_left_out_or_stops_the_projection_as_it_chose() {
    let source = MemorySource::new("default");
    source.append("a-1", event("Opened", json!({"owner": "Ada"})));
    source.append("a-1", event("Renamed", json!({"owner": "Eve"})));
    source.append("a-1", event("Deposited", json!({"cents": 1})));
    let database = TestDatabase::new().await;
    assert!(matches!(
        run_one(&database, &source, false).await,
        Outcome::CaughtUp
    ));
    let client = database.client().await;
    assert_eq!(
        one::<i64>(&client, "select cents from balances.balance").await,
        1
    );
    assert_eq!(
        one::<i64>(&client, "select position from highwater.checkpoint").await,
        3
    );

    let database = TestDatabase::new().await;
    let Outcome::Stopped(error) = run_one(&database, &source, true).await else {
        panic!()
    };
    let event = error.event().unwrap();
    assert_eq!(
        (event.position.get(), event.event_type.as_str()),
        (2, "Renamed"),
        "{error}"
    );
    let client = database.client().await;
    assert_eq!(
        one::<i64>(&client, "select cents from balances.balance").await,
        0,
        "what came before is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_shape_stops_the_projection_at_it_and_says_what_is_wrong() {
    let database = TestDatabase::new().await;
    let source = MemorySource::new("default");
    source.append("a-1", event("Opened", json!({"owner": "Ada"})));
    source.append("a-1", event("Deposited", json!({"cents": "many"})));
    let Outcome::Stopped(error) = run_one(&database, &source, false).await else {
        panic!()
    };
    assert_eq!(error.kind(), ErrorKind::Undigestible);
    assert_eq!(error.event().unwrap().position.get(), 2);
    assert!(error.to_string().contains("expected i64"), "{error}");
}

/// Does to its transaction what it must not.
struct Unruly(&'static str);

impl Projection for Unruly {
    fn name(&self) -> &str {
        "unruly"
    }

    fn up(&self) -> &str {
        "create table seen (position bigint primary key)"
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let position = event.position.get();
            tx.execute("insert into seen values ($1)", &[&position])
                .await?;
        }
        match self.0 {
            "panic" => panic!("a bug"),
            "swallow" => {
                let _ = tx.batch_execute("select 1 / 0").await;
                Ok(())
            }
            "error" => Err(Error::new(ErrorKind::Apply, "no").into()),
            statement => Ok(tx.batch_execute(statement).await?),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_ends_or_breaks_its_transaction_is_stopped_and_nothing_is_half_done() {
    for (deed, says) in [
        ("panic", "panicked"),
        ("swallow", "aborted"),
        ("error", "no"),
        ("rollback", "ended the transaction"),
        ("rollback; begin", "ended the transaction"),
    ] {
        let database = TestDatabase::new().await;
        let source = MemorySource::new("default");
        source.append("s", event("T", json!({})));
        let unruly = Arc::new(RustProjection::new(Unruly(deed)).unwrap());
        let report = run_to_head(&database, Arc::new(source), vec![unruly])
            .await
            .unwrap();
        let Outcome::Stopped(error) = &report.outcomes[0].1 else {
            panic!("{deed}: {report:?}")
        };
        assert!(error.to_string().contains(says), "{deed}: {error}");
        let client = database.client().await;
        assert_eq!(
            one::<i64>(&client, "select count(*) from unruly.seen").await,
            0,
            "{deed}"
        );
        assert_eq!(
            one::<i64>(&client, "select position from highwater.checkpoint").await,
            0,
            "{deed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_panicked_leaves_no_open_transaction_and_is_stored_as_stopped() {
    let database = TestDatabase::new().await;
    let source: Arc<MemorySource> = Arc::new(MemorySource::new("default"));
    source.append("s", event("T", json!({})));
    for _ in 0..20 {
        let unruly = Arc::new(RustProjection::new(Unruly("panic")).unwrap());
        let report = run_to_head(&database, source.clone(), vec![unruly])
            .await
            .unwrap();
        assert!(
            matches!(report.outcomes[0].1, Outcome::Stopped(_)),
            "{report:?}"
        );
    }
    let client = database.client().await;
    let open = "select count(*) from pg_stat_activity
         where datname = current_database() and state like 'idle in transaction%'";
    // The server hears of a closed session a moment later.
    let limit = std::time::Duration::from_secs(10);
    eventually("no session is left in a transaction", limit, async || {
        one::<i64>(&client, open).await == 0
    })
    .await;
    let stored = "select state || ': ' || (last_error->>'message') from highwater.checkpoint";
    let stored: String = one(&client, stored).await;
    assert_eq!(stored, "stopped: the projection's code panicked: a bug");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_never_holds_one_session_while_it_waits_for_another() {
    let database = TestDatabase::new().await;
    append_rows(&database.client().await, "s", 1..=20).await;
    let pool = Database::new(database.pooled().connector().clone(), 1).unwrap();
    let source = TableSource::new("default", pool.clone(), None, EventTable::own());
    let engine = Engine::new(pool, Settings::default())
        .source(Arc::new(source))
        .projection(Arc::new(RustProjection::new(Unruly("select 1")).unwrap()));
    let run = engine.run(Until::CaughtUp, CancellationToken::new());
    let report = tokio::time::timeout(crate::support::PATIENCE, run).await;
    let report = report.expect("one session is enough").unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
}

/// An error as users have them.
#[derive(Debug)]
struct NoRate(String);

impl std::fmt::Display for NoRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no rate for {}", self.0)
    }
}

impl std::error::Error for NoRate {}

/// Needs a service that does not answer at first, and knows one currency.
struct Rates {
    attempts: AtomicU32,
}

impl Rates {
    fn rate(&self, currency: &str) -> Result<i64, NoRate> {
        match currency {
            "EUR" => Ok(1),
            other => Err(NoRate(other.to_owned())),
        }
    }
}

impl Projection for Rates {
    fn name(&self) -> &str {
        "rates"
    }

    fn up(&self) -> &str {
        "create table rate (position bigint primary key, rate bigint not null)"
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        if self.attempts.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(Error::transient("the rates are not there yet").into());
        }
        for event in &batch.events {
            let currency: String = event.data_as()?;
            let rate = self.rate(&currency)?;
            let insert = "insert into rate values ($1, $2)";
            tx.execute(insert, &[&event.position.get(), &rate]).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_errors_are_retried_where_they_say_so_and_else_stop_at_the_event() {
    let database = TestDatabase::new().await;
    let source = MemorySource::new("default");
    for currency in ["EUR", "EUR", "XXX", "EUR"] {
        source.append("s", event("Asked", currency.into()));
    }
    let rates = Rates {
        attempts: AtomicU32::new(0),
    };
    let rates = Arc::new(RustProjection::new(rates).unwrap());
    let report = run_to_head(&database, Arc::new(source), vec![rates]).await;
    let Outcome::Stopped(error) = report.unwrap().outcomes.pop().unwrap().1 else {
        panic!("XXX has no rate")
    };
    assert_eq!(error.kind(), ErrorKind::Apply, "{error}");
    assert_eq!(error.message(), "there is no rate for XXX");
    assert_eq!(error.event().unwrap().position.get(), 3);
    let source = std::error::Error::source(&error).unwrap();
    assert!(
        source.is::<NoRate>(),
        "what the code returned can be reached"
    );
    let client = database.client().await;
    let applied = one::<i64>(&client, "select count(*) from rates.rate").await;
    assert_eq!(
        applied, 2,
        "what came before was retried until it was applied"
    );
}
