//! Only the primary knows who may still fill a gap: a replica is refused, or waited for.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{self, column};

/// Whether this process has ever read from a primary at the source's address.
#[derive(Debug, Default)]
pub(super) struct PrimaryCheck(AtomicBool);

impl PrimaryCheck {
    /// Refuses a replica by name. One that takes the place of a primary in the middle of a failover
    /// is a lost connection: it is promoted sooner or later, or the address leads elsewhere.
    pub(super) async fn check(&self, client: &Client, source: &str) -> Result<()> {
        let sql = include_str!("../../../sql/queries/source/in_recovery.sql");
        let row = client.query_typed_one(sql, &[]).await;
        let row = row.map_err(|e| pg::error("cannot read whether the server is a replica", e))?;
        if !column::<bool>(&row, 0)? {
            self.0.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let what = format!(
            "source \"{source}\" is a replica, which does not know who still writes on the primary"
        );
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::ConnectionLost, what).with_hint(
                "it resumes when the replica is promoted or the address leads to the primary",
            ));
        }
        Err(Error::new(ErrorKind::Precondition, what)
            .with_hint("read the events from the primary; with several hosts add target_session_attrs=read-write"))
    }
}
