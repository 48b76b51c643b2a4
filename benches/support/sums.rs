//! The read model of sums, as each kind of projection keeps it.

use std::sync::Arc;

use highwater::internal::projection::{DynProjection, Keyed, KeyedView, OnUnknown};
use highwater::{BoxError, RecordedEvent, Result};
use serde::{Deserialize, Serialize};

use super::events::{self, TABLE};

/// As a SQL projection that leaves `Seen` out.
pub(crate) fn in_sql(name: &str) -> Result<Arc<dyn DynProjection>> {
    let text = events::sums_text(r#"events = ["Booked"]"#);
    events::sql_projection(name, &text)
}

/// As a keyed view in Rust, which leaves `Seen` out too.
pub(crate) fn keyed(name: &str) -> Result<Arc<dyn DynProjection>> {
    let view = View {
        name: name.to_owned(),
        up: create(),
    };
    Ok(Arc::new(Keyed::new(view)?))
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

struct View {
    name: String,
    up: String,
}

impl KeyedView for View {
    type Event = Account;
    type Key = String;
    type Row = Sum;
    const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;

    fn name(&self) -> &str {
        &self.name
    }

    fn up(&self) -> &str {
        &self.up
    }

    fn table(&self) -> &str {
        "sums"
    }

    fn key_columns(&self) -> &[&str] {
        &["stream"]
    }

    fn key(&self, _: &Account, recorded: &RecordedEvent) -> Result<Option<String>, BoxError> {
        Ok(Some(recorded.stream.clone()))
    }

    fn fold(
        &self,
        row: Option<Sum>,
        event: Account,
        recorded: &RecordedEvent,
    ) -> Result<Option<Sum>, BoxError> {
        let Account::Booked { amount } = event;
        let mut row = row.unwrap_or_else(|| Sum {
            stream: recorded.stream.clone(),
            ..Sum::default()
        });
        row.book(amount, recorded);
        Ok(Some(row))
    }
}
