//! What the engine asks of any source. A log in PostgreSQL answers it in the server; of any other
//! source the events are read and examined here, and their key is the stream.

use super::{
    Batch, EventKey, Filter, KeyedBatch, Keys, Midpoint, ReadRequest, RemovedIn, Source, Tally,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::position::{Position, Range};

/// How much to read at once for counting.
const COUNTED_EVENTS_MAX: usize = 10_000;
const COUNTED_BYTES_MAX: usize = 8 * 1024 * 1024;

impl dyn Source + '_ {
    /// The relation that holds the events, if projections may read it inside the database of their read
    /// model.
    pub fn relation(&self) -> Option<&str> {
        self.postgres().and_then(|log| log.relation())
    }

    /// As [`Source::read`], only the events whose key is wanted.
    ///
    /// # Errors
    /// If the source cannot be read, or does not know the key.
    pub async fn read_keys(&self, request: ReadRequest<'_>, keys: Keys<'_>) -> Result<Batch> {
        if let Some(log) = self.postgres() {
            return log.read_keys(request, keys).await;
        }
        self.check_key(&keys)?;
        let mut batch = self.read(request).await?;
        batch.events.retain(|event| keys.want(&key_of(event)));
        Ok(batch)
    }

    /// As `read_keys`, with the key of each event.
    ///
    /// # Errors
    /// As `read_keys`.
    pub async fn read_keyed(&self, request: ReadRequest<'_>, keys: Keys<'_>) -> Result<KeyedBatch> {
        if let Some(log) = self.postgres() {
            return log.read_keyed(request, keys).await;
        }
        let Batch { range, events } = self.read_keys(request, keys).await?;
        let events = events.into_iter().map(|event| (key_of(&event), event));
        Ok(KeyedBatch {
            range,
            events: events.collect(),
        })
    }

    /// The position of the first event of a range, of any type.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub async fn first(&self, range: Range) -> Result<Option<Position>> {
        if let Some(log) = self.postgres() {
            return log.first(range).await;
        }
        let request = ReadRequest {
            range,
            types: None,
            events_max: 1,
            bytes_max: usize::MAX,
        };
        let batch = self.read(request).await?;
        Ok(batch.events.first().map(|event| event.position))
    }

    /// How many wanted events a range holds, and the one in the middle.
    ///
    /// # Errors
    /// As `read_keys`.
    pub async fn middle(&self, range: Range, filter: Filter<'_>) -> Result<Option<Midpoint>> {
        if let Some(log) = self.postgres() {
            return log.middle(range, filter).await;
        }
        self.check_key(&filter.keys)?;
        let mut positions = Vec::new();
        self.count(range, filter, |event| {
            positions.push(event.position);
            true
        })
        .await?;
        let middle = positions.len().saturating_sub(1) / 2;
        Ok(positions.first().map(|&first| Midpoint {
            count: positions.len() as u64,
            first,
            middle: positions[middle],
        }))
    }

    /// How many events of any type a range holds, at most `events_max`, and how far they were
    /// counted.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub async fn tally(&self, range: Range, events_max: u64) -> Result<(Position, Tally)> {
        if let Some(log) = self.postgres() {
            return log.tally(range, events_max).await;
        }
        let mut tally = Tally::default();
        let through = self
            .count(range, Filter::ALL, |event| {
                tally.add(event.position, event.id);
                tally.events < events_max
            })
            .await?;
        Ok((through, tally))
    }

    /// What was removed on purpose from a range; `None` if the source does not record that.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub async fn removed_in(&self, range: Range) -> Result<Option<RemovedIn>> {
        match self.postgres() {
            Some(log) => log.removed_in(range).await,
            None => Ok(None),
        }
    }

    /// Reads a range and calls `one` for each wanted event until it returns false. Returns how far
    /// it read.
    async fn count(
        &self,
        range: Range,
        filter: Filter<'_>,
        mut one: impl FnMut(&RecordedEvent) -> bool,
    ) -> Result<Position> {
        let mut rest = range;
        while !rest.is_empty() {
            let request = ReadRequest {
                range: rest,
                types: filter.types,
                events_max: COUNTED_EVENTS_MAX,
                bytes_max: COUNTED_BYTES_MAX,
            };
            let batch = self.read(request).await?;
            let mut wanted = batch.events.iter().filter(|e| filter.keys.want(&key_of(e)));
            if let Some(last) = wanted.find(|event| !one(event)) {
                return Ok(last.position);
            }
            rest = Range::new(batch.range.through(), rest.through());
        }
        Ok(range.through())
    }

    /// There is no server here that could evaluate an expression.
    fn check_key(&self, keys: &Keys<'_>) -> Result<()> {
        if keys.key == Keys::STREAM {
            return Ok(());
        }
        let what = format!(
            "source \"{}\" is not in PostgreSQL and supports only the key {}, not {}",
            self.name(),
            Keys::STREAM,
            keys.key
        );
        let hint =
            "leave the key out, or read an event table for a projection with a key of its own";
        Err(Error::new(ErrorKind::Config, what).with_hint(hint))
    }
}

fn key_of(event: &RecordedEvent) -> EventKey {
    Some(event.stream.clone())
}
