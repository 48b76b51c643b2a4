//! The count of a large batch, made beside it.
//!
//! The ledger counts a range no later than it is applied: an event that turned up below the mark
//! in between would be counted and never applied, and no audit would find it. So the count's snapshot
//! is taken before the batch begins; the counting itself, a twelfth of the time of a large batch, then goes on
//! on a session of its own. The fence moves the checkpoint with counts of nothing; when both are
//! done, a fence over the empty range at the batch's end adds them in the same transaction.
//!
//! Partitions that apply the same range share one count of it ([`SharedCounts`]): each of its own would
//! read the whole range again, while no core is idle.
//!
//! # Sessions
//!
//! A count takes a turn for its session and never waits for one: without it the fence counts. A shared
//! count keeps its turn until it ends, whoever's batch has failed meanwhile.
//!
//! # When it fails
//!
//! A batch fails with its count, and so does that of each partition that shares it; all are tried
//! again. It asks no event for its key that the projection does not want, as the batch does not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{Mutex, Semaphore};
use tokio_postgres::Row;

use crate::error::{Error, Result};
use crate::pg::checkpoint::Counted;
use crate::pg::connect::PooledClient;
use crate::pg::{self, column};
use crate::position::{Position, Range};

use super::batch::BatchText;
use super::{InFlight, Session};

/// From how many positions on a count is made beside its batch: before that, the round trips cost
/// more than they bring.
pub(in crate::engine) const COUNTED_BESIDE_FROM: u64 = 50_000;

/// How long a partition waits to hear whether another one begins from the same position.
const IN_STEP_PATIENCE: Duration = Duration::from_millis(100);

/// What the fence is told meanwhile.
pub(super) const NOTHING: &str =
    "select 0::bigint as scanned, 0::bigint as own, 0::bigint as aside";

/// A count whose snapshot is taken.
pub(super) struct Count {
    session: Session,
    sql: String,
}

impl Count {
    /// Takes the snapshot.
    pub(super) async fn begin(
        client: PooledClient,
        batch: &BatchText<'_>,
        range: Range,
    ) -> Result<Count> {
        let session = Session::new(client, &InFlight::default());
        // The first SELECT of the transaction takes it, and the lock on the events: who truncates them
        // between a batch and its count would wait for the one and hold up the other.
        let begin = format!(
            "begin isolation level repeatable read, read only; set local row_security = off; \
             select from {} limit 0; \
             select set_config('client_connection_check_interval', '1000', true) \
             where version() like '%linux%'",
            batch.relation
        );
        let begun = session.client().batch_execute(&begin).await;
        begun.map_err(failed)?;
        let sql = match batch.filter.keys.partition.of {
            0..=1 => batch.count(range),
            _ => batch.count_each(range),
        };
        Ok(Count { session, sql })
    }

    /// Counts a batch that has no partitions beside it.
    pub(super) async fn finish(self) -> Result<Counted> {
        let rows = self.rows().await?;
        let Some(row) = rows.first() else {
            return Ok(Counted::default());
        };
        Ok(Counted {
            scanned: number(row, 0)?,
            own: number(row, 1)?,
            aside: number(row, 2)?,
        })
    }

    async fn rows(mut self) -> Result<Vec<Row>> {
        let counted = self.counted().await;
        self.session.finish(counted.as_ref().err()).await;
        counted
    }

    async fn counted(&self) -> Result<Vec<Row>> {
        let client = self.session.client();
        let rows = client.query_typed(&self.sql, &[]).await.map_err(failed)?;
        client.batch_execute("commit").await.map_err(failed)?;
        Ok(rows)
    }
}

/// The counts under way for the partitions of a projection in this process.
pub(in crate::engine) struct SharedCounts {
    /// One for each session that batches may take.
    turns: Arc<Semaphore>,
    under_way: Mutex<Vec<(Asked, WeakShared<Counting>)>>,
}

/// What a count is about. All else is the same for each partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) range: Range,
    pub(super) partitions: i32,
}

type Counting = BoxFuture<'static, Result<Arc<[Each]>, Arc<Error>>>;

/// A count for all partitions whose batch is the same range; its snapshot is older than each of them.
/// Whoever waits for it drives it, and it ends with the last of them.
pub(super) struct SharedCount(Shared<Counting>);

struct Each {
    /// `None`: of the events that are not wanted.
    partition: Option<i32>,
    events: u64,
}

impl SharedCounts {
    pub(in crate::engine) fn new(turns: Arc<Semaphore>) -> SharedCounts {
        SharedCounts {
            turns,
            under_way: Mutex::default(),
        }
    }

    /// What another partition has just begun to apply from the same position on, if it is no more than
    /// `most`, and between half of `range` and twice as much; else `range`. Who goes in step shares the
    /// count.
    pub(in crate::engine) async fn in_step(&self, range: Range, most: Position) -> Range {
        let (half, twice) = (range.width() / 2, range.width().saturating_mul(2));
        if twice < COUNTED_BESIDE_FROM {
            return range;
        }
        // Whoever takes a snapshot may have to wait for a session; sharing is not worth that.
        let under_way = tokio::time::timeout(IN_STEP_PATIENCE, self.under_way.lock()).await;
        let Ok(under_way) = under_way else {
            return range;
        };
        let is_in_step = |of: Range| {
            of.after() == range.after()
                && of.through() <= most
                && (half..=twice).contains(&of.width())
        };
        let mut alive = under_way
            .iter()
            .filter(|(_, count)| count.upgrade().is_some());
        alive
            .find(|(of, _)| is_in_step(of.range))
            .map_or(range, |(of, _)| of.range)
    }

    /// Joins the count of this range that is under way, or begins one if there is a turn for it.
    pub(super) async fn join(
        &self,
        asked: Asked,
        begin: impl Future<Output = Result<Count>>,
    ) -> Result<Option<SharedCount>> {
        // Held while a snapshot is taken: who comes meanwhile begins its batch after it.
        let mut under_way = self.under_way.lock().await;
        under_way.retain(|(_, count)| count.upgrade().is_some());
        let same = under_way.iter().find(|(of, _)| *of == asked);
        if let Some(joined) = same.and_then(|(_, count)| count.upgrade()) {
            return Ok(Some(SharedCount(joined)));
        }
        let Ok(turn) = self.turns.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let count = begin.await?;
        let counting = async move {
            let each = each(count).await.map_err(Arc::new);
            drop(turn);
            each
        };
        let counting = counting.boxed().shared();
        under_way.extend(counting.downgrade().map(|count| (asked, count)));
        Ok(Some(SharedCount(counting)))
    }
}

impl SharedCount {
    /// Counts, or waits for whoever does.
    pub(super) async fn finish(self, partition: i32) -> Result<Counted> {
        let each = self.0.await.map_err(|error| (*error).clone())?;
        let own = each.iter().find(|each| each.partition == Some(partition));
        Ok(Counted {
            scanned: each.iter().map(|each| each.events).sum(),
            own: own.map_or(0, |own| own.events),
            aside: 0,
        })
    }
}

async fn each(count: Count) -> Result<Arc<[Each]>> {
    let rows = count.rows().await?;
    let each = rows.iter().map(|row| {
        Ok(Each {
            partition: column(row, 0)?,
            events: number(row, 1)?,
        })
    });
    each.collect()
}

fn number(row: &Row, at: usize) -> Result<u64> {
    column::<i64>(row, at).map(i64::unsigned_abs)
}

fn failed(error: tokio_postgres::Error) -> Error {
    pg::error("cannot count the events of the batch", error)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn range(after: i64, through: i64) -> Range {
        Range::new(Position::new(after), Position::new(through))
    }

    #[tokio::test]
    async fn a_partition_goes_as_far_as_the_one_that_began_where_it_begins() {
        let counts = SharedCounts::new(Arc::new(Semaphore::new(1)));
        let counting = pending().boxed().shared();
        let theirs = range(1_000, 101_000);
        let asked = Asked {
            range: theirs,
            partitions: 2,
        };
        let entry = (asked, counting.downgrade().unwrap());
        counts.under_way.lock().await.push(entry);
        let most = Position::new(150_000);
        for (why, mine, most, expected) in [
            ("less than half more", range(1_000, 80_000), most, theirs),
            ("half as much", range(1_000, 51_000), most, theirs),
            ("twice as much", range(1_000, 201_000), most, theirs),
            (
                "more than it may take",
                range(1_000, 80_000),
                Position::new(100_999),
                range(1_000, 80_000),
            ),
            ("far less", range(1_000, 50_900), most, range(1_000, 50_900)),
            (
                "far more",
                range(1_000, 201_100),
                most,
                range(1_000, 201_100),
            ),
            (
                "another beginning",
                range(1_001, 101_000),
                most,
                range(1_001, 101_000),
            ),
        ] {
            assert_eq!(counts.in_step(mine, most).await, expected, "{why}");
        }
        drop(counting);
        let mine = range(1_000, 80_000);
        assert_eq!(counts.in_step(mine, most).await, mine, "it has ended");
    }

    #[tokio::test]
    async fn who_would_have_to_wait_for_a_snapshot_goes_its_own_way() {
        let counts = SharedCounts::new(Arc::new(Semaphore::new(1)));
        let _taking = counts.under_way.lock().await;
        let mine = range(0, 100_000);
        assert_eq!(counts.in_step(mine, Position::new(100_000)).await, mine);
        let small = range(0, 10);
        assert_eq!(counts.in_step(small, Position::new(10)).await, small);
    }
}
