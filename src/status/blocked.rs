//! Who holds the locks that batches in flight wait for.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::pg;
use crate::pg::checkpoint::Key;
use crate::pg::transaction::batch_name;
use crate::source::table::HeldBy;

/// The holders by the name of the batch that waits for them.
#[derive(Default)]
pub(super) struct Blocked(HashMap<String, Vec<HeldBy>>);

impl Blocked {
    /// Looks once at the batches of these checkpoints.
    pub(super) async fn read(client: &Client, keys: impl Iterator<Item = Key>) -> Result<Blocked> {
        let names: Vec<String> = keys.map(|key| batch_name(&key)).collect();
        let sql = include_str!("../../sql/queries/status/blocked.sql");
        let rows = client.query_typed(sql, &[(&names, Type::TEXT_ARRAY)]).await;
        let rows = rows.map_err(|e| pg::error("cannot see what batches wait for", e))?;
        let mut blocked = Blocked::default();
        for row in &rows {
            let holder = HeldBy::read(row)?;
            let holders = blocked.0.entry(holder.name.clone()).or_default();
            holders.push(holder);
        }
        Ok(blocked)
    }

    /// Who holds up the batch of this checkpoint.
    pub(super) fn holders(&self, key: &Key) -> Vec<HeldBy> {
        let holders = self.0.get(&batch_name(key));
        holders.cloned().unwrap_or_default()
    }
}
