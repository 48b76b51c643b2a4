//! The read model: one row per path, folded from three types of events.

use highwater::{BoxError, KeyedView, OnUnknown, RecordedEvent};
use serde::{Deserialize, Serialize};

/// What can happen to a file; the variants are named as the event types.
#[allow(clippy::enum_variant_names, reason = "the event types are called so")]
#[derive(Deserialize)]
pub(crate) enum FileEvent {
    FileAdded(Change),
    FileModified(Change),
    FileDeleted { path: String },
}

/// The data of an event that leaves a file behind.
#[derive(Deserialize)]
pub(crate) struct Change {
    path: String,
    blob: String,
    mode: String,
    commit: String,
    /// A binary file has no lines.
    added: Option<i64>,
    deleted: Option<i64>,
}

/// A row of the table.
#[derive(Serialize, Deserialize)]
pub(crate) struct File {
    path: String,
    blob: String,
    mode: String,
    lines: i64,
    changes: i64,
    last_commit: String,
    position: i64,
}

/// The files that are alive now.
pub(crate) struct Files;

impl KeyedView for Files {
    type Event = FileEvent;
    type Key = String;
    type Row = File;
    const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;

    fn name(&self) -> &str {
        "files_in_rust"
    }

    fn up(&self) -> &str {
        "create table files (
            path text primary key, blob text not null, mode text not null, lines bigint not null,
            changes bigint not null, last_commit text not null, position bigint not null)"
    }

    fn table(&self) -> &str {
        "files"
    }

    fn key_columns(&self) -> &[&str] {
        &["path"]
    }

    fn key(&self, event: &FileEvent, _: &RecordedEvent) -> Result<Option<String>, BoxError> {
        Ok(Some(match event {
            FileEvent::FileAdded(change) | FileEvent::FileModified(change) => change.path.clone(),
            FileEvent::FileDeleted { path } => path.clone(),
        }))
    }

    fn fold(
        &self,
        file: Option<File>,
        event: FileEvent,
        recorded: &RecordedEvent,
    ) -> Result<Option<File>, BoxError> {
        let (before, change) = match event {
            FileEvent::FileDeleted { .. } => return Ok(None),
            FileEvent::FileAdded(change) => (None, change),
            FileEvent::FileModified(change) => (file, change),
        };
        let lines = change.added.unwrap_or(0) - change.deleted.unwrap_or(0);
        Ok(Some(File {
            lines: before.as_ref().map_or(0, |file| file.lines) + lines,
            changes: before.as_ref().map_or(0, |file| file.changes) + 1,
            path: change.path,
            blob: change.blob,
            mode: change.mode,
            last_commit: change.commit,
            position: recorded.position.get(),
        }))
    }
}
