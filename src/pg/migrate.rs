//! Brings the schema `highwater` up to date, and reports when it is not.
//!
//! There are two components ([`Component`]): the event log, and the state of the engine. A database
//! of read models whose events are elsewhere needs only the second. The migrations of each are
//! numbered files in `sql/migrations`, embedded in the binary, applied forward only, each in one
//! transaction under a transaction-level lock, and recorded in `highwater.migration` with the hash
//! of their text. A released file is never edited.

mod files;
mod state;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::mutation;
use crate::pg;

pub use files::{Component, Migration};
use state::SchemaState;

const LOCK: &str = include_str!("../../sql/queries/migrate/lock.sql");
const CREATE_SCHEMA: &str = include_str!("../../sql/queries/migrate/create_schema.sql");
const CREATE_TABLE: &str = include_str!("../../sql/queries/migrate/create_table.sql");
const LIST: &str = include_str!("../../sql/queries/migrate/list.sql");
const RECORD: &str = include_str!("../../sql/queries/migrate/record.sql");

/// A migration that was applied just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The component it belongs to.
    pub component: Component,
    /// Its place in the order of its component.
    pub number: i32,
    /// What it is about.
    pub name: String,
}

/// Applies the missing migrations of both components and returns them, oldest first. May run at the
/// same time from anywhere.
///
/// # Errors
/// [`ErrorKind::Database`] if the server is too old, the role lacks a right, the schema is not
/// highwater's, an applied migration was changed, or the schema is newer than this binary.
pub async fn migrate(client: &mut Client) -> Result<Vec<Applied>> {
    let mut done = Vec::new();
    for component in Component::ALL {
        done.extend(migrate_component(client, component).await?);
    }
    Ok(done)
}

/// As [`migrate`], for one component.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_component(client: &mut Client, component: Component) -> Result<Vec<Applied>> {
    let mut done = Vec::new();
    while let Some(applied) = step(client, component).await? {
        done.push(applied);
    }
    Ok(done)
}

/// Checks that the schema is exactly the one this binary knows.
///
/// # Errors
/// [`ErrorKind::Database`], as [`migrate`], and if a migration is missing.
pub async fn verify(client: &impl GenericClient) -> Result<()> {
    let state = SchemaState::read(client).await?;
    state.check_server()?;
    if !state.has_schema || (!state.is_ours && state.is_empty) {
        return Err(Error::new(
            ErrorKind::Database,
            format!("database {} has no schema highwater yet", state.database),
        )
        .with_hint("run highwater init"));
    }
    state.check_ours()?;
    state.check_may_read()?;
    for component in Component::ALL {
        let applied = list(client, component).await?;
        if let Some(missing) = next(component, &applied)? {
            let what = format!(
                "the schema highwater of database {} is older than this binary: {component} migration {} \
                 ({}) is missing",
                state.database, missing.number, missing.name
            );
            return Err(Error::new(ErrorKind::Database, what).with_hint("run highwater init"));
        }
    }
    Ok(())
}

/// One transaction: applies the next migration, if there is one.
async fn step(client: &mut Client, component: Component) -> Result<Option<Applied>> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
        .map_err(|e| pg::error("cannot begin to migrate", e))?;
    transaction
        .query_typed(LOCK, &[])
        .await
        .map_err(|e| pg::error("cannot wait for another migration", e))?;
    let state = SchemaState::read(&transaction).await?;
    state.check_server()?;
    if !state.is_ours {
        create_record(&transaction, &state).await?;
    }
    let applied = list_for_migration(&transaction, &state, component).await?;
    let Some(migration) = next(component, &applied)? else {
        // Nothing was written unless the table of migrations was created, and then there is a
        // migration to apply.
        return Ok(None);
    };
    apply(&transaction, component, migration)
        .await
        .map_err(|e| state.explain_rights(e))?;
    failpoint!("migrate.applied");
    transaction
        .commit()
        .await
        .map_err(|e| pg::error(&format!("cannot commit migration {}", migration.number), e))?;
    failpoint!("migrate.committed");
    Ok(Some(Applied {
        component,
        number: migration.number,
        name: migration.name.to_owned(),
    }))
}

async fn create_record(transaction: &Transaction<'_>, state: &SchemaState) -> Result<()> {
    state.check_may_create()?;
    for text in [CREATE_SCHEMA, CREATE_TABLE] {
        transaction
            .batch_execute(text)
            .await
            .map_err(|e| pg::error("cannot create schema highwater", e))?;
    }
    Ok(())
}

async fn list_for_migration(
    transaction: &Transaction<'_>,
    state: &SchemaState,
    component: Component,
) -> Result<Vec<(i32, String, String)>> {
    if state.is_ours {
        state.check_may_read()?;
    }
    list(transaction, component).await
}

async fn apply(
    transaction: &Transaction<'_>,
    component: Component,
    migration: &Migration,
) -> Result<()> {
    let doing = format!(
        "cannot apply {component} migration {} ({})",
        migration.number, migration.name
    );
    transaction
        .batch_execute(&mutation::in_sql(migration.text))
        .await
        .map_err(|e| pg::error(&doing, e))?;
    transaction
        .execute_typed(
            RECORD,
            &[
                (&component.as_str(), Type::TEXT),
                (&migration.number, Type::INT4),
                (&migration.name, Type::TEXT),
                (&migration.hash(), Type::TEXT),
            ],
        )
        .await
        .map_err(|e| pg::error(&doing, e))?;
    Ok(())
}

async fn list(
    client: &impl GenericClient,
    component: Component,
) -> Result<Vec<(i32, String, String)>> {
    let rows = client
        .query_typed(LIST, &[(&component.as_str(), Type::TEXT)])
        .await
        .map_err(|e| pg::error("cannot read highwater.migration", e))?;
    rows.iter()
        .map(|row| Ok((get(row, 0)?, get(row, 1)?, get(row, 2)?)))
        .collect()
}

/// The first migration that is not applied, after comparing those that are.
fn next(
    component: Component,
    applied: &[(i32, String, String)],
) -> Result<Option<&'static Migration>> {
    let migrations = component.migrations();
    if let Some((number, name, _)) = applied.get(migrations.len()) {
        return Err(Error::new(
            ErrorKind::Database,
            format!(
                "the schema highwater is newer than this binary: it has {component} migration {number} ({name})"
            ),
        )
        .with_hint("run the newer highwater"));
    }
    for (migration, (number, name, hash)) in migrations.iter().zip(applied) {
        if migration.number != *number || migration.hash() != *hash {
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "{component} migration {number} ({name}) was applied with another text than this binary \
                     holds: the two are different builds, or the record was changed"
                ),
            )
            .with_hint("run the highwater that made this schema"));
        }
    }
    Ok(migrations.get(applied.len()))
}

fn get<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, index: usize) -> Result<T> {
    row.try_get(index)
        .map_err(|e| pg::error("cannot read the state of schema highwater", e))
}
