//! Exact, pull-based projections for PostgreSQL.

pub mod config;
pub mod error;
pub mod event;
pub mod mark;
pub mod name;
mod near;
pub mod pg;
pub mod position;
pub mod projection;

pub use error::{Error, ErrorKind, Result};
pub use event::{ExpectedVersion, NewEvent, RecordedEvent};
pub use name::ProjectionName;
pub use position::{Position, Range};
