//! The schemas of a read model: the live one has the name of the projection, a rebuild fills
//! another beside it.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::sql::{Sql, sql};
use crate::pg::transaction::Tx;
use crate::pg::{self, Parameter, column};
use crate::projection::DynProjection;

mod batch_view;

pub(crate) use batch_view::{check_key, create_view, show_batch};

/// The schema that a rebuild fills.
pub(super) fn next_schema(name: &ProjectionName) -> String {
    format!("{name}__next")
}

/// The schema that a swap leaves behind.
pub(super) fn old_schema(name: &ProjectionName) -> String {
    format!("{name}__old")
}

/// Creates an empty schema, and refuses an existing one: it is not ours.
pub(crate) async fn create_schema(client: &Client, schema: &str) -> Result<()> {
    let sql = sql!("create schema {schema}", schema = Sql::identifier(schema));
    client.batch_execute(&sql).await.map_err(|e| {
        let code = e.code().map(|c| c.code().to_owned());
        let error = pg::error(&format!("cannot create the schema \"{schema}\""), e);
        match code.as_deref() {
            Some("42P06") => error.with_kind(ErrorKind::Config).with_hint(
                "a schema of that name exists and does not belong to highwater: rename the \
                 projection, or \
                 drop the schema if nothing needs it",
            ),
            Some("42501") => error
                .with_kind(ErrorKind::Database)
                .with_hint("grant create on the database to this role"),
            _ => error,
        }
    })
}

/// Runs `up` in a schema.
pub(crate) async fn fill_schema(
    client: &Client,
    projection: &dyn DynProjection,
    schema: &str,
) -> Result<()> {
    let path = sql!(
        "set local search_path to {schema}, public",
        schema = Sql::identifier(schema)
    );
    let set = client.batch_execute(&path).await;
    set.map_err(|e| pg::error("cannot set the search path", e))?;
    projection
        .set_up(&Tx::new(client))
        .await
        .map_err(definition_fault)
}

/// `up` failed by itself: the projection is wrong, not an event.
fn definition_fault(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Apply => error.with_kind(ErrorKind::Config),
        _ => error,
    }
}

pub(super) async fn schema_exists(client: &Client, schema: &str) -> Result<bool> {
    let sql = include_str!("../../sql/queries/rebuild/schema_exists.sql");
    let row = client.query_typed_one(sql, &[(&schema, Type::TEXT)]).await;
    column(
        &row.map_err(|e| pg::error("cannot check whether a schema exists", e))?,
        0,
    )
}

/// Drops a schema of ours with everything in it, if it exists.
pub(super) async fn drop_schema(client: &Client, schema: &str) -> Result<()> {
    let sql = sql!(
        "drop schema if exists {schema} cascade",
        schema = Sql::identifier(schema)
    );
    let dropped = client.batch_execute(&sql).await;
    dropped.map_err(|e| pg::error(&format!("cannot drop the schema \"{schema}\""), e))
}

/// Renames the schema of the next generation into the place of the live one, with the grants of the
/// live one.
pub(super) async fn swap_schemas(client: &Client, name: &ProjectionName) -> Result<()> {
    let (next, old) = (next_schema(name), old_schema(name));
    let renames = sql!(
        "alter schema {live} rename to {old}; alter schema {next} rename to {live}",
        live = Sql::identifier(name.as_str()),
        old = Sql::identifier(&old),
        next = Sql::identifier(&next),
    );
    let renamed = client.batch_execute(&renames).await;
    renamed.map_err(|e| pg::error("cannot rename the schemas", e))?;
    let sql = include_str!("../../sql/queries/rebuild/carry_grants.sql");
    let parameters: [(&Parameter<'_>, Type); 2] =
        [(&old, Type::TEXT), (&name.as_str(), Type::TEXT)];
    let carried = client.execute_typed(sql, &parameters).await;
    carried
        .map(drop)
        .map_err(|e| pg::own_error("cannot copy the grants", e))
}

/// Refuses to replace or drop a read model that something outside depends on, because that would be
/// dropped too.
pub(super) async fn check_dependents(client: &Client, name: &ProjectionName) -> Result<()> {
    let sql = include_str!("../../sql/queries/rebuild/dependents.sql");
    let rows = client
        .query_typed(sql, &[(&name.as_str(), Type::TEXT)])
        .await;
    let rows = rows.map_err(|e| pg::error("cannot read what depends on the read model", e))?;
    let names: Result<Vec<String>> = rows.iter().map(|row| column(row, 0)).collect();
    let names = names?;
    if names.is_empty() {
        return Ok(());
    }
    let what = format!(
        "the read model of \"{name}\" is used from outside its schema, by {}",
        names.join(", ")
    );
    Err(Error::new(ErrorKind::Config, what)
        .with_hint("drop these first and create them again afterwards"))
}
