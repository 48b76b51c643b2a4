#![doc = include_str!("../README.md")]

mod connector;
mod conninfo;
mod environment;
mod error;
mod failure;
mod given;
mod listen;
mod open;
mod passfile;
mod pool;
mod settings;
mod tls;

pub use connector::{Connector, Session};
pub use conninfo::redact;
pub use error::{Error, ErrorKind, Result, is_connection_lost};
pub use listen::Notifications;
pub use pool::{Pool, PooledClient, pool_error};
pub use settings::Defaults;
