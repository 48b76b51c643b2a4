//! Everything that needs a real PostgreSQL: one binary, so that one server serves all of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "in a test a panic is the report, and nobody uses it from outside"
)]

mod actions;
mod append;
mod append_file;
mod append_id;
mod append_race;
mod audit;
mod batch_groups;
mod check;
#[cfg(feature = "cli")]
mod cli;
mod crash;
mod database;
mod dead_letters;
mod divergence;
mod docs;
mod errors;
mod exactness;
mod failover;
mod fence;
mod given_expect;
mod hangs;
mod hostile;
mod invariants;
mod layers;
mod live_view;
mod lock_order;
mod many_instances;
mod mark;
mod migrate;
mod mutations;
mod outside;
mod parking;
mod partition_batch;
mod partitions;
mod pooler;
mod positions;
mod rebuild;
mod runner;
mod rust_projection;
mod sources;
mod sql_files;
mod status;
mod support;
mod test_database;
mod tokio_history;
mod wait;
mod wake;
