//! For the tests of one's own projections: a database for each test.

mod database;

pub use database::TestDatabase;
