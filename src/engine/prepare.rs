//! Before the first batch: the read model of a projection is created, or recognised as its own.

use std::time::Duration;

use futures_util::future::try_join;

use super::read_model::{create_schema, fill_schema, show_batch};
use super::transaction::{begin, end};
use crate::config::format_duration;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::pg::action::{self, OperatorAction};
use crate::pg::database::Database;
use crate::pg::projection::{
    NewProjection, check_hash, create_positions, dropped, insert, stored_in,
};
use crate::projection::DynProjection;
use crate::source::Source;

/// An existing read model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prepared {
    /// It was created just now: its checkpoints know nothing about the source yet.
    New,
    /// It existed before, in this generation.
    Recognised(i32),
}

impl Prepared {
    pub(crate) fn generation(self) -> i32 {
        match self {
            Prepared::New => FIRST_GENERATION,
            Prepared::Recognised(generation) => generation,
        }
    }
}

/// What `highwater.projection.generation` is by default.
const FIRST_GENERATION: i32 = 1;

/// Creates the read model of `projection` if it has none, or refuses one that was built with
/// another definition. It is given up after `limit`: `up` may take any time, and a connection may
/// be silent for ever.
pub(crate) async fn prepare(
    target: &Database,
    projection: &dyn DynProjection,
    source: &dyn Source,
    limit: Duration,
) -> Result<Prepared> {
    let preparing = recognise_or_create(target, projection, source);
    let Ok(prepared) = tokio::time::timeout(limit, preparing).await else {
        let limit = format_duration(limit);
        let what = format!("the read model was not created within {limit}");
        return Err(Error::new(ErrorKind::TimedOut, what).with_hint(
            "the server does not answer, another session locks a table of highwater, or up takes \
             longer: then raise engine.batch_timeout",
        ));
    };
    prepared
}

async fn recognise_or_create(
    target: &Database,
    projection: &dyn DynProjection,
    source: &dyn Source,
) -> Result<Prepared> {
    let definition = projection.definition();
    let before = stored_in(target, &definition.name).await?;
    let stored = match before {
        Some(stored) => stored,
        None => {
            if create(target, projection, source).await? {
                return Ok(Prepared::New);
            }
            // Another instance was first, perhaps with another definition.
            let made = stored_in(target, &definition.name).await?;
            made.ok_or_else(|| dropped(&definition.name))?
        }
    };
    check_hash(&definition.name, &definition.hash, &stored.hash)?;
    Ok(Prepared::Recognised(stored.generation))
}

/// Creates projection row, checkpoint row, schema and tables in one transaction. False if another
/// instance has done so.
async fn create(
    target: &Database,
    projection: &dyn DynProjection,
    source: &dyn Source,
) -> Result<bool> {
    let definition = projection.definition();
    // Of its own: dropped in the middle, the connection ends and rolls its transaction back.
    let connecting = async { Ok(target.connector().connect().await?) };
    let (identity, client) = try_join(source.identity(), connecting).await?;
    begin(&client).await?;
    let done = async {
        let new = NewProjection {
            name: &definition.name,
            hash: &definition.hash,
            source: &definition.source,
            source_identity: &identity,
            partitions: i32::from(definition.partitions),
            key: &definition.key,
            text: definition.text.as_deref(),
        };
        if !insert(&client, new).await? {
            return Ok(false);
        }
        create_schema(&client, definition.name.as_str()).await?;
        fill_schema(&client, projection, definition.name.as_str()).await?;
        let name = &definition.name;
        create_positions(&client, name.as_str(), name, FIRST_GENERATION).await?;
        show_batch(&client, projection, source, definition.name.as_str()).await?;
        let created = OperatorAction::Created {
            hash: &definition.hash,
            partitions: new.partitions,
        };
        action::record(&client, name, created).await?;
        failpoint!("create.filled");
        Ok(true)
    };
    let is_ours = end(&client, done.await).await?;
    failpoint!("create.committed");
    Ok(is_ours)
}
