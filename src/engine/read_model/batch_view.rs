//! The view `batch`, through which the statements of a projection see their events.

use tokio_postgres::Client;

use crate::engine::apply::batch::of_types;
use crate::error::{ErrorKind, Result};
use crate::pg;
use crate::pg::sql::{Sql, query, sql};
use crate::projection::{Definition, DynProjection};
use crate::source::{Keys, Source};

/// Creates the view `batch` in a schema, if the projection reads it there.
pub(crate) async fn show_batch(
    client: &Client,
    projection: &dyn DynProjection,
    source: &dyn Source,
    schema: &str,
) -> Result<()> {
    let definition = projection.definition();
    let Some(relation) = source.relation() else {
        return Ok(());
    };
    check_key(client, &definition.key, relation, schema).await?;
    if projection.statements().is_none() {
        return Ok(());
    }
    create_view(client, definition, relation, schema).await
}

/// Creates or replaces the view through which the statements of a projection see a batch.
pub(crate) async fn create_view(
    client: &Client,
    definition: &Definition,
    relation: &str,
    schema: &str,
) -> Result<()> {
    let view = query!("projection/create_view.sql").fill(&[
        ("schema", &Sql::identifier(schema)),
        ("events", &Sql::relation(relation)?),
        ("types", &of_types(definition.events.as_deref())),
        ("key", &Sql::expression(&definition.key)?),
    ])?;
    let both = sql!(
        "{view};\nselect highwater.restrict_view({schema})",
        view = view,
        schema = Sql::literal(schema)
    );
    client.batch_execute(&both).await.map_err(|e| {
        let error = pg::error("cannot create the view \"batch\"", e);
        match error.sqlstate() {
            Some("42P07" | "42809") => error.with_kind(ErrorKind::Config).with_hint(
                "\"batch\" is the name of the events in apply: give the table another one",
            ),
            _ => error,
        }
    })
}

/// Refuses a key that the server does not understand, or that would not stay the same for an event.
pub(crate) async fn check_key(
    client: &Client,
    key: &str,
    relation: &str,
    schema: &str,
) -> Result<()> {
    if key == Keys::STREAM {
        return Ok(());
    }
    let table = Sql::qualified(schema, "highwater_key");
    let index = query!("projection/index_key.sql")
        .fill(&[("table", &table), ("key", &Sql::expression(key)?)])?;
    let tried = sql!(
        "create table {table} as select position, stream, version, type, data, metadata, id, \
         recorded_at from {events} with no data;\n{index};\ndrop table {table}",
        table = table,
        events = Sql::relation(relation)?,
        index = index,
    );
    let tried = client.batch_execute(&tried).await;
    tried.map_err(|e| {
        let error = pg::error(
            "the key is not an expression over the columns of a batch",
            e,
        );
        let hint = match error.sqlstate() {
            Some("42P17") => {
                "an event must keep its key for ever: use nothing that depends on the time or on \
                 settings, such as the text of recorded_at"
            }
            _ => "the columns are position, stream, version, type, data, metadata, id, recorded_at",
        };
        error.with_kind(ErrorKind::Config).with_hint(hint)
    })
}
