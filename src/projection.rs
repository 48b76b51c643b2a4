//! The seam to projections: a definition, its tables, and how a batch is applied.
//!
//! A projection is a SQL file ([`mod@file`]) or Rust: [`Projection`] gets a batch and the open
//! transaction, [`KeyedView`] folds typed events into one row per key.

use sha2::{Digest, Sha256};
use tokio_postgres::Row;

use crate::error::{BoxError, Error, Result};
use crate::name::ProjectionName;
use crate::pg::transaction::{TextStatement, Tx};
use crate::source::{Batch, BoxFuture, Keys};

mod failure;
pub mod file;
mod keyed_view;
mod rust;
mod sql;
pub mod test_file;
mod toml_text;
mod typed;

pub use crate::sql_text::BatchPlace;
pub use file::OnError;
pub use keyed_view::{Keyed, KeyedView};
pub use rust::RustProjection;
pub use sql::SqlProjection;
pub use typed::OnUnknown;

/// The most partitions that a projection can have.
pub const PARTITIONS_MAX: u16 = 1024;

/// What a projection is, apart from how it applies a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name and the name of its schema.
    pub name: ProjectionName,
    /// The event types it wants; `None` is all.
    pub events: Option<Vec<String>>,
    /// The name of its source.
    pub source: String,
    /// What order and parking are per: a SQL expression over the columns of an event.
    pub key: String,
    /// How many partitions it is to have; a setting, free to change.
    pub partitions: u16,
    /// What happens at an event that can never be applied; a setting, free to change.
    pub on_error: OnError,
    /// The hash of everything that decides what the read model contains: another hash, another read
    /// model.
    pub hash: String,
    /// The text of its file; `None` for a projection in Rust, whose code cannot be stored.
    pub text: Option<String>,
}

/// A projection in Rust: a batch and the open transaction.
///
/// The engine moves the checkpoint in `tx` and commits it after `apply`: both happen or none.
/// One batch is applied at a time, in the order of positions. Behind the head one transaction takes
/// several, so that its cost is shared: `apply` is called for each. How a history is cut into
/// batches and transactions changes from run to run, so the outcome must not depend on it.
pub trait Projection: Send + Sync + 'static {
    /// Its name, which is also the name of its schema.
    fn name(&self) -> &str;

    /// The SQL that creates its tables, run once in its empty schema.
    fn up(&self) -> &str;

    /// The event types it wants; `None`, the default, is all.
    fn events(&self) -> Option<Vec<String>> {
        None
    }

    /// The name of its source.
    fn source(&self) -> &str {
        "default"
    }

    /// What order and parking are per: a SQL expression over the columns of an event, such as
    /// `data->>'customer'`, of built-in functions that always give the same; the key may be null.
    fn key_sql(&self) -> &str {
        Keys::STREAM
    }

    /// How many partitions run side by side, by hash of the key; at most 1,024. Free
    /// to change.
    fn partitions(&self) -> u16 {
        1
    }

    /// What happens at an event that can never be applied. Free to change.
    fn on_error(&self) -> OnError {
        OnError::Stop
    }

    /// Raise it when `apply` would build another read model from the same events: the projection
    /// then stops as `changed` until it is rebuilt or the change accepted.
    fn revision(&self) -> u32 {
        1
    }

    /// Applies the events of one batch.
    ///
    /// # Errors
    /// Any error: `?` takes every type. The batch is rolled back. It is retried if the error is
    /// transient: [`Error::transient`], or a transient one of the server, also as the source of an
    /// error of your own. Any other is narrowed down to the event that causes it.
    fn apply(
        &self,
        batch: &Batch,
        tx: &Tx<'_>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Begins a transaction, which takes one batch or several. Implement it to keep something from
    /// one batch to the next and write it at the end; the default calls [`Projection::apply`] for
    /// each batch.
    fn begin<'a>(&'a self, tx: Tx<'a>) -> Box<dyn BatchWriter + 'a>
    where
        Self: Sized,
    {
        Box::new(rust::PlainBatchWriter::new(self, tx))
    }
}

/// Applies the batches of one transaction. It is dropped without [`BatchWriter::last_write`] when
/// the transaction is rolled back.
pub trait BatchWriter: Send {
    /// The statement that reads what the next batch needs; it must only read. The engine sends it,
    /// for the first batch of a transaction together with the statements that open it.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    fn first_read(&mut self, _batch: &Batch) -> Result<Option<TextStatement>> {
        Ok(None)
    }

    /// Applies the next batch, which begins where the one before ended. `rows` is the result of
    /// [`BatchWriter::first_read`].
    ///
    /// # Errors
    /// As [`Projection::apply`].
    fn apply<'a>(&'a mut self, batch: &'a Batch, rows: Vec<Row>) -> BoxFuture<'a, Result<()>>;

    /// Writes what is not written yet, except one statement, which it returns: the engine sends
    /// that one together with the commit. Called once, after the last batch.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    fn last_write(&mut self) -> BoxFuture<'_, Result<Option<TextStatement>>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether it keeps rows until the end of the transaction: then one transaction takes many
    /// batches.
    fn gains_by_many(&self) -> bool {
        true
    }
}

/// A projection as the engine runs it.
pub trait DynProjection: Send + Sync + 'static {
    /// What it is.
    fn definition(&self) -> &Definition;

    /// Creates its tables. The schema is there, empty, and first in the search path.
    fn set_up<'a>(&'a self, tx: &'a Tx<'a>) -> BoxFuture<'a, Result<()>>;

    /// The statements that apply a range inside the server, where the view `batch` shows it; no
    /// event then leaves the database. `None` if it needs to be given the events.
    fn statements(&self) -> Option<Statements<'_>>;

    /// Begins to apply batches that are read. Not called if there are
    /// [`DynProjection::statements`].
    ///
    /// # Errors
    /// If it can only do so inside the server.
    fn begin<'a>(&'a self, tx: Tx<'a>) -> Result<Box<dyn BatchWriter + 'a>>;
}

/// Statements that apply a range inside the server.
#[derive(Clone, Copy)]
pub struct Statements<'a> {
    /// Their text, sent as it is except for `batch`.
    pub text: &'a str,
    /// Where in the text `batch` is to be defined, in order; elsewhere the view is read.
    pub batch: &'a [BatchPlace],
    /// Locates an error of one of them: the number of statements that succeeded before, and the
    /// character offset in `text` if the server knows it.
    pub locate: &'a (dyn Fn(usize, Option<usize>) -> String + Send + Sync),
}

/// The hash of a definition, over parts that are separated by their lengths.
pub(crate) fn hash_of(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Two projections cannot have the same name.
///
/// # Errors
/// The first name that occurs twice.
pub fn check_names<'a>(projections: impl Iterator<Item = &'a dyn DynProjection>) -> Result<()> {
    let mut names: Vec<&str> = projections.map(|p| p.definition().name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::new(
            crate::error::ErrorKind::Config,
            format!("two projections are named \"{}\"", pair[0]),
        )
        .with_hint("rename one of them; a SQL file and a projection in Rust share the names")),
    }
}
