//! Catch-up of projections in Rust, the start of the engine included, against draining the same rows
//! with COPY and parsing their JSON.

mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use highwater::pg::transaction::Tx;
use highwater::projection::{Coded, Keyed, KeyedView, OnUnknown, Projection, Runnable};
use highwater::source::Batch;
use highwater::{RecordedEvent, Result};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use support::breakdown::Breakdown;
use support::events::{Log, TABLE};
use support::{Bench, Budget, Db, Report, failed, reference};

fn main() -> ExitCode {
    support::run("catch_up_rust", measure)
}

#[derive(Deserialize)]
enum Account {
    Booked { amount: i64 },
}

#[derive(Default, Serialize, Deserialize)]
struct Sum {
    stream: String,
    bookings: i64,
    amount: i64,
    last_position: i64,
}

impl Sum {
    fn book(&mut self, amount: i64, recorded: &RecordedEvent) {
        self.bookings += 1;
        self.amount += amount;
        self.last_position = recorded.position.get();
    }
}

/// The read model of sums as a keyed view.
struct View {
    up: String,
}

impl KeyedView<String, Sum> for View {
    type Event = Account;
    const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;

    fn name(&self) -> &str {
        "sums"
    }

    fn up(&self) -> &str {
        &self.up
    }

    fn table(&self) -> &str {
        "sums"
    }

    fn key_columns(&self) -> &[&str] {
        &["stream"]
    }

    fn key(&self, _: &Account, recorded: &RecordedEvent) -> Option<String> {
        Some(recorded.stream.clone())
    }

    fn fold(&self, row: Option<Sum>, event: Account, recorded: &RecordedEvent) -> Option<Sum> {
        let Account::Booked { amount } = event;
        let mut row = row.unwrap_or_else(|| Sum {
            stream: recorded.stream.clone(),
            ..Sum::default()
        });
        row.book(amount, recorded);
        Some(row)
    }
}

/// The same as a projection that sums up what it is given and adds that in one statement.
struct Plain {
    up: String,
}

impl Projection for Plain {
    fn name(&self) -> &str {
        "sums"
    }

    fn up(&self) -> &str {
        &self.up
    }

    fn events(&self) -> Option<Vec<String>> {
        Some(vec!["Booked".to_owned()])
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<()> {
        #[derive(Deserialize)]
        struct Booked {
            amount: i64,
        }
        let mut sums: HashMap<&str, Sum> = HashMap::new();
        for event in &batch.events {
            let Booked { amount } = event.data_as()?;
            sums.entry(&event.stream).or_default().book(amount, event);
        }
        let streams: Vec<&str> = sums.keys().copied().collect();
        let column = |of: fn(&Sum) -> i64| sums.values().map(of).collect::<Vec<i64>>();
        let sql = "insert into sums select * from unnest($1, $2, $3, $4)
            on conflict (stream) do update
               set bookings = sums.bookings + excluded.bookings,
                   amount = sums.amount + excluded.amount,
                   last_position = excluded.last_position";
        tx.execute(
            sql,
            &[
                (&streams, Type::TEXT_ARRAY),
                (&column(|s| s.bookings), Type::INT8_ARRAY),
                (&column(|s| s.amount), Type::INT8_ARRAY),
                (&column(|s| s.last_position), Type::INT8_ARRAY),
            ],
        )
        .await
        .map(drop)
    }
}

fn view() -> Result<Arc<dyn Runnable>> {
    let up = format!("create table sums {TABLE}");
    Ok(Arc::new(Keyed::new(View { up })?))
}

fn plain() -> Result<Arc<dyn Runnable>> {
    let up = format!("create table sums {TABLE}");
    Ok(Arc::new(Coded::new(Plain { up })?))
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    type Make = fn() -> Result<Arc<dyn Runnable>>;
    let kinds: [(&str, Make, Option<Budget>); 2] = [
        ("keyed view", view, Some(Budget::RatioAtLeast(0.6))),
        ("plain projection", plain, None),
    ];
    let log = Log::new(
        bench.form.size(100_000, 1_000_000),
        bench.form.size(5_000, 50_000),
    );
    let db = bench.database().await?;
    log.fill(&db).await?;
    let rate = |took: std::time::Duration| log.events as f64 / took.as_secs_f64();
    // Once for whoever comes first, so that nobody does.
    reference::copy_drained(&db).await?;
    for _ in 0..bench.form.runs() {
        let drained = rate(reference::copy_drained(&db).await?);
        for (name, make, budget) in kinds {
            let took = db.catch_up([make()?]).await?;
            let reference = Some(("COPY, JSON parsed", drained));
            let what = format!("catch-up, Rust, {name}");
            report.sample(&what, "events/s", rate(took), reference, budget);
            begin_again(&db, &log).await?;
        }
    }
    let breakdown = Breakdown::install()?;
    for (name, make, _) in kinds {
        breakdown.begin();
        db.catch_up([make()?]).await?;
        breakdown.report(name, report);
        begin_again(&db, &log).await?;
    }
    Ok(())
}

/// Drops the read model, if it is right.
async fn begin_again(db: &Db, log: &Log) -> Result<()> {
    let (sum, events) = ("select sum(bookings)::bigint from sums.sums", log.events);
    if db.number(sum).await? != i64::try_from(events).map_err(failed)? {
        let what = format!("the read model does not hold the {events} events");
        return Err(highwater::Error::new(highwater::ErrorKind::Internal, what));
    }
    let drop = "drop schema sums cascade; delete from highwater.projection";
    db.time(drop).await.map(|_| ())
}
