//! The count of a large batch, made beside it.
//!
//! The ledger counts a range no later than it is applied: an event that turned up below the mark
//! in between would be counted and never applied, and no audit would find it. So the count's snapshot
//! is taken before the batch begins; the counting itself, a twelfth of the time of a large batch, then goes on
//! on a session of its own. The fence moves the checkpoint with counts of nothing; when both are
//! done, a fence over the empty range at the batch's end adds them in the same transaction.

use crate::error::{Error, Result};
use crate::pg;
use crate::pg::checkpoint::Counted;
use crate::pg::connect::PooledClient;
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
        Ok(Count {
            session,
            sql: batch.count(range),
        })
    }

    /// Counts.
    pub(super) async fn finish(mut self) -> Result<Counted> {
        let counted = self.count().await;
        self.session.finish(counted.as_ref().err()).await;
        counted
    }

    async fn count(&self) -> Result<Counted> {
        let client = self.session.client();
        let row = client
            .query_typed_one(&self.sql, &[])
            .await
            .map_err(failed)?;
        client.batch_execute("commit").await.map_err(failed)?;
        let count = |at| pg::column::<i64>(&row, at).map(i64::unsigned_abs);
        Ok(Counted {
            scanned: count(0)?,
            own: count(1)?,
            aside: count(2)?,
        })
    }
}

fn failed(error: tokio_postgres::Error) -> Error {
    pg::error("cannot count the events of the batch", error)
}
