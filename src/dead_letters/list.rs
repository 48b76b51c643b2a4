//! Lists and shows dead letters.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Selection, check_name, query};
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::name::ProjectionName;
use crate::pg::column_named;
use crate::pg::database::Database;
use crate::pg::event::recorded;
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

/// A dead letter, without its event's data.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// The key; `None` is the key null.
    pub key: Option<String>,
    /// The position of the event.
    pub position: Position,
    /// The event.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Why it could not be applied, as in a projection's `last_error`; `None` if it was not tried,
    /// because an earlier event of its key is or was parked.
    pub error: Option<Value>,
    /// Error fingerprint: the same for errors of one cause.
    pub fingerprint: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// Since when it is parked.
    pub parked_at: Timestamp,
    /// When a retry was requested that is not done yet.
    pub retry_requested_at: Option<Timestamp>,
}

/// A parked key.
#[derive(Clone, Debug, Serialize)]
pub struct ParkedKey {
    /// How many dead letters it has.
    pub dead_letters: i64,
    /// The first of them, which blocks it.
    #[serde(flatten)]
    pub first: DeadLetter,
}

/// Parked keys with one error fingerprint; none if the first dead letter has no error of its own.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorGroup {
    /// How many keys there are.
    pub parked_keys: i64,
    /// How many dead letters these keys have.
    pub dead_letters: i64,
    /// The first of those that block a key.
    #[serde(flatten)]
    pub first: DeadLetter,
}

/// Groups of errors, the one that parks most keys first.
#[derive(Clone, Debug, Serialize)]
pub struct ByError {
    /// How many groups there are.
    pub fingerprints: i64,
    /// The first of them.
    pub errors: Vec<ErrorGroup>,
}

/// Dead letters, in the order of their positions.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The projection.
    pub projection: ProjectionName,
    /// How many dead letters are in the selection.
    pub dead_letters: i64,
    /// The first of them.
    pub shown: Vec<FullDeadLetter>,
}

/// A dead letter with its event.
#[derive(Clone, Debug, Serialize)]
pub struct FullDeadLetter {
    /// The dead letter.
    #[serde(flatten)]
    pub dead_letter: DeadLetter,
    /// How many dead letters of the key are before it.
    pub before: i64,
    /// How many of the key follow it.
    pub behind: i64,
    /// The event, as the batch had it.
    pub event: RecordedEvent,
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
    let parked_keys = total(&rows, "all_parked_keys")?;
    selection.check_found(name, parked_keys)?;
    let keys: Result<Vec<ParkedKey>> = rows.iter().map(parked_key).collect();
    Ok(Listed {
        projection: name.clone(),
        parked_keys,
        dead_letters: total(&rows, "all_dead_letters")?,
        shown: ByKey { keys: keys? },
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
    let fingerprints = total(&rows, "all_fingerprints")?;
    selection.check_found(name, fingerprints)?;
    let errors: Result<Vec<ErrorGroup>> = rows.iter().map(error_group).collect();
    Ok(Listed {
        projection: name.clone(),
        parked_keys: total(&rows, "all_parked_keys")?,
        dead_letters: total(&rows, "all_dead_letters")?,
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
    let dead_letters = total(&rows, "all_dead_letters")?;
    selection.check_found(name, dead_letters)?;
    let shown: Result<Vec<FullDeadLetter>> = rows.iter().map(full).collect();
    Ok(Shown {
        projection: name.clone(),
        dead_letters,
        shown: shown?,
    })
}

/// A number over the whole selection, which every row has.
fn total(rows: &[Row], column: &str) -> Result<i64> {
    rows.first().map_or(Ok(0), |row| column_named(row, column))
}

fn dead_letter(row: &Row) -> Result<DeadLetter> {
    Ok(DeadLetter {
        key: column_named(row, "key")?,
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

fn parked_key(row: &Row) -> Result<ParkedKey> {
    Ok(ParkedKey {
        dead_letters: column_named(row, "dead_letters")?,
        first: dead_letter(row)?,
    })
}

fn error_group(row: &Row) -> Result<ErrorGroup> {
    Ok(ErrorGroup {
        parked_keys: column_named(row, "parked_keys")?,
        dead_letters: column_named(row, "dead_letters")?,
        first: dead_letter(row)?,
    })
}

fn full(row: &Row) -> Result<FullDeadLetter> {
    Ok(FullDeadLetter {
        dead_letter: dead_letter(row)?,
        before: column_named(row, "before")?,
        behind: column_named(row, "behind")?,
        event: recorded(row)?,
    })
}
