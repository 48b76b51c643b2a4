//! Catch-up of projections in Rust, the start of the engine included, against draining the same rows
//! with COPY and parsing their JSON.

mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{DynProjection, Projection, RustProjection};
use highwater::internal::source::Batch;
use highwater::{BoxError, Result};
use serde::Deserialize;

use support::breakdown::Breakdown;
use support::events::Log;
use support::sums::{self, Sum};
use support::{Bench, Budget, Db, Report, failed, reference};

fn main() -> ExitCode {
    support::run("catch_up_rust", measure)
}

/// The read model of sums as a projection that sums up what it is given and adds that in one statement.
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

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
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
                &streams,
                &column(|s| s.bookings),
                &column(|s| s.amount),
                &column(|s| s.last_position),
            ],
        )
        .await?;
        Ok(())
    }
}

fn view() -> Result<Arc<dyn DynProjection>> {
    sums::keyed("sums")
}

fn plain() -> Result<Arc<dyn DynProjection>> {
    let up = sums::create();
    Ok(Arc::new(RustProjection::new(Plain { up })?))
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    type Make = fn() -> Result<Arc<dyn DynProjection>>;
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
