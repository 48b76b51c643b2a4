//! The count of a large batch, made beside it.
//!
//! The ledger counts a range no later than it is applied: an event that turned up below the mark
//! in between would be counted and never applied, and no audit would find it. So the count's snapshot
//! is taken before the batch begins; the counting itself, a twelfth of the time of a large batch, then goes on
//! on a session of its own. The fence moves the checkpoint with counts of nothing; when both are
//! done, a fence over the empty range at the batch's end adds them in the same transaction.
//!
//! Partitions that apply the same range share one count of it ([`Counts`]): each of its own would
//! read the whole range again, while no core is idle.

use std::sync::Arc;

use futures_util::future::{BoxFuture, Shared, WeakShared};
use futures_util::{FutureExt, TryFutureExt};
use tokio::sync::Mutex;
use tokio_postgres::Row;

use crate::error::{Error, Result};
use crate::pg::checkpoint::Counted;
use crate::pg::connect::PooledClient;
use crate::pg::{self, column};
use crate::position::Range;

use super::batch::BatchText;
use super::{InFlight, Session};

/// From how many positions on a count is made beside its batch: before that, the round trips cost
/// more than they bring.
pub(in crate::engine) const COUNTED_BESIDE_FROM: u64 = 50_000;

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
        // The first SELECT of the transaction takes it.
        let begin = "begin isolation level repeatable read, read only; \
                     set local row_security = off; select 1";
        let begun = session.client().batch_execute(begin).await;
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
#[derive(Default)]
pub(in crate::engine) struct Counts(Mutex<Vec<(Asked, WeakShared<Counting>)>>);

/// What a count is about: a range, for so many partitions. All else is the same for each of them.
type Asked = (Range, i32);

type Counting = BoxFuture<'static, Result<Arc<[Each]>, Arc<Error>>>;

/// A count for all partitions whose batch is the same range; its snapshot is older than each of them.
/// Whoever waits for it drives it, and it ends with the last of them.
pub(super) struct SharedCount(Shared<Counting>);

struct Each {
    partition: i32,
    events: u64,
    wanted: u64,
}

impl Counts {
    /// Joins the count of this range that is under way, or begins one if there is a session for it.
    pub(super) async fn join(
        &self,
        asked: Asked,
        begin: Option<impl Future<Output = Result<Count>>>,
    ) -> Result<Option<SharedCount>> {
        // Held while a snapshot is taken: who comes meanwhile begins its batch after it.
        let mut counts = self.0.lock().await;
        counts.retain(|(_, count)| count.upgrade().is_some());
        let same = counts.iter().find(|(of, _)| *of == asked);
        if let Some(joined) = same.and_then(|(_, count)| count.upgrade()) {
            return Ok(Some(SharedCount(joined)));
        }
        let Some(begin) = begin else {
            return Ok(None);
        };
        let counting = each(begin.await?).map_err(Arc::new).boxed().shared();
        counts.extend(counting.downgrade().map(|count| (asked, count)));
        Ok(Some(SharedCount(counting)))
    }
}

impl SharedCount {
    /// Counts, or waits for whoever does.
    pub(super) async fn finish(self, partition: i32) -> Result<Counted> {
        let each = self.0.await.map_err(|error| error.again())?;
        let own = each.iter().find(|each| each.partition == partition);
        Ok(Counted {
            scanned: each.iter().map(|each| each.events).sum(),
            own: own.map_or(0, |own| own.wanted),
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
            wanted: number(row, 2)?,
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
