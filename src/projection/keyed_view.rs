//! [`KeyedView`]: one row per key, folded from typed events.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::pg::transaction::Tx;
use crate::pg::{column, quote_identifier};
use crate::projection::typed::{self, OnUnknown};
use crate::projection::{Coded, OnError, Projection};
use crate::source::{Batch, Keys};

/// A read model with one row per key: the rows of a batch's keys are loaded in one query, folded
/// in memory, and written back in one.
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
    pub fn new(view: V) -> Result<Coded<Keyed<V, K, S>>> {
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
        Coded::new(Keyed {
            view,
            row: PhantomData,
        })
    }

    /// Folds the events; `rows` has the state of each key before and after.
    fn fold(
        &self,
        batch: &Batch,
        typed: Vec<(usize, K, V::Event)>,
        rows: &mut HashMap<K, Option<S>>,
    ) {
        for (index, key, event) in typed {
            let before = rows.remove(&key).flatten();
            let after = self.view.fold(before, event, &batch.events[index]);
            rows.insert(key, after);
        }
    }

    fn typed(&self, batch: &Batch) -> Result<Vec<(usize, K, V::Event)>> {
        let mut typed = Vec::with_capacity(batch.events.len());
        for (index, recorded) in batch.events.iter().enumerate() {
            match typed::decode::<V::Event>(recorded)? {
                Some(event) => {
                    if let Some(key) = self.view.key(&event, recorded) {
                        typed.push((index, key, event));
                    }
                }
                None if V::ON_UNKNOWN == OnUnknown::Ignore => {}
                None => {
                    return Err(typed::undigestible(
                        recorded,
                        "has a type that the projection does not know",
                    )
                    .hint("add a variant for it, or set ON_UNKNOWN to Ignore"));
                }
            }
        }
        Ok(typed)
    }

    /// A key as a JSON object of its columns.
    fn key_object(&self, key: &K) -> Result<Map<String, Value>> {
        let columns = self.view.key_columns();
        let value = serde_json::to_value(key).map_err(not_json)?;
        let values = match value {
            Value::Array(values) if columns.len() > 1 => values,
            value => vec![value],
        };
        if values.len() != columns.len() {
            let what = format!(
                "projection \"{}\" has {} key columns, and a key of {} values",
                self.view.name(),
                columns.len(),
                values.len()
            );
            return Err(Error::new(ErrorKind::Config, what)
                .hint("make K a tuple with a value for each key column"));
        }
        let names = columns.iter().map(|&name| name.to_owned());
        Ok(names.zip(values).collect())
    }

    async fn load(&self, keys: Vec<K>, tx: &Tx<'_>) -> Result<HashMap<K, Option<S>>> {
        let objects: Result<Vec<_>> = keys.iter().map(|key| self.key_object(key)).collect();
        let wanted = serde_json::to_value(objects?).map_err(not_json)?;
        let sql = include_str!("../../sql/queries/projection/load_rows.sql")
            .replace("{table}", &quote_identifier(self.view.table()))
            .replace("{match}", &self.key_match());
        let found = tx.query(&sql, &[(&wanted, Type::JSONB)]).await?;
        let mut rows: HashMap<K, Option<S>> = keys.iter().cloned().map(|key| (key, None)).collect();
        for row in &found {
            let ordinal: i64 = column(row, 0)?;
            let value: Value = column(row, 1)?;
            let state = serde_json::from_value(value).map_err(|e| {
                let what = format!("a row of {} is not the Rust type: {e}", self.view.table());
                Error::new(ErrorKind::Apply, what).source(e)
            })?;
            if let Some(key) = usize::try_from(ordinal - 1).ok().and_then(|i| keys.get(i)) {
                rows.insert(key.clone(), Some(state));
            }
        }
        Ok(rows)
    }

    async fn store(&self, rows: HashMap<K, Option<S>>, tx: &Tx<'_>) -> Result<()> {
        let (mut present, mut gone) = (Vec::new(), Vec::new());
        let mut columns: BTreeSet<String> = BTreeSet::new();
        for (key, row) in &rows {
            match row {
                None => gone.push(Value::Object(self.key_object(key)?)),
                Some(row) => {
                    let Value::Object(object) = serde_json::to_value(row).map_err(not_json)? else {
                        let what = format!("a row of {} is no struct", self.view.table());
                        return Err(Error::new(ErrorKind::Config, what));
                    };
                    columns.extend(object.keys().cloned());
                    present.push(Value::Object(object));
                }
            }
        }
        if !gone.is_empty() {
            let sql = include_str!("../../sql/queries/projection/delete_rows.sql")
                .replace("{table}", &quote_identifier(self.view.table()))
                .replace("{match}", &self.key_match());
            tx.execute(&sql, &[(&Value::Array(gone), Type::JSONB)])
                .await?;
        }
        if !present.is_empty() {
            let sql = include_str!("../../sql/queries/projection/store_rows.sql")
                .replace("{table}", &quote_identifier(self.view.table()))
                .replace(
                    "{columns}",
                    &column_list(columns.iter().map(String::as_str)),
                )
                .replace(
                    "{keys}",
                    &column_list(self.view.key_columns().iter().copied()),
                )
                .replace("{changes}", &self.changes(&columns));
            tx.execute(&sql, &[(&Value::Array(present), Type::JSONB)])
                .await?;
        }
        Ok(())
    }

    fn key_match(&self) -> String {
        let columns = self.view.key_columns().iter().map(|&c| quote_identifier(c));
        let pairs: Vec<String> = columns.map(|c| format!("t.{c} = k.{c}")).collect();
        pairs.join(" and ")
    }

    fn changes(&self, columns: &BTreeSet<String>) -> String {
        let keys = self.view.key_columns();
        let others = columns.iter().filter(|c| !keys.contains(&c.as_str()));
        let sets: Vec<String> = others
            .map(|c| quote_identifier(c))
            .map(|c| format!("{c} = excluded.{c}"))
            .collect();
        if sets.is_empty() {
            return "nothing".to_owned();
        }
        format!("update set {}", sets.join(", "))
    }
}

fn not_json(error: serde_json::Error) -> Error {
    let what = format!("a key or row cannot be written as JSON: {error}");
    Error::new(ErrorKind::Apply, what).source(error)
}

fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(quote_identifier).collect();
    quoted.join(", ")
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
        let typed = self.typed(batch)?;
        if typed.is_empty() {
            return Ok(());
        }
        let mut known = std::collections::HashSet::new();
        let keys: Vec<K> = typed
            .iter()
            .map(|(_, key, _)| key)
            .filter(|key| known.insert((*key).clone()))
            .cloned()
            .collect();
        let mut rows = self.load(keys, tx).await?;
        self.fold(batch, typed, &mut rows);
        self.store(rows, tx).await
    }
}
