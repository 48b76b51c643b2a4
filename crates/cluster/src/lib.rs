#![doc = include_str!("../README.md")]

mod account;
mod cluster;
mod error;
mod locate;
mod place;
mod probe;
mod running;
mod server;
mod start;

pub use cluster::{Cluster, DATABASE};
pub use error::{Error, ErrorKind, Result};
pub use locate::Binaries;
