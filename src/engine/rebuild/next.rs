//! The rows of the next generation: created, dropped, or made the live ones.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::engine::read_model::{drop_schema, next_schema};
use crate::engine::transaction::{begin, end, warn_if_blocked};
use crate::error::{Error, ErrorKind, Result};
use crate::key_hash;
use crate::name::ProjectionName;
use crate::pg::action::{self, OperatorAction};
use crate::pg::projection::{self, not_built};
use crate::pg::{self, Parameter, column};
use crate::position::Position;
use crate::projection::Definition;

/// Creates the rows of the next generation in place of those of an earlier attempt. Returns its
/// number.
pub(super) async fn insert(
    client: &Client,
    definition: &Definition,
    source_identity: &str,
) -> Result<i32> {
    let sql = include_str!("../../../sql/queries/rebuild/begin.sql");
    let parameters: [(&Parameter<'_>, Type); 6] = [
        (&definition.name.as_str(), Type::TEXT),
        (&definition.hash, Type::TEXT),
        (&source_identity, Type::TEXT),
        (&definition.source, Type::TEXT),
        (&definition.text, Type::TEXT),
        (&key_hash::NAME, Type::TEXT),
    ];
    // One row for each partition.
    let rows = client.query_typed(sql, &parameters).await;
    let rows = rows.map_err(|e| pg::error("cannot begin the rebuild", e))?;
    let first = rows.first().ok_or_else(|| not_built(&definition.name))?;
    column(first, 0)
}

/// How far a generation has read: the position of its partition that is furthest behind.
pub(super) async fn read_up_to(
    client: &Client,
    name: &ProjectionName,
    generation: i32,
) -> Result<Position> {
    let sql = include_str!("../../../sql/queries/rebuild/read_up_to.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&generation, Type::INT4)];
    let row = client.query_typed_one(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot read the next checkpoint", e))?;
    Ok(Position::new(column(&row, 0)?))
}

/// Drops what was created of the next generation, unless it is another one by now.
pub(super) async fn give_up(client: &Client, name: &ProjectionName, generation: i32) -> Result<()> {
    begin(client).await?;
    let done = async {
        warn_if_blocked(name, projection::lock(client, name)).await?;
        let sql = include_str!("../../../sql/queries/rebuild/give_up.sql");
        let parameters: [(&Parameter<'_>, Type); 2] =
            [(&name.as_str(), Type::TEXT), (&generation, Type::INT4)];
        let given_up = client.execute_typed(sql, &parameters).await;
        let given_up = given_up.map_err(|e| pg::own_error("cannot cancel the rebuild", e))?;
        if given_up == 0 {
            return Ok(());
        }
        drop_schema(client, &next_schema(name)).await?;
        action::record(client, name, OperatorAction::RebuildGivenUp(generation)).await
    };
    end(client, done.await).await
}

/// Makes the next generation the live one, unless another rebuild has started: then the schema
/// belongs to that one.
pub(super) async fn swap(client: &Client, name: &ProjectionName, generation: i32) -> Result<()> {
    let sql = include_str!("../../../sql/queries/rebuild/swap.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&name.as_str(), Type::TEXT), (&generation, Type::INT4)];
    let swapped = client.query_typed_opt(sql, &parameters).await;
    let swapped = swapped.map_err(|e| pg::error("cannot swap the generations", e))?;
    if swapped.is_none() {
        let what = format!("another rebuild of \"{name}\" has started since");
        return Err(Error::new(ErrorKind::Fenced, what).with_hint("let one of the two finish"));
    }
    Ok(())
}
