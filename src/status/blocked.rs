//! Who holds the locks that batches in flight wait for.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::pg;
use crate::pg::checkpoint::Key;
use crate::pg::transaction::batch_name;
use crate::source::Blocker;

/// The holders by the name of the batch that waits for them.
#[derive(Default)]
pub(super) struct Blocked(HashMap<String, Vec<Blocker>>);

impl Blocked {
    /// Reads once what the batches of these checkpoints wait for.
    pub(super) async fn read(client: &Client, keys: impl Iterator<Item = Key>) -> Result<Blocked> {
        let names: Vec<String> = keys.map(|key| batch_name(&key)).collect();
        let sql = include_str!("../../sql/queries/status/blocked.sql");
        let rows = client.query_typed(sql, &[(&names, Type::TEXT_ARRAY)]).await;
        let rows = rows.map_err(|e| pg::error("cannot see what batches wait for", e))?;
        let mut blocked = Blocked::default();
        for row in &rows {
            let holder = Blocker::read(row)?;
            let holders = blocked.0.entry(holder.name.clone()).or_default();
            holders.push(holder);
        }
        Ok(blocked)
    }

    /// Who blocks the batches of these checkpoints, each of them once. A batch that is only in the
    /// queue for the same lock blocks nobody: it waits for the same sessions.
    pub(super) fn holders(&self, keys: &[Key]) -> Vec<Blocker> {
        let names: Vec<String> = keys.iter().map(batch_name).collect();
        let waits = |one: &Blocker| {
            let application = one.application.as_ref();
            application.is_some_and(|a| names.contains(a) && self.0.contains_key(a))
        };
        let mut holders: Vec<Blocker> = Vec::new();
        for one in names.iter().filter_map(|name| self.0.get(name)).flatten() {
            let is_known = |h: &Blocker| (h.pid, &h.prepared) == (one.pid, &one.prepared);
            if !waits(one) && !holders.iter().any(is_known) {
                holders.push(one.clone());
            }
        }
        holders
    }
}
