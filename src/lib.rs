//! Exact, pull-based projections for PostgreSQL.
//!
//! A *projection* is one SQL file or a Rust type. It stores its *checkpoint* beside its read model and
//! pulls events in the order of their position, up to the *mark*: the highest position below which
//! nothing can still appear. A notification only wakes it.
//!
//! # The components, in reading order
//!
//! - [`position`], [`event`], [`error`], [`name`]: the words, without I/O.
//! - [`mark`]: the rule of the high-water mark, also without I/O.
//! - [`pg`]: connections, migrations, checkpoints with their fence, transactions.
//! - [`source`]: where events come from; [`source::table`] is a PostgreSQL table.
//! - [`projection`]: what builds a read model: a SQL file ([`projection::file`]),
//!   [`projection::KeyedView`], [`projection::Projection`].
//! - [`retry`]: from a kind of error to transient, poison or fatal.
//! - [`engine`]: all runners of a process; `engine/runner.rs` holds the loop.
//! - [`event_store`] and [`append`]: events into the log, from Rust and from files ([`ndjson`]).
//! - [`status`] and [`wait`]: how everything fares, and waiting for a position.
//! - [`given_expect`] and [`check`]: the tests of projections; what is wrong before anything runs.
//! - [`config`], [`metrics`]: settings; names of metrics.
//! - [`cluster`]: a private PostgreSQL for development.
//! - `cli` (feature `cli`, on by default): the commands, for the binary and a program of one's own.
//! - `testing` (feature `testing`): a database for each test, a source in memory.
//!
//! # What is promised
//!
//! - Every committed event is applied to every read model once, in the order of positions, whatever
//!   writers, crashes or a second instance do. No timer decides what may be skipped.
//! - Read model and checkpoint are written in one transaction, which is fenced: of two runners only
//!   the last to start can commit.
//! - A projection that is behind, stopped or blocked says so, says why, and says who.
//!
//! On these conditions: the position comes from a sequence with CACHE 1, drawn inside the
//! transaction that inserts the event; events are not changed; what the table must be is looked at
//! while it runs and refused by name ([`ErrorKind::Precondition`]).
//!
//! # A first program
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use highwater::pg::{connect::Connector, database::Database, migrate};
//! use highwater::projection::{SqlProjection, file::ProjectionFile};
//! use highwater::source::table::{EventTable, TableSource};
//! use highwater::{Engine, EventStore, ExpectedVersion, NewEvent, Until};
//! use tokio_util::sync::CancellationToken;
//!
//! #[tokio::main]
//! async fn main() -> highwater::Result<()> {
//!     let connector = Connector::parse("postgresql://app@localhost/shop")?;
//!     migrate::migrate(&mut connector.connect().await?).await?;
//!     // A pool for read models and one for reading events: a runner holds one of each.
//!     let target = Database::new(connector.clone(), 8)?;
//!     let events = Database::new(connector.clone(), 4)?;
//!
//!     let store = EventStore::new(events.clone());
//!     let placed = NewEvent::new("OrderPlaced", &serde_json::json!({ "cents": 2000 }))?;
//!     store.append("order-1", ExpectedVersion::NoStream, &[placed]).await?;
//!
//!     let source = TableSource::new("default", events, Some(connector), EventTable::own());
//!     let file = ProjectionFile::load("projections/orders.sql".as_ref())?;
//!     let engine = Engine::new(target, Default::default())
//!         .source(Arc::new(source))
//!         .projection(Arc::new(SqlProjection::new(file)));
//!     let report = engine.run(Until::CaughtUp, CancellationToken::new()).await?;
//!     for (name, outcome) in report.outcomes {
//!         println!("{name}: {outcome:?}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A program that wants the commands instead calls `cli::App::main`.

pub mod append;
pub mod audit;
mod block;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dead_letters;
pub mod engine;
pub mod error;
pub mod event;
pub mod event_store;
pub mod failpoint;
#[cfg(test)]
mod fuzz;
pub mod given_expect;
mod key_hash;
pub mod mark;
pub mod metrics;
pub mod mutation;
mod name;
pub mod ndjson;
mod near;
pub mod pause;
pub mod pg;
pub mod position;
pub mod projection;
pub mod retry;
mod runner_state;
pub mod source;
pub mod sql_text;
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

/// The examples of the README and of the book are compiled.
#[cfg(all(doctest, feature = "cli"))]
mod book {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/rust.md")]
    struct Rust;
    #[doc = include_str!("../docs/appending.md")]
    struct Appending;
}
