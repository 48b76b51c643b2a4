//! Transactions of operators: rebuild, accept, drop and discard take effect at once.

use std::time::Duration;

use tokio_postgres::Client;

use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg;
use crate::pg::projection;
use crate::pg::transaction::BEGIN;
use crate::position::Position;

/// When to log that a batch in flight is waited for.
const WAIT_NOTE: Duration = Duration::from_secs(1);

/// Opens a transaction.
pub(crate) async fn begin(client: &Client) -> Result<()> {
    let begun = client.batch_execute(BEGIN).await;
    begun.map_err(|e| pg::error("cannot begin a transaction", e))
}

/// Commits, or rolls back and keeps the error.
pub(crate) async fn end<T>(client: &Client, done: Result<T>) -> Result<T> {
    if done.is_err() {
        // If this fails too the connection is gone, and with it the transaction.
        let _ = client.batch_execute("rollback").await;
        return done;
    }
    // The select fails in an aborted transaction, where COMMIT would roll back without an error.
    let committed = client.batch_execute("select 1; commit").await;
    committed.map_err(|e| pg::error("cannot commit", e))?;
    done
}

/// Waits for a statement that needs the lock of a checkpoint, and logs it if a batch in flight
/// holds that.
pub(crate) async fn warn_if_blocked<T>(
    name: &ProjectionName,
    locking: impl Future<Output = T>,
) -> T {
    tokio::pin!(locking);
    tokio::select! {
        locked = &mut locking => return locked,
        () = tokio::time::sleep(WAIT_NOTE) => {}
    }
    tracing::warn!(projection = %name, "waiting for a batch in flight; highwater status shows \
                                        whose it is");
    locking.await
}

/// Locks a projection, then the checkpoints of its live generation: no batch is in flight from then on.
/// Returns the highest position.
pub(crate) async fn lock_live(client: &Client, name: &ProjectionName) -> Result<Position> {
    let locking = async {
        projection::lock(client, name).await?;
        projection::lock_checkpoints(client, name).await
    };
    warn_if_blocked(name, locking).await
}
