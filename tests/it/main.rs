//! The integration tests, one module for each behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod append;
mod database;
mod migrate;
mod tls;
