//! A keyed view with one row for each stream. The benchmarks use it too.

use std::sync::Arc;

use highwater::internal::projection::{DynProjection, Keyed, KeyedView, OnUnknown};
use highwater::{BoxError, RecordedEvent, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A row after an event, from the row before it.
type Fold<E, R> = dyn Fn(Option<R>, E, &RecordedEvent) -> Option<R> + Send + Sync;

/// What differs between such views.
pub(crate) struct ByStream<E, R> {
    pub(crate) name: String,
    pub(crate) up: String,
    pub(crate) table: &'static str,
    /// The column of the stream.
    pub(crate) key_column: &'static str,
    pub(crate) fold: Box<Fold<E, R>>,
}

impl<E, R> ByStream<E, R>
where
    E: DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The view as a projection.
    pub(crate) fn projection(self) -> Result<Arc<dyn DynProjection>> {
        Ok(Arc::new(Keyed::new(self)?))
    }
}

impl<E, R> KeyedView for ByStream<E, R>
where
    E: DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Event = E;
    type Key = String;
    type Row = R;
    const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;

    fn name(&self) -> &str {
        &self.name
    }

    fn up(&self) -> &str {
        &self.up
    }

    fn table(&self) -> &str {
        self.table
    }

    fn key_columns(&self) -> &[&str] {
        std::slice::from_ref(&self.key_column)
    }

    fn key(&self, _: &E, recorded: &RecordedEvent) -> Result<Option<String>, BoxError> {
        Ok(Some(recorded.stream.clone()))
    }

    fn fold(
        &self,
        row: Option<R>,
        event: E,
        recorded: &RecordedEvent,
    ) -> Result<Option<R>, BoxError> {
        Ok((self.fold)(row, event, recorded))
    }
}
