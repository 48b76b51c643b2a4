//! Events out of the table, as many as may be.
//!
//! A statement is limited by rows, a read by bytes too. The server sends what it was asked for, so a
//! statement asks for no more rows than have room by the size of those before them; of a source that was
//! not read yet few. What it sends beyond that is passed over, or if it is too much for that, not
//! waited for.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::{TableSource, row};
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::pg::sql::query;
use crate::pg::{self, Parameter};
use crate::position::{Position, Range};
use crate::source::{Batch, EventKey, KeyedBatch, Keys, ReadRequest};

/// The mean size of the events that were read last.
pub(super) struct EventBytes(AtomicUsize);

/// The assumed size before the first read.
const UNKNOWN_BYTES: usize = 16 * 1024;

impl Default for EventBytes {
    fn default() -> EventBytes {
        EventBytes(AtomicUsize::new(UNKNOWN_BYTES))
    }
}

impl EventBytes {
    /// How many rows to request for the given room in events and bytes.
    fn rows(&self, events: usize, bytes: usize) -> usize {
        let fitting = bytes / self.0.load(Ordering::Relaxed).max(1);
        fitting.clamp(1, events.max(1))
    }

    fn saw(&self, events: usize, bytes: usize) {
        if let Some(mean) = bytes.checked_div(events) {
            self.0.store(mean, Ordering::Relaxed);
        }
    }
}

/// What was read so far.
struct ReadSoFar<T> {
    events: Vec<T>,
    bytes: usize,
    last: Option<Position>,
}

/// How a statement ended.
enum StatementEnd {
    /// There are no more rows.
    NoMore,
    /// It gave as many rows as it was asked for.
    Full,
    /// The next event has no room; about this many bytes may still come, if later events are like
    /// it.
    Cut(usize),
}

impl<T> ReadSoFar<T> {
    /// Takes what a statement for `rows` rows gives.
    async fn from(
        &mut self,
        client: &Client,
        sql: &str,
        request: &ReadRequest<'_>,
        parked: &[String],
        rows: usize,
        take: impl Fn(&Row, RecordedEvent) -> Result<T>,
    ) -> Result<StatementEnd> {
        let doing = "cannot read events";
        let types = request.types;
        let after = self.last.unwrap_or(request.range.after()).get();
        let through = request.range.through().get();
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let parameters = vec![
            (&after as &Parameter<'_>, Type::INT8),
            (&through, Type::INT8),
            (&types, Type::TEXT_ARRAY),
            (&limit, Type::INT8),
            (&parked, Type::TEXT_ARRAY),
        ];
        let sent = client.query_typed_raw(sql, parameters).await;
        let sent = sent.map_err(|e| pg::error(doing, e))?;
        pin_mut!(sent);
        let mut left = rows;
        while let Some(row) = sent.next().await {
            let row = row.map_err(|e| pg::error(doing, e))?;
            let event = row::event(&row)?;
            left = left.saturating_sub(1);
            let bytes = event.data.get().len() + event.metadata.get().len();
            if self.bytes + bytes > request.bytes_max && !self.events.is_empty() {
                return Ok(StatementEnd::Cut(left.saturating_mul(bytes)));
            }
            self.bytes += bytes;
            self.last = Some(event.position);
            self.events.push(take(&row, event)?);
        }
        Ok(match left {
            0 => StatementEnd::Full,
            _ => StatementEnd::NoMore,
        })
    }
}

impl TableSource {
    /// Reads events in order, `take` of each row, until a limit cuts them.
    async fn read_rows<T>(
        &self,
        request: ReadRequest<'_>,
        keys: Keys<'_>,
        sql: &str,
        take: impl Fn(&Row, RecordedEvent) -> Result<T>,
    ) -> Result<(Range, Vec<T>)> {
        let client = self.client().await?;
        let parked = Keys::listed(keys.named());
        let mut taken = ReadSoFar {
            events: Vec::new(),
            bytes: 0,
            last: None,
        };
        let ended = loop {
            let events = request.events_max.max(1) - taken.events.len();
            let bytes = request.bytes_max.saturating_sub(taken.bytes);
            let rows = self.event_bytes.rows(events, bytes);
            let from = taken.from(&client, sql, &request, &parked, rows, &take);
            let ended = client.answered(from).await?;
            self.event_bytes.saw(taken.events.len(), taken.bytes);
            // The last rows of a batch are not worth statements of their own.
            let is_enough = taken.events.len() >= request.events_max
                || taken.bytes > request.bytes_max - request.bytes_max / 8;
            if is_enough || !matches!(ended, StatementEnd::Full) {
                break ended;
            }
        };
        let through = match (&ended, taken.last) {
            (StatementEnd::Full | StatementEnd::Cut(_), Some(last)) => last,
            _ => request.range.through(),
        };
        if let StatementEnd::Cut(bytes) = ended
            && bytes > request.bytes_max
        {
            client.close();
        }
        Ok((Range::new(request.range.after(), through), taken.events))
    }

    pub(super) async fn read_keys_of(
        &self,
        request: ReadRequest<'_>,
        keys: Keys<'_>,
    ) -> Result<Batch> {
        let sql = self.keyed_sql(query!("source/read.sql"), &keys, "$5", &[])?;
        let read = self.read_rows(request, keys, &sql, |_, event| Ok(event));
        let (range, events) = read.await?;
        Ok(Batch { range, events })
    }

    pub(super) async fn read_with_keys(
        &self,
        request: ReadRequest<'_>,
        keys: Keys<'_>,
    ) -> Result<KeyedBatch> {
        let key = keys.expression()?;
        let sql = self.keyed_sql(
            query!("source/read_keyed.sql"),
            &keys,
            "$5",
            &[("key", &key)],
        )?;
        let keyed = |row: &Row, event| Ok((pg::column::<EventKey>(row, 8)?, event));
        let (range, events) = self.read_rows(request, keys, &sql, keyed).await?;
        Ok(KeyedBatch { range, events })
    }
}
