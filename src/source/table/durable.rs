//! For read models in another cluster: an event counts as committed when its commit is on disk. An
//! asynchronous commit is visible before that, and a crash can undo it.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::pg::{self, column};

/// The pause between two polls of what is on disk.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// After this many polls the server is made to flush; otherwise the WAL of an open transaction
/// would be waited for until others commit.
const LOOKS_MAX: u32 = 20;
/// A commit that is on disk when it is answered, whatever the server's default; without waiting
/// for replicas. It changes nothing.
const FLUSH: &str = "begin; set local synchronous_commit = local;
    select pg_logical_emit_message(true, 'highwater', ''); commit";

/// Waits until everything that earlier statements have seen is on disk.
pub(super) async fn wait(client: &Client) -> Result<()> {
    let written = include_str!("../../../sql/queries/mark/written.sql");
    let row = client.query_typed_one(written, &[]).await;
    let row = row.map_err(|e| {
        pg::error(
            "cannot read how far the write-ahead log of the server \
                                         is",
            e,
        )
    })?;
    let written: String = column(&row, 0)?;
    for _ in 0..LOOKS_MAX {
        if is_flushed(client, &written).await? {
            return Ok(());
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
    let flushed = client.batch_execute(FLUSH).await;
    flushed.map_err(|e| pg::error("cannot wait for the server's disk", e))
}

async fn is_flushed(client: &Client, written: &str) -> Result<bool> {
    let sql = include_str!("../../../sql/queries/mark/flushed.sql");
    let row = client.query_typed_one(sql, &[(&written, Type::TEXT)]).await;
    let row = row.map_err(|e| pg::error("cannot read what the server has on disk", e))?;
    column(&row, 0)
}
