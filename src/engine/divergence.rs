//! Whether a source is still the log that a checkpoint was taken from.

use tokio_postgres::Client;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::checkpoint::{self, Checkpoint, Key};
use crate::position::Position;
use crate::source::Source;

/// Up to where a source is proven by what was applied: its highest checkpoint whose last event the
/// log still has.
pub(crate) async fn floor(client: &Client, source: &dyn Source) -> Result<Position> {
    let identity = source.identity().await?;
    for (position, last_event) in checkpoint::highest(client, &identity).await? {
        let Some((at, id)) = last_event else { continue };
        if source.last_at(at).await? == Some((at, id)) {
            return Ok(position);
        }
    }
    Ok(Position::START)
}

/// Refuses a source that is not the one that a checkpoint was taken from, or that went back and on
/// again since.
pub(crate) async fn check(key: &Key, checkpoint: &Checkpoint, source: &dyn Source) -> Result<()> {
    let identity = source.identity().await?;
    if identity != checkpoint.source_identity {
        let what = format!(
            "the checkpoint of \"{}\" was taken from the log {}, and source \"{}\" is the log {identity}",
            key.projection,
            checkpoint.source_identity,
            source.name(),
        );
        return Err(diverged(key, what));
    }
    let Some((position, id)) = checkpoint.last_event else {
        return Ok(());
    };
    let reached = source.reached().await?;
    if reached < checkpoint.position {
        let what = format!(
            "the checkpoint of \"{}\" stands at {}, and source \"{}\" has given no position above \
             {reached}: the log went back",
            key.projection,
            checkpoint.position,
            source.name(),
        );
        return Err(diverged(key, what));
    }
    // One that is not there any more may have been deleted, which is allowed.
    match source.last_at(position).await? {
        Some((found_at, found)) if found_at == position && found != id => {
            let what = format!(
                "the checkpoint of \"{}\" knows event {id} at position {position}, where source \"{}\" \
                 has event {found} now: the log went back since",
                key.projection,
                source.name(),
            );
            Err(diverged(key, what))
        }
        _ => Ok(()),
    }
}

fn diverged(key: &Key, what: String) -> Error {
    Error::new(ErrorKind::Diverged, what).hint(format!(
        "connect to the database it was built from, or highwater rebuild {}",
        key.projection
    ))
}
