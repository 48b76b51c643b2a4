//! Exact, pull-based projections for PostgreSQL.

pub mod cluster;
pub mod error;
pub mod event;
pub mod name;
pub mod pg;
pub mod position;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, ErrorKind, Result};
pub use event::{ExpectedVersion, NewEvent, RecordedEvent};
pub use name::ProjectionName;
pub use position::{Position, Range};
