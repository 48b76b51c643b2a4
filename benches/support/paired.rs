//! The same read model made by this build, by hand, and by an older build, in turns.

use std::time::Duration;

use highwater::Result;

use super::model::Model;
use super::orders::Orders;
use super::psql::Timing;
use super::{Bench, Db};

/// The path of an older highwater, to be measured beside this one.
pub(crate) const BASELINE: &str = "HIGHWATER_BENCH_BASELINE";

/// Databases with the same events: each build has a schema of its own.
pub(crate) struct Paired {
    pub(crate) db: Db,
    pub(crate) baseline: Option<Db>,
}

/// How long each took.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) by_hand: Timing,
    pub(crate) highwater: Duration,
    pub(crate) baseline: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Way {
    ByHand,
    Highwater,
    Baseline,
}

impl Paired {
    pub(crate) async fn fill(bench: &Bench, orders: Orders) -> Result<Paired> {
        let paired = Paired {
            db: bench.database().await?,
            baseline: match std::env::var_os(BASELINE) {
                Some(binary) => Some(bench.database_of(binary.into()).await?),
                None => None,
            },
        };
        for db in paired.all() {
            orders.fill(db).await?;
        }
        Ok(paired)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Db> {
        std::iter::once(&self.db).chain(&self.baseline)
    }

    /// Reads once, for whoever comes first.
    pub(crate) async fn warm_up(&self, model: &Model) -> Result<()> {
        for db in self.all() {
            model.by_hand(db, 1).await?;
        }
        Ok(())
    }

    /// Measures each way, in turns from one end and from the other, and compares the results.
    pub(crate) async fn measure(
        &self,
        model: &Model,
        partitions: u32,
        round: usize,
    ) -> Result<Times> {
        let mut ways = [Way::ByHand, Way::Highwater, Way::Baseline];
        if round % 2 == 1 {
            ways.reverse();
        }
        let mut times = Times::default();
        for way in ways {
            self.db.time("checkpoint").await?;
            match (way, &self.baseline) {
                (Way::ByHand, _) => times.by_hand = model.by_hand(&self.db, partitions).await?,
                (Way::Highwater, _) => {
                    times.highwater = model.catch_up(&self.db, partitions).await?;
                }
                (Way::Baseline, Some(db)) => {
                    times.baseline = Some(model.catch_up(db, partitions).await?);
                }
                (Way::Baseline, None) => {}
            }
        }
        for db in self.all() {
            model.verify(db, &self.db).await?;
            model.forget(db).await?;
        }
        Ok(times)
    }

    /// Gives the room of the databases back.
    pub(crate) async fn drop(self, bench: &Bench) -> Result<()> {
        bench.drop(self.db).await?;
        match self.baseline {
            Some(db) => bench.drop(db).await,
            None => Ok(()),
        }
    }
}
