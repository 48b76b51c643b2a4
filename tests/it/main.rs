//! The integration tests, one module for each behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod append;
mod append_file;
mod database;
mod migrate;
