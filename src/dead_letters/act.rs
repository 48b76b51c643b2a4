//! Retry and discard.

use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Selection, check_name, query};
use crate::engine::transaction::{begin, end, warn_if_blocked};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::name::ProjectionName;
use crate::pg::action::{self, OperatorAction, Selected};
use crate::pg::database::Database;
use crate::pg::{self, column, instance, projection};

/// The dead letters that will be retried.
#[derive(Clone, Debug, Serialize)]
pub struct Requested {
    /// The projection.
    pub projection: ProjectionName,
    /// How many keys.
    pub parked_keys: i64,
    /// How many dead letters: those of whole keys.
    pub dead_letters: i64,
    /// Whether an instance runs the projection now, which will do it.
    pub is_run: bool,
}

/// The discarded dead letters.
#[derive(Clone, Debug, Serialize)]
pub struct Discarded {
    /// The projection.
    pub projection: ProjectionName,
    /// How many events.
    pub discarded: usize,
    /// How many of their keys are still parked, by other events.
    pub still_parked_keys: i64,
    /// How many dead letters these keys have.
    pub left_behind: i64,
    /// How many of these have failed themselves, and will fail again unless the cause is fixed.
    #[serde(skip)]
    pub still_failing: i64,
    /// The key that is still parked, if it is only one.
    #[serde(skip)]
    pub key: Option<Option<String>>,
}

/// Requests a retry of the selected dead letters, with all others of their keys, and wakes the
/// instance that runs the projection.
///
/// # Errors
/// [`ErrorKind::NotFound`] for a projection without a read model, or an empty selection other than
/// all.
pub async fn retry(
    target: &Database,
    name: &ProjectionName,
    selection: &Selection,
) -> Result<Requested> {
    check_name(target, name).await?;
    let client = target.short().await?;
    let requesting = async {
        begin(&client).await?;
        let done = request(&client, name, selection).await;
        end(&client, done).await
    };
    let (keys, letters) = client.within(requesting).await?;
    failpoint!("retry.requested");
    selection.check_found(name, letters)?;
    let sql = include_str!("../../sql/queries/dead_letter/is_run.sql");
    let parameters = [(&name.as_str() as &pg::Parameter<'_>, Type::TEXT)];
    let looking = async {
        let row = client.query_typed_one(sql, &parameters).await;
        row.map_err(|e| pg::own_error("cannot read who runs the projection", e))
    };
    let row = client.within(looking).await?;
    instance::wake(&client).await;
    Ok(Requested {
        projection: name.clone(),
        parked_keys: keys,
        dead_letters: letters,
        is_run: column(&row, 0)?,
    })
}

/// Requests a retry, and records who did. Returns the number of keys and dead letters.
async fn request(
    client: &Client,
    name: &ProjectionName,
    selection: &Selection,
) -> Result<(i64, i64)> {
    let sql = include_str!("../../sql/queries/dead_letter/request_retry.sql");
    let (keys, letters) = counted(&query(client, sql, name, selection, &[]).await?)?;
    if let Some(selected) = selected(selection, letters) {
        action::record(client, name, OperatorAction::Retried(selected)).await?;
    }
    Ok((keys, letters))
}

/// Discards the selected dead letters for good: they are recorded in `highwater.discarded` with the
/// reason, and their events are never applied. Other dead letters of their keys stay.
///
/// # Errors
/// As [`retry`]; [`ErrorKind::Usage`] for an empty reason.
pub async fn discard(
    target: &Database,
    name: &ProjectionName,
    selection: &Selection,
    reason: &str,
) -> Result<Discarded> {
    if reason.trim().is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the reason is empty")
            .with_hint("say why it is discarded"));
    }
    check_name(target, name).await?;
    // Of its own: dropped in the middle, the connection ends and takes its transaction along.
    let client = target.connector().connect().await?;
    begin(&client).await?;
    let done = in_transaction(&client, name, selection, reason).await;
    let discarded = end(&client, done).await?;
    failpoint!("discard.committed");
    Ok(discarded)
}

async fn in_transaction(
    client: &Client,
    name: &ProjectionName,
    selection: &Selection,
    reason: &str,
) -> Result<Discarded> {
    let sql = include_str!("../../sql/queries/dead_letter/lock.sql");
    let locking = async {
        projection::lock(client, name).await?;
        query(client, sql, name, selection, &[]).await
    };
    warn_if_blocked(name, locking).await?;
    let sql = include_str!("../../sql/queries/dead_letter/discard.sql");
    let gone = query(client, sql, name, selection, &[(&reason, Type::TEXT)]).await?;
    let found = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    selection.check_found(name, found)?;
    if let Some(selected) = selected(selection, found) {
        action::record(client, name, OperatorAction::Discarded { selected, reason }).await?;
    }
    failpoint!("discard.settled");
    let keys: Result<Vec<Option<String>>> = gone.iter().map(|row| column(row, 0)).collect();
    let keys = keys?;
    let sql = include_str!("../../sql/queries/dead_letter/left_behind.sql");
    let parameters: [(&pg::Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&keys, Type::TEXT_ARRAY)];
    let left = client.query_typed(sql, &parameters).await;
    let left = left.map_err(|e| pg::own_error("cannot read what is left", e))?;
    let (still_parked_keys, left_behind) = counted(&left)?;
    let still_failing = left.first().map(|row| column(row, 2)).transpose()?;
    let mut of = keys.iter();
    let first = of.next().filter(|first| of.all(|key| key == *first));
    Ok(Discarded {
        projection: name.clone(),
        discarded: keys.len(),
        still_parked_keys,
        left_behind,
        still_failing: still_failing.unwrap_or_default(),
        key: first.cloned(),
    })
}

/// The dead letters of a command; `None` if there were none.
fn selected(selection: &Selection, dead_letters: i64) -> Option<Selected> {
    let (by, value) = selection.parameters();
    (dead_letters > 0).then_some(Selected {
        by,
        value,
        dead_letters,
    })
}

/// The keys and dead letters, from a statement that counts both.
fn counted(rows: &[tokio_postgres::Row]) -> Result<(i64, i64)> {
    match rows.first() {
        Some(row) => Ok((column(row, 0)?, column(row, 1)?)),
        None => Ok((0, 0)),
    }
}
