//! [`KeyedView`]: one row per key, folded from typed events.

use std::hash::Hash;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::pg::transaction::Tx;
use crate::projection::typed::{self, OnUnknown};
use crate::projection::{BatchWriter, OnError, Projection, RustProjection};
use crate::source::{Batch, Keys};

mod fold;
mod rows;

use fold::Folding;

/// A read model with one row per key: rows are loaded when an event first needs them, many in one
/// query, folded in memory, and written back at the end of the transaction, or earlier when they
/// take more than about 16 MiB.
///
/// `K` is the key: a value for one key column, a tuple for several. `S` is the row: a struct
/// whose fields are the table's columns, the key's among them.
///
/// Events are an enum with a variant for each event type, named as the type:
///
/// ```
/// use highwater::RecordedEvent;
/// use highwater::projection::{Keyed, KeyedView, OnUnknown};
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
/// impl KeyedView<String, Balance> for Balances {
///     type Event = Account;
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
///     fn key(&self, _: &Account, recorded: &RecordedEvent) -> Option<String> {
///         Some(recorded.stream.clone())
///     }
///     fn fold(&self, row: Option<Balance>, event: Account, recorded: &RecordedEvent) -> Option<Balance> {
///         let account = recorded.stream.clone();
///         match event {
///             Account::Opened { owner } => Some(Balance { account, owner, cents: 0 }),
///             Account::Deposited { cents } => row.map(|row| Balance { cents: row.cents + cents, ..row }),
///         }
///     }
/// }
///
/// assert!(Keyed::new(Balances).is_ok());
/// ```
pub trait KeyedView<K, S>: Send + Sync + 'static
where
    K: Serialize + Eq + Hash + Clone + Send + Sync + 'static,
    S: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The events, an enum whose variants are named as the event types.
    type Event: DeserializeOwned + Send;

    /// What an event is whose type [`KeyedView::Event`] does not have: [`OnUnknown::Ignore`]
    /// leaves it out, [`OnUnknown::Stop`] stops the projection at it.
    const ON_UNKNOWN: OnUnknown;

    /// Its name, which is also the name of its schema.
    fn name(&self) -> &str;

    /// The SQL that creates its table, run once in its empty schema.
    fn up(&self) -> &str;

    /// The table, in the projection's schema.
    fn table(&self) -> &str;

    /// The columns of the table's primary key, in the order of `K`.
    fn key_columns(&self) -> &[&str];

    /// The name of its source.
    fn source(&self) -> &str {
        "default"
    }

    /// What order and parking are per: a SQL expression over the columns of an event, such as
    /// `data->>'customer'`, of built-in functions that always give the same; the key may be null.
    ///
    /// With more than one partition, events of one row must have one key: two partitions would
    /// else write the same row.
    fn key_sql(&self) -> &str {
        Keys::STREAM
    }

    /// How many partitions run side by side, by hash of the key; at most [`PARTITIONS_MAX`](crate::projection::PARTITIONS_MAX). Free
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
    fn key(&self, event: &Self::Event, recorded: &RecordedEvent) -> Option<K>;

    /// The row after this event, from the row before it; `None` is no row. One that stays `None`
    /// or becomes it is deleted.
    fn fold(&self, row: Option<S>, event: Self::Event, recorded: &RecordedEvent) -> Option<S>;
}

/// A [`KeyedView`] as a [`Projection`].
pub struct Keyed<V, K, S> {
    view: V,
    row: PhantomData<fn() -> (K, S)>,
}

impl<V, K, S> Keyed<V, K, S>
where
    V: KeyedView<K, S>,
    K: Serialize + Eq + Hash + Clone + Send + Sync + 'static,
    S: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The view as the engine runs it.
    ///
    /// # Errors
    /// If its name cannot name a schema, its event is no enum, or it has no key column.
    pub fn new(view: V) -> Result<RustProjection<Keyed<V, K, S>>> {
        if typed::variants_of::<V::Event>().is_none() {
            let what = format!("the event of projection \"{}\" is no enum", view.name());
            return Err(Error::new(ErrorKind::Config, what)
                .hint("derive Deserialize for an enum with a variant for each event type"));
        }
        if view.key_columns().is_empty() {
            let what = format!("projection \"{}\" names no key column", view.name());
            return Err(Error::new(ErrorKind::Config, what)
                .hint("return the columns of its primary key from key_columns"));
        }
        RustProjection::new(Keyed {
            view,
            row: PhantomData,
        })
    }
}

impl<V, K, S> Projection for Keyed<V, K, S>
where
    V: KeyedView<K, S>,
    K: Serialize + Eq + Hash + Clone + Send + Sync + 'static,
    S: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.view.name()
    }

    fn up(&self) -> &str {
        self.view.up()
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
        self.view.source()
    }

    fn key_sql(&self) -> &str {
        self.view.key_sql()
    }

    fn partitions(&self) -> u16 {
        self.view.partitions()
    }

    fn on_error(&self) -> OnError {
        self.view.on_error()
    }

    fn revision(&self) -> u32 {
        self.view.revision()
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<()> {
        let mut folding = Folding::new(&self.view, *tx);
        let rows = match folding.first_read(batch)? {
            Some(read) => tx.query_text(&read).await?,
            None => Vec::new(),
        };
        folding.apply(batch, rows).await?;
        match folding.last_write().await? {
            Some(write) => tx.execute_text(&write).await.map(drop),
            None => Ok(()),
        }
    }

    fn begin<'a>(&'a self, tx: Tx<'a>) -> Box<dyn BatchWriter + 'a> {
        Box::new(Folding::new(&self.view, tx))
    }
}
