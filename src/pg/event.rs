//! The statements on our own event table.

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::error::Result;
use crate::event::{NewEvent, RecordedEvent};
use crate::pg::{self, column};
use crate::position::Position;

const APPEND: &str = include_str!("../../sql/queries/event/append.sql");
const APPEND_ONE: &str = include_str!("../../sql/queries/event/append_one.sql");
const READ: &str = include_str!("../../sql/queries/event/read.sql");

/// The place of an appended event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its place in its stream.
    pub version: i64,
    /// It already existed: the same id with the same content.
    pub duplicate: bool,
}

/// Events to be appended, one column for each argument of the SQL function.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    streams: Vec<&'a str>,
    types: Vec<&'a str>,
    data: Vec<Json<&'a RawValue>>,
    metadata: Vec<Option<Json<&'a RawValue>>>,
    ids: Vec<Option<Uuid>>,
    expected: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn push(&mut self, stream: &'a str, expected: Option<i64>, event: &'a NewEvent) {
        self.streams.push(stream);
        self.types.push(&event.event_type);
        self.data.push(Json(&event.data));
        self.metadata.push(event.metadata.as_deref().map(Json));
        self.ids.push(event.id);
        self.expected.push(expected);
    }
}

/// Appends all of the events or none.
pub(crate) async fn append(
    client: &impl GenericClient,
    events: &Columns<'_>,
) -> Result<Vec<AppendedEvent>> {
    let rows = match events.ids.len() {
        0 => return Ok(Vec::new()),
        1 => append_one(client, events).await,
        _ => append_all(client, events).await,
    };
    let rows = rows.map_err(|e| pg::own_statement_error("cannot append", e))?;
    rows.iter().map(appended).collect()
}

async fn append_one(
    client: &impl GenericClient,
    events: &Columns<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    client
        .query_typed(
            APPEND_ONE,
            &[
                (&events.streams.first(), Type::TEXT),
                (&events.types.first(), Type::TEXT),
                (&events.data.first(), Type::JSONB),
                (
                    &events.metadata.first().and_then(Option::as_ref),
                    Type::JSONB,
                ),
                (&events.ids.first().copied().flatten(), Type::UUID),
                (&events.expected.first().copied().flatten(), Type::INT8),
            ],
        )
        .await
}

async fn append_all(
    client: &impl GenericClient,
    events: &Columns<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    client
        .query_typed(
            APPEND,
            &[
                (&events.streams, Type::TEXT_ARRAY),
                (&events.types, Type::TEXT_ARRAY),
                (&events.data, Type::JSONB_ARRAY),
                (&events.metadata, Type::JSONB_ARRAY),
                (&events.ids, Type::UUID_ARRAY),
                (&events.expected, Type::INT8_ARRAY),
            ],
        )
        .await
}

/// Events after a position, in the order of positions.
pub(crate) async fn read(
    client: &impl GenericClient,
    after: Position,
    limit: i64,
    stream: Option<&str>,
    types: &[String],
) -> Result<Vec<RecordedEvent>> {
    let rows = client
        .query_typed(
            READ,
            &[
                (&after.get(), Type::INT8),
                (&limit, Type::INT8),
                (&stream, Type::TEXT),
                (&types, Type::TEXT_ARRAY),
            ],
        )
        .await
        .map_err(|e| pg::own_statement_error("cannot read events", e))?;
    rows.iter().map(recorded).collect()
}

fn appended(row: &Row) -> Result<AppendedEvent> {
    Ok(AppendedEvent {
        position: Position::new(column(row, 0)?),
        version: column(row, 1)?,
        duplicate: column(row, 2)?,
    })
}

/// The event that the first columns of a row are.
pub(crate) fn recorded(row: &Row) -> Result<RecordedEvent> {
    Ok(RecordedEvent {
        position: Position::new(column(row, 0)?),
        stream: column(row, 1)?,
        version: column(row, 2)?,
        event_type: column(row, 3)?,
        data: column::<Json<Box<RawValue>>>(row, 4)?.0,
        metadata: column::<Json<Box<RawValue>>>(row, 5)?.0,
        id: column(row, 6)?,
        recorded_at: column::<Timestamp>(row, 7)?,
    })
}
