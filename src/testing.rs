//! For the tests of one's own projections: a database for each test, and a source in memory. For
//! those of one's own source: what every source must do.

pub mod conformance;
mod database;
mod memory;

pub use database::TestDatabase;
pub use memory::MemorySource;
