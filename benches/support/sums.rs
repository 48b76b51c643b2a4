//! The read model of sums, as each kind of projection keeps it.

use std::sync::Arc;

use highwater::internal::projection::DynProjection;
use highwater::{RecordedEvent, Result};
use serde::{Deserialize, Serialize};

use keyed_view::ByStream;

use super::events::{self, TABLE};

#[path = "../../tests/it/support/keyed_view.rs"]
mod keyed_view;

/// As a SQL projection that leaves `Seen` out.
pub(crate) fn in_sql(name: &str) -> Result<Arc<dyn DynProjection>> {
    let text = events::sums_text(r#"events = ["Booked"]"#);
    events::sql_projection(name, &text)
}

/// As a keyed view in Rust, which leaves `Seen` out too.
pub(crate) fn keyed(name: &str) -> Result<Arc<dyn DynProjection>> {
    let fold = |row: Option<Sum>, event: Account, recorded: &RecordedEvent| {
        let Account::Booked { amount } = event;
        let mut row = row.unwrap_or_else(|| Sum {
            stream: recorded.stream.clone(),
            ..Sum::default()
        });
        row.book(amount, recorded);
        Some(row)
    };
    let view = ByStream {
        name: name.to_owned(),
        up: create(),
        table: "sums",
        key_column: "stream",
        fold: Box::new(fold),
    };
    view.projection()
}

/// What makes the table.
pub(crate) fn create() -> String {
    format!("create table sums {TABLE}")
}

#[derive(Deserialize)]
enum Account {
    Booked { amount: i64 },
}

/// A row.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) stream: String,
    pub(crate) bookings: i64,
    pub(crate) amount: i64,
    pub(crate) last_position: i64,
}

impl Sum {
    pub(crate) fn book(&mut self, amount: i64, recorded: &RecordedEvent) {
        self.bookings += 1;
        self.amount += amount;
        self.last_position = recorded.position.get();
    }
}
