//! `highwater drop`: drops the read model, with everything that is stored about its projection.

use crate::engine::read_model::{check_dependents, drop_schema, next_schema, old_schema};
use crate::engine::transaction::{begin, end, lock_live};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::name::ProjectionName;
use crate::pg::action::{self, OperatorAction};
use crate::pg::database::Database;
use crate::pg::projection;

/// Drops a projection: its schemas with the read model, and its checkpoints.
///
/// # Errors
/// If there is no such projection, or something outside depends on its read model.
pub async fn drop_projection(target: &Database, name: &ProjectionName) -> Result<()> {
    let client = target.connector().connect().await?;
    check_dependents(&client, name).await?;
    begin(&client).await?;
    let done = async {
        lock_live(&client, name).await?;
        projection::delete(&client, name).await?;
        for schema in [
            name.as_str().to_owned(),
            next_schema(name),
            old_schema(name),
        ] {
            drop_schema(&client, &schema).await?;
        }
        action::record(&client, name, OperatorAction::Dropped).await?;
        failpoint!("drop.deleted");
        Ok(())
    };
    end(&client, done.await).await?;
    failpoint!("drop.committed");
    Ok(())
}
