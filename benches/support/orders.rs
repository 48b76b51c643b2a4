//! The work of the ordinary read models: orders of a shop.

use highwater::Result;

use super::{Db, failed, psql};

/// How the events of different orders follow each other in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One order after the other, as an import writes them.
    StreamByStream,
    /// Orders take turns, so that every stretch of the log has events of all of them.
    Interleaved,
}

impl Layout {
    pub(crate) const ALL: [Layout; 2] = [Layout::StreamByStream, Layout::Interleaved];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Layout::StreamByStream => "stream by stream",
            Layout::Interleaved => "interleaved",
        }
    }
}

/// What a log is filled with: `benches/models/orders.sql`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    /// Twenty for each order.
    pub(crate) events: u64,
    pub(crate) layout: Layout,
}

impl Orders {
    /// Appends the events to an empty log.
    pub(crate) async fn fill(&self, db: &Db) -> Result<()> {
        const AT_ONCE: usize = 500_000;
        let events = self.events.to_string();
        let interleaved = (self.layout == Layout::Interleaved).to_string();
        for from in (0..self.events).step_by(AT_ONCE) {
            let to = (from + AT_ONCE as u64).min(self.events).to_string();
            let from = from.to_string();
            let variables = [
                ("events", events.as_str()),
                ("interleaved", &interleaved),
                ("from", &from),
                ("to", &to),
            ];
            psql::run(db, "highwater", "orders.sql", &variables).await?;
        }
        settle(db).await
    }
}

/// Leaves the log as a server would have it that is not new.
pub(crate) async fn settle(db: &Db) -> Result<()> {
    let client = db.client().await?;
    for sql in ["vacuum (analyze) highwater.event", "checkpoint"] {
        client.batch_execute(sql).await.map_err(failed)?;
    }
    Ok(())
}
