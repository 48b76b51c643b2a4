//! Everything that needs a real PostgreSQL: one binary, so that one server serves all of it.

// In a test a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cluster;
mod crash;
mod database;
mod exactness;
mod mark;
mod migrate;
mod runner;
mod support;
mod tls;
