//! Exact, pull-based projections for PostgreSQL.
//!
//! A *projection* is one SQL file or a Rust type. It stores its *checkpoint* beside its read model and
//! pulls events in the order of their position, up to the *mark*: the highest position below which
//! nothing can still appear. A notification only wakes it.
//!
//! # A first program
//!
//! One projection in SQL, one in Rust, an append, and a wait until both read models include it:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use highwater::{BoxError, ExpectedVersion, Highwater, KeyedView, NewEvent, OnUnknown, RecordedEvent, Until};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! enum Account {
//!     Opened { owner: String },
//!     Deposited { cents: i64 },
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Balance {
//!     account: String,
//!     owner: String,
//!     cents: i64,
//! }
//!
//! struct Balances;
//!
//! impl KeyedView for Balances {
//!     type Event = Account; // its variants are the event types
//!     type Key = String;
//!     type Row = Balance; // its fields are the columns
//!     const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;
//!
//!     fn name(&self) -> &str {
//!         "balances" // also the name of its schema
//!     }
//!     fn up(&self) -> &str {
//!         "create table balance (account text primary key, owner text, cents bigint)"
//!     }
//!     fn table(&self) -> &str {
//!         "balance"
//!     }
//!     fn key_columns(&self) -> &[&str] {
//!         &["account"]
//!     }
//!     fn key(&self, _: &Account, recorded: &RecordedEvent) -> Result<Option<String>, BoxError> {
//!         Ok(Some(recorded.stream.clone()))
//!     }
//!     fn fold(
//!         &self,
//!         row: Option<Balance>,
//!         event: Account,
//!         recorded: &RecordedEvent,
//!     ) -> Result<Option<Balance>, BoxError> {
//!         let account = recorded.stream.clone();
//!         Ok(Some(match event {
//!             Account::Opened { owner } => Balance { account, owner, cents: 0 },
//!             Account::Deposited { cents } => {
//!                 let row = row.ok_or("a deposit into no account")?;
//!                 Balance { cents: row.cents + cents, ..row }
//!             }
//!         }))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), BoxError> {
//!     let highwater = Highwater::connect("postgresql://app@localhost/shop")
//!         .await?
//!         .sql_file("projections/orders.sql")?
//!         .keyed(Balances);
//!     let (handle, store) = (highwater.handle(), highwater.event_store());
//!     let running = tokio::spawn(highwater.run(Until::Stopped));
//!
//!     let opened = NewEvent::new("Opened", &serde_json::json!({ "owner": "ann" }))?;
//!     let appended = store.append("account-1", ExpectedVersion::NoStream, &[opened]).await?;
//!     if let Some(position) = appended.last() {
//!         for projection in ["orders", "balances"] {
//!             let waited = handle.wait(projection, position, Duration::from_secs(5)).await?;
//!             println!("{projection}: {waited}");
//!         }
//!     }
//!
//!     handle.stop();
//!     for (name, outcome) in running.await??.outcomes {
//!         println!("{name}: {outcome:?}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What there is
//!
//! - [`Highwater`] connects, takes projections and runs them; its [`Handle`] stops, pauses, waits and
//!   watches.
//! - A projection is a SQL file, a [`KeyedView`] (one row per key, folded from typed events) or a
//!   [`Projection`] (a batch and the open transaction, [`Tx`]).
//! - [`EventStore`] appends and reads events.
//! - [`source`] is for events that are elsewhere: a source of your own.
//! - [`Error`] has a kind, a location, a hint, and the event and the SQLSTATE it is about. A projection's own
//!   code may fail with any error; [`Error::poison`] and [`Error::transient`] say what the engine
//!   does about it.
//! - [`postgres`] is the driver, in the version that highwater uses.
//!
//! | feature | what it adds | by default |
//! |---|---|---|
//! | `cli` | the module `cli`: all commands, for a program with its own projections compiled in | yes |
//! | `cluster` | the module `cluster`: a private PostgreSQL for development | with `cli` |
//! | `gz` | files of events may be compressed | with `cli` |
//! | `testing` | the module `testing`: a database for each test, a source in memory | no |
//!
//! # Guarantees
//!
//! - Every committed event is applied to every read model once, in the order of positions, whatever
//!   writers, crashes or a second instance do. No timer decides what may be skipped.
//! - Read model and checkpoint are written in one transaction, which is fenced: of two runners only
//!   the last to start can commit.
//! - A projection that is behind, stopped or blocked reports its state, the reason and the blocking
//!   session.
//!
//! On these conditions: the position comes from a sequence with CACHE 1, drawn inside the
//! transaction that inserts the event; events are not changed; what the table must be is checked
//! while it runs and refused by name ([`ErrorKind::Precondition`]).

#![cfg_attr(docsrs, feature(doc_cfg))]
// Much is public for the module `internal` alone.
#![cfg_attr(
    not(feature = "internal"),
    allow(dead_code, unreachable_pub, unused_imports)
)]

mod append;
mod audit;
mod block;
mod check;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
mod config;
mod dead_letters;
mod engine;
mod error;
mod event;
mod event_store;
mod facade;
mod failpoint;
#[cfg(test)]
mod fuzz;
mod given_expect;
mod host;
mod key_hash;
mod mark;
mod metrics;
mod mutation;
mod name;
mod ndjson;
mod pause;
mod pg;
mod position;
mod projection;
mod retry;
mod runner_state;
pub mod source;
mod status;
mod suggest;
#[cfg(feature = "testing")]
pub mod testing;
mod wait;

use highwater_sql_text as sql_text;
pub use tokio_postgres as postgres;

pub use engine::{
    Changes, Outcome, ProjectionProgress, Report, RunnerState, RunnerStatus, Settings, Until,
};
pub use error::{BoxError, Error, ErrorKind, EventRef, Result, StoredError, Verdict};
pub use event::{ExpectedVersion, NewEvent, RecordedEvent};
pub use event_store::{Appended, AppendedEvent, EventStore, Wake};
pub use facade::{Handle, Highwater};
pub use name::ProjectionName;
pub use pause::Paused;
pub use pg::transaction::{TextStatement, Tx};
pub use pg::value::{SqlElement, SqlType, SqlValue};
pub use position::{Position, Range};
pub use projection::{BatchWriter, KeyedView, OnError, OnUnknown, Projection};
pub use source::Batch;
pub use status::{
    DefinitionState, Gap, Gone, PartitionStatus, ProjectionStatus, Rebuild, Repartition,
    SourceStatus, State, Status,
};
pub use wait::{Target, Waited};

/// The implementation, for highwater's own tests, benchmarks and examples. It may change at any time.
#[cfg(feature = "internal")]
#[doc(hidden)]
pub mod internal {
    macro_rules! internal {
        ($($module:ident)+) => {
            $(
                pub mod $module {
                    pub use crate::$module::*;
                }
            )+
        };
    }

    internal! {
        append audit check config dead_letters engine error event event_store given_expect mark metrics name
        ndjson pause pg position projection retry source status wait
    }

    #[cfg(feature = "faults")]
    internal! { failpoint mutation }
}

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
