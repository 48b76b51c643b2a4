//! For the tests of one's own projections: a database for each test, a source in memory, and a
//! run to the head. For those of one's own source: what every source must do.

pub mod conformance;
mod database;
mod memory;
mod run;

pub use crate::projection::file::ProjectionFile;
pub use crate::projection::{DynProjection, Keyed, RustProjection, SqlProjection};
pub use crate::source::Source;
pub use database::TestDatabase;
pub use memory::MemorySource;
pub use run::run_to_head;
