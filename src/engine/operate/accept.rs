//! `highwater accept`: the read model stays as it is, under a changed definition or on a changed log.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::engine::divergence;
use crate::engine::read_model::show_batch;
use crate::engine::transaction::{begin, end, lock_live};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::pg::action::{self, OperatorAction};
use crate::pg::database::Database;
use crate::pg::{self, Parameter, column, dead_letter, projection};
use crate::projection::{Definition, DynProjection};
use crate::source::Source;

/// Accepts a changed definition as one that builds the same read model, a log that differs from what
/// the checkpoints know as the same log, and a read model that was restored to another time as one
/// that is where its checkpoint is: the projection resumes there. False if nothing had changed.
///
/// # Errors
/// If the projection has no read model yet, the log is behind a checkpoint, or the database refuses.
pub async fn accept(
    target: &Database,
    projection: &dyn DynProjection,
    source: &dyn Source,
) -> Result<bool> {
    let definition = projection.definition();
    let client = target.connector().connect().await?;
    begin(&client).await?;
    let done = async {
        // Waits for a batch in flight, so the view changes between two batches.
        lock_live(&client, &definition.name).await?;
        check_cut(&client, definition).await?;
        let sql = include_str!("../../../sql/queries/projection/accept.sql");
        let parameters: [(&Parameter<'_>, Type); 5] = [
            (&definition.name.as_str(), Type::TEXT),
            (&definition.hash, Type::TEXT),
            (&definition.source, Type::TEXT),
            (&definition.key, Type::TEXT),
            (&definition.text, Type::TEXT),
        ];
        let changed = client.execute_typed(sql, &parameters).await;
        let changed = changed.map_err(|e| pg::own_error("cannot accept the change", e))?;
        dead_letter::rekey(&client, &definition.name, &definition.key).await?;
        show_batch(&client, projection, source, definition.name.as_str()).await?;
        let differed = divergence::accept(&client, &definition.name, source).await?;
        let moved = projection::set_positions(&client, &definition.name).await?;
        let accepted = OperatorAction::Accepted {
            hash: &definition.hash,
            definition_changed: changed > 0,
            log_differed: differed,
            position_differed: moved && !differed,
        };
        let accepts = changed > 0 || differed || moved;
        if accepts {
            action::record(&client, &definition.name, accepted).await?;
        }
        failpoint!("accept.changed");
        Ok(accepts)
    };
    let accepted = end(&client, done.await).await?;
    failpoint!("accept.committed");
    Ok(accepted)
}

/// Refuses another key where it would move keys between partitions that are at different positions:
/// events would be lost or applied twice.
async fn check_cut(client: &Client, definition: &Definition) -> Result<()> {
    let name = &definition.name;
    let sql = include_str!("../../../sql/queries/projection/is_cut.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&definition.key, Type::TEXT)];
    let row = client.query_typed_opt(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot compare the keys", e))?;
    if !row.map(|row| column(&row, 0)).transpose()?.unwrap_or(false) {
        return Ok(());
    }
    let what = format!(
        "the key of \"{name}\" cannot change now: its partitions are at different positions"
    );
    Err(Error::new(ErrorKind::Config, what).with_hint(format!(
        "highwater rebuild {name}; or put the key back, bring them to one position with highwater \
         run {name} --until-caught-up, then accept it"
    )))
}
