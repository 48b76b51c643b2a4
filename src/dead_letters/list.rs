//! Lists and shows dead letters.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::{Selection, check_name, query};
use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg::column_named;
use crate::pg::database::Database;
use crate::position::Position;

/// A list that may be longer than its shown part.
#[derive(Clone, Debug, Serialize)]
pub struct Listed<T> {
    /// The projection.
    pub projection: ProjectionName,
    /// How many keys of the selection are parked.
    pub parked_keys: i64,
    /// How many dead letters these keys have.
    pub dead_letters: i64,
    /// The first of them.
    #[serde(flatten)]
    pub shown: T,
}

/// Parked keys, the one that was parked first before the others.
#[derive(Clone, Debug, Serialize)]
pub struct ByKey {
    /// The keys.
    pub keys: Vec<ParkedKey>,
}

/// A parked key, with the dead letter that blocks it.
#[derive(Clone, Debug, Serialize)]
pub struct ParkedKey {
    /// The key; `None` is the key null.
    pub key: Option<String>,
    /// How many dead letters it has.
    pub dead_letters: i64,
    /// The position of the first of them.
    pub position: Position,
    /// The event of the first.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Why it could not be applied, as in a projection's `last_error`; `None` for one that followed
    /// an event that is no longer parked.
    pub error: Option<Value>,
    /// What is alike in errors of one cause.
    pub fingerprint: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// Since when it is parked.
    pub parked_at: Timestamp,
    /// When a retry was requested that is not done yet.
    pub retry_requested_at: Option<Timestamp>,
}

/// An error that parks keys, with all that are alike.
#[derive(Clone, Debug, Serialize)]
pub struct Alike {
    /// What is alike; `None` for keys whose first dead letter only followed an event that is no
    /// longer parked.
    pub fingerprint: Option<String>,
    /// How many keys it parks.
    pub parked_keys: i64,
    /// How many dead letters these keys have.
    pub dead_letters: i64,
    /// The first event that has it.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Its position.
    pub position: Position,
    /// Its error.
    pub error: Option<Value>,
}

/// Alike errors, the one that parks most keys first.
#[derive(Clone, Debug, Serialize)]
pub struct ByError {
    /// How many kinds of errors there are.
    pub fingerprints: i64,
    /// The first of them.
    pub errors: Vec<Alike>,
}

/// Dead letters, in the order of their positions.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The projection.
    pub projection: ProjectionName,
    /// How many dead letters are in the selection.
    pub dead_letters: i64,
    /// The first of them.
    pub letters: Vec<ShownLetter>,
}

/// A dead letter as it is stored.
#[derive(Clone, Debug, Serialize)]
pub struct ShownLetter {
    /// The key; `None` is the key null.
    pub key: Option<String>,
    /// How many dead letters of the key are before it.
    pub before: i64,
    /// How many of the key follow it.
    pub behind: i64,
    /// The event, as the batch had it.
    pub event: Event,
    /// Why it could not be applied; `None` for one that only follows another.
    pub error: Option<Value>,
    /// What is alike in errors of one cause.
    pub fingerprint: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// When a retry was requested that is not done yet.
    pub retry_requested_at: Option<Timestamp>,
}

/// An event, as the batch has it.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Place in the log.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: String,
    /// Place in the stream.
    pub version: i64,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What happened.
    pub data: Box<RawValue>,
    /// Facts about it.
    pub metadata: Box<RawValue>,
    /// Its identity.
    pub id: Uuid,
    /// When it was written.
    pub recorded_at: Timestamp,
}

/// The parked keys of a projection, at most `limit` of them.
///
/// # Errors
/// [`crate::ErrorKind::NotFound`] for a projection without a read model, or an empty selection
/// other than all.
pub async fn by_key(
    target: &Database,
    name: &ProjectionName,
    selection: &Selection,
    limit: i64,
) -> Result<Listed<ByKey>> {
    check_name(target, name).await?;
    let sql = include_str!("../../sql/queries/dead_letter/by_key.sql");
    let client = target.client().await?;
    let rows = query(&client, sql, name, selection, &[(&limit, Type::INT8)]).await?;
    let (keys, letters) = match rows.first() {
        Some(row) => (column_named(row, "keys")?, column_named(row, "of_keys")?),
        None => (0, 0),
    };
    selection.check_found(name, keys)?;
    let shown: Result<Vec<ParkedKey>> = rows.iter().map(parked_key).collect();
    Ok(Listed {
        projection: name.clone(),
        parked_keys: keys,
        dead_letters: letters,
        shown: ByKey { keys: shown? },
    })
}

/// The errors that park a projection's keys, grouped by fingerprint, at most `limit` groups.
///
/// # Errors
/// As [`by_key`].
pub async fn by_error(
    target: &Database,
    name: &ProjectionName,
    selection: &Selection,
    limit: i64,
) -> Result<Listed<ByError>> {
    check_name(target, name).await?;
    let sql = include_str!("../../sql/queries/dead_letter/by_error.sql");
    let client = target.client().await?;
    let rows = query(&client, sql, name, selection, &[(&limit, Type::INT8)]).await?;
    let (fingerprints, keys, letters) = match rows.first() {
        Some(row) => (
            column_named(row, "errors")?,
            column_named(row, "of_errors")?,
            column_named(row, "of_keys")?,
        ),
        None => (0, 0, 0),
    };
    selection.check_found(name, fingerprints)?;
    let errors: Result<Vec<Alike>> = rows.iter().map(alike).collect();
    Ok(Listed {
        projection: name.clone(),
        parked_keys: keys,
        dead_letters: letters,
        shown: ByError {
            fingerprints,
            errors: errors?,
        },
    })
}

/// Dead letters in full, at most `limit` of them.
///
/// # Errors
/// As [`by_key`].
pub async fn show(
    target: &Database,
    name: &ProjectionName,
    selection: &Selection,
    limit: i64,
) -> Result<Shown> {
    check_name(target, name).await?;
    let sql = include_str!("../../sql/queries/dead_letter/show.sql");
    let client = target.client().await?;
    let rows = query(&client, sql, name, selection, &[(&limit, Type::INT8)]).await?;
    let letters = match rows.first() {
        Some(row) => column_named(row, "letters")?,
        None => 0,
    };
    selection.check_found(name, letters)?;
    let shown: Result<Vec<ShownLetter>> = rows.iter().map(letter).collect();
    Ok(Shown {
        projection: name.clone(),
        dead_letters: letters,
        letters: shown?,
    })
}

fn parked_key(row: &Row) -> Result<ParkedKey> {
    Ok(ParkedKey {
        key: column_named(row, "key")?,
        dead_letters: column_named(row, "letters")?,
        position: Position::new(column_named(row, "position")?),
        event_id: column_named(row, "id")?,
        event_type: column_named(row, "type")?,
        error: column_named(row, "error")?,
        fingerprint: column_named(row, "fingerprint")?,
        attempts: column_named(row, "attempts")?,
        parked_at: column_named(row, "parked_at")?,
        retry_requested_at: column_named(row, "retry_requested_at")?,
    })
}

fn alike(row: &Row) -> Result<Alike> {
    Ok(Alike {
        fingerprint: column_named(row, "fingerprint")?,
        parked_keys: column_named(row, "keys")?,
        dead_letters: column_named(row, "letters")?,
        event_id: column_named(row, "id")?,
        event_type: column_named(row, "type")?,
        position: Position::new(column_named(row, "position")?),
        error: column_named(row, "error")?,
    })
}

fn letter(row: &Row) -> Result<ShownLetter> {
    Ok(ShownLetter {
        key: column_named(row, "key")?,
        before: column_named(row, "before")?,
        behind: column_named(row, "behind")?,
        event: Event {
            position: Position::new(column_named(row, "position")?),
            stream: column_named(row, "stream")?,
            version: column_named(row, "version")?,
            event_type: column_named(row, "type")?,
            data: column_named::<Json<Box<RawValue>>>(row, "data")?.0,
            metadata: column_named::<Json<Box<RawValue>>>(row, "metadata")?.0,
            id: column_named(row, "id")?,
            recorded_at: column_named(row, "recorded_at")?,
        },
        error: column_named(row, "error")?,
        fingerprint: column_named(row, "fingerprint")?,
        attempts: column_named(row, "attempts")?,
        parked_at: column_named(row, "parked_at")?,
        retry_requested_at: column_named(row, "retry_requested_at")?,
    })
}
