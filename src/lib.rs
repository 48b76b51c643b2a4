//! Exact, pull-based projections for PostgreSQL.

pub mod append;
pub mod error;
pub mod event;
pub mod event_store;
pub mod mark;
pub mod name;
pub mod ndjson;
pub mod pg;
pub mod position;

pub use error::{Error, ErrorKind, Result};
pub use event::{ExpectedVersion, NewEvent, RecordedEvent};
pub use event_store::{Appended, AppendedEvent, EventStore, Wake};
pub use name::ProjectionName;
pub use position::{Position, Range};
