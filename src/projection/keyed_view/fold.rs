//! The fold of one transaction: rows are loaded once, folded over all of its batches, written once.

use std::collections::HashMap;

use serde::Serialize;
use tokio_postgres::Row;

use super::KeyedView;
use super::rows::{Rows, written_bytes};
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::pg::transaction::{TextStatement, Tx};
use crate::projection::typed::{self, OnUnknown};
use crate::projection::{BatchWriter, failure};
use crate::source::{Batch, BoxFuture};

/// Beyond this many bytes, as far as they can be estimated, rows are written back before the end
/// and loaded again when they are needed.
const ROWS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One of this many folded rows is measured.
const SIZED_EVERY: u64 = 64;

/// A row from its load to its write.
pub(super) enum RowState<S> {
    /// Its key is wanted, and the table was not read yet.
    Wanted,
    /// As it is now, and whether the table has a row of the key.
    Known { row: Option<S>, is_stored: bool },
}

impl<S> RowState<S> {
    /// Folds one event in.
    fn fold<V: KeyedView<Row = S>>(
        &mut self,
        view: &V,
        event: V::Event,
        recorded: &RecordedEvent,
    ) -> Result<Option<&S>> {
        let (before, is_stored) = match std::mem::replace(self, RowState::Wanted) {
            RowState::Wanted => (None, false),
            RowState::Known { row, is_stored } => (row, is_stored),
        };
        let row = view.fold(before, event, recorded);
        let row = row.map_err(|error| failure::at_event(error, recorded))?;
        *self = RowState::Known { row, is_stored };
        Ok(match self {
            RowState::Known { row, .. } => row.as_ref(),
            RowState::Wanted => None,
        })
    }
}

pub(super) struct KeyedBatchWriter<'a, V: KeyedView> {
    view: &'a V,
    tx: Tx<'a>,
    rows: HashMap<V::Key, RowState<V::Row>>,
    /// The keys whose rows are being read.
    wanted: Vec<V::Key>,
    /// The events that wait for these rows: the index in the batch, the key, and the event.
    waiting: Vec<(usize, V::Key, V::Event)>,
    size: RowSize,
    bytes_max: usize,
}

impl<'a, V: KeyedView> KeyedBatchWriter<'a, V> {
    pub(super) fn new(view: &'a V, tx: Tx<'a>) -> KeyedBatchWriter<'a, V> {
        KeyedBatchWriter {
            view,
            tx,
            rows: HashMap::new(),
            wanted: Vec::new(),
            waiting: Vec::new(),
            size: RowSize::default(),
            bytes_max: ROWS_BYTES_MAX,
        }
    }

    /// Folds what it can without a read, and returns what has to be read for the rest.
    fn begin(&mut self, batch: &Batch) -> Result<Option<TextStatement>> {
        self.waiting = self.fold_known(batch)?;
        let is_wanted = |(_, slot): &(&V::Key, &RowState<V::Row>)| matches!(slot, RowState::Wanted);
        let wanted = self.rows.iter().filter(is_wanted);
        self.wanted = wanted.map(|(key, _)| key.clone()).collect();
        match self.wanted.is_empty() {
            true => Ok(None),
            false => Rows::of(self.view).load(&self.wanted).map(Some),
        }
    }

    /// Folds the rest, and writes rows back that take too much memory.
    async fn fold(&mut self, batch: &Batch, rows: &[Row]) -> Result<()> {
        let keys = std::mem::take(&mut self.wanted);
        let found = Rows::of(self.view).loaded(keys.len(), rows)?;
        for (key, row) in keys.into_iter().zip(found) {
            let is_stored = row.is_some();
            self.rows.insert(key, RowState::Known { row, is_stored });
        }
        for (index, key, event) in std::mem::take(&mut self.waiting) {
            let recorded = &batch.events[index];
            if let Some(slot) = self.rows.get_mut(&key) {
                self.size.folded(slot.fold(self.view, event, recorded)?);
            }
        }
        if self.bytes() > self.bytes_max {
            self.store().await?;
        }
        Ok(())
    }

    /// Folds the events whose rows are loaded, and returns the other events.
    #[allow(clippy::type_complexity, reason = "the types are the view's own")]
    fn fold_known(&mut self, batch: &Batch) -> Result<Vec<(usize, V::Key, V::Event)>> {
        let mut waiting = Vec::new();
        for (index, recorded) in batch.events.iter().enumerate() {
            let event = match typed::decode::<V::Event>(recorded)? {
                Some(event) => event,
                None if V::ON_UNKNOWN == OnUnknown::Ignore => continue,
                None => return Err(typed::unknown(recorded)),
            };
            let key = self.view.key(&event, recorded);
            let key = key.map_err(|error| failure::at_event(error, recorded))?;
            let Some(key) = key else {
                continue;
            };
            match self.rows.get_mut(&key) {
                Some(RowState::Wanted) => waiting.push((index, key, event)),
                Some(known) => self.size.folded(known.fold(self.view, event, recorded)?),
                None => {
                    self.rows.insert(key.clone(), RowState::Wanted);
                    waiting.push((index, key, event));
                }
            }
        }
        Ok(waiting)
    }

    /// Writes all rows back, and forgets them.
    async fn store(&mut self) -> Result<()> {
        if let Some(last) = self.store_but_last().await? {
            self.tx.execute_text(&last).await?;
        }
        Ok(())
    }

    /// The same, except the last statement.
    async fn store_but_last(&mut self) -> Result<Option<TextStatement>> {
        let rows = std::mem::take(&mut self.rows);
        let mut writes = Rows::of(self.view).writes(rows)?;
        let last = writes.pop();
        for write in writes {
            self.tx.execute_text(&write).await?;
        }
        Ok(last)
    }

    /// How many bytes the rows take in memory, about.
    fn bytes(&self) -> usize {
        let slot = size_of::<(V::Key, RowState<V::Row>)>()
            + 2 * (self.size.bytes / self.size.sized.max(1));
        self.rows.len().saturating_mul(slot)
    }
}

impl<V: KeyedView> BatchWriter for KeyedBatchWriter<'_, V> {
    fn first_read(&mut self, batch: &Batch) -> Result<Option<TextStatement>> {
        self.begin(batch)
    }

    fn apply<'a>(&'a mut self, batch: &'a Batch, rows: Vec<Row>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.fold(batch, &rows).await })
    }

    fn last_write(&mut self) -> BoxFuture<'_, Result<Option<TextStatement>>> {
        Box::pin(self.store_but_last())
    }
}

/// The average size of rows, by the JSON of some.
#[derive(Default)]
struct RowSize {
    folded: u64,
    sized: usize,
    bytes: usize,
}

impl RowSize {
    fn folded<S: Serialize>(&mut self, row: Option<&S>) {
        if self.folded.is_multiple_of(SIZED_EVERY)
            && let Some(row) = row
        {
            self.sized += 1;
            self.bytes += written_bytes(row);
        }
        self.folded += 1;
    }
}
