//! Exact, pull-based projections for PostgreSQL.

pub mod append;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod error;
pub mod event;
pub mod event_store;
pub mod given_expect;
pub mod mark;
pub mod metrics;
pub mod name;
pub mod ndjson;
mod near;
pub mod pg;
pub mod position;
pub mod projection;
pub mod retry;
mod runner_state;
pub mod source;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wait;

pub use engine::{Engine, Outcome, Report, Until};
pub use error::{Error, ErrorKind, Result};
pub use event::{ExpectedVersion, NewEvent, RecordedEvent};
pub use event_store::{Appended, AppendedEvent, EventStore, Wake};
pub use name::ProjectionName;
pub use position::{Position, Range};
