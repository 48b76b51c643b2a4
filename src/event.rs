//! Events: as a writer appends them, and as they are in the log.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::position::Position;

/// An event to be appended. JSON is kept as its text, so numbers keep every digit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewEvent {
    /// Makes the append idempotent: the same id with the same content is the same append.
    /// Without one the database draws a random id, and appending again appends again.
    pub id: Option<Uuid>,
    /// The event's type, for example `OrderPlaced`.
    pub event_type: String,
    /// What happened, any JSON value.
    pub data: Box<RawValue>,
    /// Facts about the event, a JSON object; `None` is `{}`.
    pub metadata: Option<Box<RawValue>>,
}

impl NewEvent {
    /// An event of type `event_type` with `data` as JSON, without id and metadata.
    ///
    /// # Errors
    /// [`ErrorKind::BadEvent`] if `data` cannot be written as JSON.
    pub fn new(
        event_type: impl Into<String>,
        data: &(impl serde::Serialize + ?Sized),
    ) -> Result<NewEvent, Error> {
        Ok(NewEvent {
            id: None,
            event_type: event_type.into(),
            data: to_raw(data)?,
            metadata: None,
        })
    }

    /// The same event with this id.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> NewEvent {
        self.id = Some(id);
        self
    }

    /// The same event with this metadata, which must be a JSON object.
    ///
    /// # Errors
    /// [`ErrorKind::BadEvent`] if `metadata` cannot be written as JSON.
    pub fn with_metadata(
        mut self,
        metadata: &(impl serde::Serialize + ?Sized),
    ) -> Result<NewEvent, Error> {
        self.metadata = Some(to_raw(metadata)?);
        Ok(self)
    }
}

#[allow(clippy::expect_used, reason = "a constant that is JSON")]
fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("{} is JSON")
}

fn to_raw(value: &(impl serde::Serialize + ?Sized)) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value).map_err(|e| {
        Error::new(ErrorKind::BadEvent, format!("this value is not JSON: {e}")).with_source(e)
    })
}

/// An event as it is in the log.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// Place in the log.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: String,
    /// Place in the stream, from 1.
    pub version: i64,
    /// The event's type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What happened, as JSON text.
    pub data: Box<RawValue>,
    /// Facts about the event, a JSON object as text.
    pub metadata: Box<RawValue>,
    /// The event's identity.
    pub id: Uuid,
    /// When the row was written, by the database's clock; not the order of commits.
    pub recorded_at: Timestamp,
}

impl RecordedEvent {
    /// `event` as the log holds it: in a stream, at a place, recorded now; without an id it has a
    /// random one. For a source of one's own.
    pub fn new(
        event: NewEvent,
        position: Position,
        stream: impl Into<String>,
        version: i64,
    ) -> RecordedEvent {
        RecordedEvent {
            position,
            stream: stream.into(),
            version,
            event_type: event.event_type,
            data: event.data,
            metadata: event.metadata.unwrap_or_else(empty_object),
            id: event.id.unwrap_or_else(Uuid::new_v4),
            recorded_at: Timestamp::now(),
        }
    }

    /// The data, read as `T`.
    ///
    /// # Errors
    /// [`ErrorKind::Undigestible`] if the data has another shape; the error names the event.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.data.get()).map_err(|e| {
            Error::new(
                ErrorKind::Undigestible,
                format!("the data of this {} cannot be read: {e}", self.event_type),
            )
            .with_source(e)
        })
    }
}

/// What a writer expects of the stream it appends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpectedVersion {
    /// Whatever is there.
    #[default]
    Any,
    /// The stream does not exist yet.
    NoStream,
    /// The stream's last version is exactly this one (from 1).
    Exact(i64),
}

impl ExpectedVersion {
    /// As the SQL function takes it: null, 0 or the version.
    pub fn as_sql(self) -> Option<i64> {
        match self {
            ExpectedVersion::Any => None,
            ExpectedVersion::NoStream => Some(0),
            ExpectedVersion::Exact(version) => Some(version),
        }
    }
}
