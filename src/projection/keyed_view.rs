//! [`KeyedView`]: one row per key, folded from typed events.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::pg::transaction::Tx;
use crate::projection::typed::{self, OnUnknown};
use crate::projection::{BatchWriter, OnError, Projection, RustProjection};
use crate::source::{Batch, Keys};

mod fold;
mod rows;

use fold::KeyedBatchWriter;

/// A read model with one row per key: rows are loaded when an event first needs them, many in one
/// query, folded in memory, and written back at the end of the transaction, or earlier when they
/// take more than about 16 MiB.
///
/// Events are an enum with a variant for each event type, named as the type:
///
/// ```
/// use highwater::{BoxError, KeyedView, OnUnknown, RecordedEvent};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// enum Account {
///     Opened { owner: String },
///     Deposited { cents: i64 },
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Balance {
///     account: String,
///     owner: String,
///     cents: i64,
/// }
///
/// struct Balances;
///
/// impl KeyedView for Balances {
///     type Event = Account;
///     type Key = String;
///     type Row = Balance;
///     const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;
///
///     fn name(&self) -> &str {
///         "balances"
///     }
///     fn up(&self) -> &str {
///         "create table balance (account text primary key, owner text, cents bigint)"
///     }
///     fn table(&self) -> &str {
///         "balance"
///     }
///     fn key_columns(&self) -> &[&str] {
///         &["account"]
///     }
///     fn key(&self, _: &Account, recorded: &RecordedEvent) -> Result<Option<String>, BoxError> {
///         Ok(Some(recorded.stream.clone()))
///     }
///     fn fold(
///         &self,
///         row: Option<Balance>,
///         event: Account,
///         recorded: &RecordedEvent,
///     ) -> Result<Option<Balance>, BoxError> {
///         let account = recorded.stream.clone();
///         Ok(match event {
///             Account::Opened { owner } => Some(Balance { account, owner, cents: 0 }),
///             Account::Deposited { cents } => {
///                 let row = row.ok_or("a deposit before the account was opened")?;
///                 let cents = row.cents.checked_add(cents).ok_or("too rich")?;
///                 Some(Balance { cents, ..row })
///             }
///         })
///     }
/// }
///
/// # assert!(highwater::internal::projection::Keyed::new(Balances).is_ok());
/// ```
pub trait KeyedView: Send + Sync + 'static {
    /// The events, an enum whose variants are named as the event types.
    type Event: DeserializeOwned + Send;

    /// The key of a row: a value for one key column, a tuple for several.
    type Key: Serialize + Eq + Hash + Clone + Send + Sync + 'static;

    /// A row: a struct whose fields are the table's columns, the key's among them.
    type Row: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What to do with an event whose type [`KeyedView::Event`] does not have:
    /// [`OnUnknown::Ignore`] leaves it out, [`OnUnknown::Stop`] stops the projection at it.
    const ON_UNKNOWN: OnUnknown;

    /// Its name, which is also the name of its schema.
    fn name(&self) -> &str;

    /// The SQL that creates its table, run once in its empty schema.
    fn up(&self) -> &str;

    /// The table, in the projection's schema.
    fn table(&self) -> &str;

    /// The columns of the table's primary key, in the order of [`KeyedView::Key`].
    fn key_columns(&self) -> &[&str];

    /// The name of its source.
    fn source(&self) -> &str {
        "default"
    }

    /// What order and parking are per: a SQL expression over the columns of an event, such as
    /// `data->>'customer'`, of built-in functions that always give the same; the key may be null.
    ///
    /// With more than one partition, events of one row must have one key: otherwise two partitions
    /// would write the same row.
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

    /// As [`Projection::revision`]: raise it when the fold changes.
    fn revision(&self) -> u32 {
        1
    }

    /// The key of the row that this event is about; `None` leaves the event out.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    fn key(
        &self,
        event: &Self::Event,
        recorded: &RecordedEvent,
    ) -> Result<Option<Self::Key>, BoxError>;

    /// The row after this event, from the row before it; `None` is no row. A row that becomes
    /// `None` is deleted.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    fn fold(
        &self,
        row: Option<Self::Row>,
        event: Self::Event,
        recorded: &RecordedEvent,
    ) -> Result<Option<Self::Row>, BoxError>;
}

/// A [`KeyedView`] as a [`Projection`].
pub struct Keyed<V>(V);

impl<V: KeyedView> Keyed<V> {
    /// The view as the engine runs it.
    ///
    /// # Errors
    /// If its name cannot name a schema, its event is no enum, or it has no key column.
    pub fn new(view: V) -> Result<RustProjection<Keyed<V>>> {
        if typed::variants_of::<V::Event>().is_none() {
            let what = format!("the event of projection \"{}\" is not an enum", view.name());
            return Err(Error::new(ErrorKind::Config, what)
                .with_hint("derive Deserialize for an enum with a variant for each event type"));
        }
        if view.key_columns().is_empty() {
            let what = format!("projection \"{}\" names no key column", view.name());
            return Err(Error::new(ErrorKind::Config, what)
                .with_hint("return the columns of its primary key from key_columns"));
        }
        RustProjection::new(Keyed(view))
    }
}

impl<V: KeyedView> Projection for Keyed<V> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn up(&self) -> &str {
        self.0.up()
    }

    fn events(&self) -> Option<Vec<String>> {
        // To stop at an unknown type, it must be read.
        if V::ON_UNKNOWN == OnUnknown::Stop {
            return None;
        }
        let variants = typed::variants_of::<V::Event>()?;
        Some(variants.iter().map(|&name| name.to_owned()).collect())
    }

    fn source(&self) -> &str {
        self.0.source()
    }

    fn key_sql(&self) -> &str {
        self.0.key_sql()
    }

    fn partitions(&self) -> u16 {
        self.0.partitions()
    }

    fn on_error(&self) -> OnError {
        self.0.on_error()
    }

    fn revision(&self) -> u32 {
        self.0.revision()
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        let mut folding = KeyedBatchWriter::new(&self.0, *tx);
        let rows = match folding.first_read(batch)? {
            Some(read) => tx.query_text(&read).await?,
            None => Vec::new(),
        };
        folding.apply(batch, rows).await?;
        if let Some(write) = folding.last_write().await? {
            tx.execute_text(&write).await?;
        }
        Ok(())
    }

    fn begin<'a>(&'a self, tx: Tx<'a>) -> Box<dyn BatchWriter + 'a> {
        Box::new(KeyedBatchWriter::new(&self.0, tx))
    }
}
