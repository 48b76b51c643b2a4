//! Appends a file of events, batch after batch.
//!
//! A thread reads lines while the database stores those before; the queue between the two is
//! bounded in events and in bytes. A batch is the queue at the time when the batch before is done:
//! large when a file is read, a single event when someone types.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::event_store::{Appended, EventStore};
use crate::failpoint::failpoint;
use crate::ndjson::{NdjsonEvent, NdjsonReader, location};
use crate::position::Position;

/// The default of the most events of a batch.
pub const BATCH_EVENTS: usize = 1000;

/// How many KiB of lines may be in the queue and in a batch together; one event always fits.
const WAITING_KIB: u32 = 32 * 1024;

/// The progress after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events appended so far.
    pub appended: u64,
    /// Events that existed already.
    pub duplicates: u64,
    /// The last line that is done.
    pub line: u64,
    /// Bytes read from the input so far, before decompression; it is ahead of `line`.
    pub bytes_read: u64,
}

/// What was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Events appended.
    pub appended: u64,
    /// Events that were there already: the same id with the same content.
    pub duplicates: u64,
    /// The first position appended; `None` if nothing was.
    pub first: Option<Position>,
    /// The last position appended; `None` if nothing was.
    pub last: Option<Position>,
    /// Events without an id: appending the file again duplicates them.
    pub without_id: u64,
}

/// A parsed event, or the end of valid input.
type ParsedEvent = Result<(NdjsonEvent, OwnedSemaphorePermit)>;

/// Appends what `reader` gives, in batches of up to `batch_events`, each in one transaction.
///
/// When an event is refused, those before it are appended and stay, and the error names its line.
/// Running again never appends an event with an id twice.
///
/// # Errors
/// Those of the reader and of [`EventStore::append_batch`], with the line.
pub async fn append_ndjson(
    store: &EventStore,
    reader: NdjsonReader,
    batch_events: usize,
    progress: impl FnMut(Progress),
) -> Result<Summary> {
    let never = CancellationToken::new();
    append_ndjson_until(store, reader, batch_events, progress, &never).await
}

/// As [`append_ndjson`], until `stop` is cancelled: it finishes the batch in flight, and begins no
/// other.
///
/// # Errors
/// As [`append_ndjson`].
pub async fn append_ndjson_until(
    store: &EventStore,
    reader: NdjsonReader,
    batch_events: usize,
    mut progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Summary> {
    let batch_events = batch_events.max(1);
    let name = reader.name().to_owned();
    let bytes_read = reader.bytes_read();
    let mut waiting = spawn_reader(reader, batch_events)?;
    let mut summary = Summary::default();
    let mut received = Vec::with_capacity(batch_events);
    loop {
        let count = tokio::select! {
            biased;
            () = stop.cancelled() => 0,
            count = waiting.recv_many(&mut received, batch_events) => count,
        };
        if count == 0 {
            break;
        }
        failpoint!("append.read");
        // The permits are held until the batch is stored: they bound the memory.
        let (batch, unreadable) = split(&mut received);
        let (events, _permits): (Vec<NdjsonEvent>, Vec<_>) = batch.into_iter().unzip();
        let (done, refused) = append_or_find(store, &events, &mut summary).await;
        if let Some(last) = events[..done].last() {
            progress(Progress {
                appended: summary.appended,
                duplicates: summary.duplicates,
                line: last.line,
                bytes_read: bytes_read.load(Ordering::Relaxed),
            });
        }
        if let Some(error) = refused {
            let line = events.get(done).map_or(0, |event| event.line);
            return Err(explain(
                error.with_location(location(&name, line)),
                &summary,
            ));
        }
        if let Some(error) = unreadable {
            return Err(explain(error, &summary));
        }
    }
    Ok(summary)
}

/// The events before the first error, and that error.
fn split(
    received: &mut Vec<ParsedEvent>,
) -> (Vec<(NdjsonEvent, OwnedSemaphorePermit)>, Option<Error>) {
    let mut failure = None;
    let good = received
        .drain(..)
        .map_while(|item| item.map_err(|error| failure = Some(error)).ok())
        .collect();
    (good, failure)
}

/// Appends the events; if one is refused, those before it, which halving finds. Returns how many
/// events are done, and the error if that is not all.
async fn append_or_find(
    store: &EventStore,
    events: &[NdjsonEvent],
    summary: &mut Summary,
) -> (usize, Option<Error>) {
    let mut done = 0;
    // The refused event is before this one.
    let mut refused_before: Option<usize> = None;
    while done < events.len() {
        let end = match refused_before {
            None => events.len(),
            Some(end) => done + ((end - done) / 2).max(1),
        };
        match store.append_batch(&events[done..end]).await {
            Ok(appended) => {
                summary.add(&events[done..end], &appended);
                done = end;
                // The event was refused and no longer is: another writer came in between.
                refused_before = refused_before.filter(|before| *before > end);
            }
            Err(error) if is_about_an_event(&error) && end - done > 1 => refused_before = Some(end),
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

fn is_about_an_event(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::VersionConflict | ErrorKind::IdConflict | ErrorKind::BadEvent
    )
}

impl Summary {
    fn add(&mut self, events: &[NdjsonEvent], appended: &Appended) {
        let duplicates = appended
            .events
            .iter()
            .filter(|event| event.duplicate)
            .count() as u64;
        self.duplicates += duplicates;
        self.appended += appended.events.len() as u64 - duplicates;
        self.without_id += events
            .iter()
            .filter(|event| event.event.id.is_none())
            .count() as u64;
        self.first = self.first.or(appended.first());
        self.last = appended.last().or(self.last);
    }
}

/// Adds to the hint how much is stored already.
fn explain(error: Error, summary: &Summary) -> Error {
    let next = match error.hint() {
        Some(hint) => hint.to_owned(),
        None => "fix it and run again".to_owned(),
    };
    let stored = summary.appended + summary.duplicates;
    let again = match summary.without_id {
        0 => "running again appends none of them twice".to_owned(),
        count => format!("{count} of them have no id: take their lines out before running again"),
    };
    match stored {
        0 => error.with_hint(format!("{next}; nothing before it was appended")),
        _ => error.with_hint(format!(
            "{next}; the {stored} events before it are stored, {again}"
        )),
    }
}

/// Reads on a thread of its own, which is never joined: standard input may block for ever.
fn spawn_reader(reader: NdjsonReader, batch_events: usize) -> Result<mpsc::Receiver<ParsedEvent>> {
    let (sender, receiver) = mpsc::channel(batch_events);
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("highwater-reader".to_owned())
        .spawn(move || feed(reader, &sender, &runtime))
        .map_err(|e| {
            Error::new(ErrorKind::Io, format!("cannot start a thread: {e}")).with_source(e)
        })?;
    Ok(receiver)
}

/// Ends when the reader does, or when the receiver is gone.
fn feed(reader: NdjsonReader, sender: &mpsc::Sender<ParsedEvent>, runtime: &Handle) {
    let room = Arc::new(Semaphore::new(WAITING_KIB as usize));
    for event in reader {
        let item = match event {
            Err(error) => Err(error),
            Ok(event) => {
                let kib = u32::try_from(event.bytes / 1024 + 1).unwrap_or(WAITING_KIB);
                match take_room(&room, kib.min(WAITING_KIB), runtime) {
                    Some(permit) => Ok((event, permit)),
                    None => return,
                }
            }
        };
        if sender.blocking_send(item).is_err() {
            return;
        }
    }
}

fn take_room(room: &Arc<Semaphore>, kib: u32, runtime: &Handle) -> Option<OwnedSemaphorePermit> {
    match Arc::clone(room).try_acquire_many_owned(kib) {
        Ok(permit) => Some(permit),
        Err(_) => runtime
            .block_on(Arc::clone(room).acquire_many_owned(kib))
            .ok(),
    }
}
