//! The one rule by which an event changes the read model: parameters of `sql/upsert.sql`.

use crate::workload::Data;

/// Makes the table, in a schema of its own as highwater does.
pub const READ_MODEL: &str = concat!(
    "create schema orders; set search_path = orders, public;\n",
    include_str!("../../sql/read_model.sql"),
    "reset search_path;",
);

/// Applies one event: `$1` to `$5` are the stream and the fields of [`Change`].
pub const UPSERT: &str = include_str!("../../sql/upsert.sql");

#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub items: i32,
    pub cents: i64,
    /// None: stays as it is.
    pub status: Option<&'static str>,
    pub last: i32,
}

impl Change {
    pub fn of(kind: &str, data: &Data) -> Change {
        let added = kind == "ItemAdded";
        Change {
            items: if added { data.quantity } else { 0 },
            cents: if added { data.cents } else { 0 },
            status: (kind == "OrderShipped").then_some("shipped"),
            last: data.n,
        }
    }
}
