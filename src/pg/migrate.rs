//! Brings the schema `highwater` up to date, and says when it is not.
//!
//! Migrations are numbered files in `sql/migrations`, embedded in the binary, applied forward only,
//! each in one transaction under a transaction-level lock, and recorded in `highwater.migration`
//! with the hash of their text. A released file is never edited: a test pins its hash.

mod state;

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::mutation;
use crate::pg;

use state::State;

const LOCK: &str = include_str!("../../sql/queries/migrate/lock.sql");
const CREATE_SCHEMA: &str = include_str!("../../sql/queries/migrate/create_schema.sql");
const CREATE_TABLE: &str = include_str!("../../sql/queries/migrate/create_table.sql");
const LIST: &str = include_str!("../../sql/queries/migrate/list.sql");
const RECORD: &str = include_str!("../../sql/queries/migrate/record.sql");

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place in the order, from 1, without holes.
    pub number: i32,
    /// What it is about, as in its file name.
    pub name: &'static str,
    /// Its SQL.
    pub text: &'static str,
}

impl Migration {
    /// SHA-256 of its text in hexadecimal; line ends count as `\n`.
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(self.text.replace("\r\n", "\n"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A migration that was applied just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its place in the order.
    pub number: i32,
    /// What it is about.
    pub name: String,
}

/// The table of migrations: a new one is one more line here.
const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "event_log",
        text: include_str!("../../sql/migrations/0001_event_log.sql"),
    },
    Migration {
        number: 2,
        name: "checkpoint",
        text: include_str!("../../sql/migrations/0002_checkpoint.sql"),
    },
    Migration {
        number: 3,
        name: "many_instances",
        text: include_str!("../../sql/migrations/0003_many_instances.sql"),
    },
    Migration {
        number: 4,
        name: "live_batches",
        text: include_str!("../../sql/migrations/0004_live_batches.sql"),
    },
];

/// All migrations, oldest first.
pub fn all() -> &'static [Migration] {
    MIGRATIONS
}

/// Applies what is missing and returns it, oldest first. May run at the same time from anywhere.
///
/// # Errors
/// [`ErrorKind::Database`] if the server is too old, the role lacks a right, the schema is not
/// highwater's, an applied migration was changed, or the schema is newer than this binary.
pub async fn migrate(client: &mut Client) -> Result<Vec<Applied>> {
    migrate_to(client, MIGRATIONS).await
}

/// Checks that the schema is exactly the one this binary knows.
///
/// # Errors
/// [`ErrorKind::Database`], as [`migrate`], and if a migration is missing.
pub async fn verify(client: &impl GenericClient) -> Result<()> {
    let state = State::read(client).await?;
    state.check_server()?;
    if !state.has_schema || (!state.is_ours && state.is_empty) {
        return Err(Error::new(
            ErrorKind::Database,
            format!("database {} has no schema highwater yet", state.database),
        )
        .hint("run highwater init"));
    }
    state.check_ours()?;
    state.check_may_read()?;
    let applied = list(client).await?;
    match next(MIGRATIONS, &applied)? {
        None => Ok(()),
        Some(missing) => Err(Error::new(
            ErrorKind::Database,
            format!(
                "the schema highwater of database {} is older than this binary: migration {} \
                 ({}) is missing",
                state.database, missing.number, missing.name
            ),
        )
        .hint("run highwater init")),
    }
}

async fn migrate_to(client: &mut Client, migrations: &[Migration]) -> Result<Vec<Applied>> {
    let mut done = Vec::new();
    while let Some(applied) = step(client, migrations).await? {
        done.push(applied);
    }
    Ok(done)
}

/// One transaction: applies the next migration, if there is one.
async fn step(client: &mut Client, migrations: &[Migration]) -> Result<Option<Applied>> {
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
    let state = State::read(&transaction).await?;
    state.check_server()?;
    if !state.is_ours {
        create_record(&transaction, &state).await?;
    }
    let applied = list_for_migration(&transaction, &state).await?;
    let Some(migration) = next(migrations, &applied)? else {
        // Nothing was written unless the record was created, and then there is a migration to apply.
        return Ok(None);
    };
    apply(&transaction, migration)
        .await
        .map_err(|e| state.explain_rights(e))?;
    failpoint!("migrate.applied");
    transaction
        .commit()
        .await
        .map_err(|e| pg::error(&format!("cannot commit migration {}", migration.number), e))?;
    failpoint!("migrate.committed");
    Ok(Some(Applied {
        number: migration.number,
        name: migration.name.to_owned(),
    }))
}

async fn create_record(transaction: &Transaction<'_>, state: &State) -> Result<()> {
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
    state: &State,
) -> Result<Vec<(i32, String, String)>> {
    if state.is_ours {
        state.check_may_read()?;
    }
    list(transaction).await
}

async fn apply(transaction: &Transaction<'_>, migration: &Migration) -> Result<()> {
    let doing = format!(
        "cannot apply migration {} ({})",
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
                (&migration.number, Type::INT4),
                (&migration.name, Type::TEXT),
                (&migration.hash(), Type::TEXT),
            ],
        )
        .await
        .map_err(|e| pg::error(&doing, e))?;
    Ok(())
}

async fn list(client: &impl GenericClient) -> Result<Vec<(i32, String, String)>> {
    let rows = client
        .query_typed(LIST, &[])
        .await
        .map_err(|e| pg::error("cannot read highwater.migration", e))?;
    rows.iter()
        .map(|row| Ok((get(row, 0)?, get(row, 1)?, get(row, 2)?)))
        .collect()
}

/// The first migration that is not applied, after comparing those that are.
fn next<'m>(
    migrations: &'m [Migration],
    applied: &[(i32, String, String)],
) -> Result<Option<&'m Migration>> {
    if let Some((number, name, _)) = applied.get(migrations.len()) {
        return Err(Error::new(
            ErrorKind::Database,
            format!(
                "the schema highwater is newer than this binary: it has migration {number} ({name})"
            ),
        )
        .hint("run the newer highwater"));
    }
    for (migration, (number, name, hash)) in migrations.iter().zip(applied) {
        if migration.number != *number || migration.hash() != *hash {
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "migration {number} ({name}) was applied with another text than this binary \
                     holds: the two are different builds, or the record was changed"
                ),
            )
            .hint("run the highwater that made this schema"));
        }
    }
    Ok(migrations.get(applied.len()))
}

fn get<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, index: usize) -> Result<T> {
    row.try_get(index)
        .map_err(|e| pg::error("cannot read the state of schema highwater", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A released migration is never edited: databases hold its hash.
    const RELEASED: &[(i32, &str, &str)] = &[
        (
            1,
            "event_log",
            "c9b6ad650232fd5c369eec72cad5ef8d39807bed8f6cc30c57cfc8ce34657869",
        ),
        (
            2,
            "checkpoint",
            "a478aad5f6346339df2d2d476f4420429bb6175d2a34fe9fb12649b83ef0db9d",
        ),
        (
            3,
            "many_instances",
            "27fd28d13fcfd119e45ff3a89e449d47e85797f38c61ec564e0473a6be19387c",
        ),
        (
            4,
            "live_batches",
            "ae4a4dc59ef69401b8c5b3e2bcf4a615f9ecf99304fea7f49dcdd1e98cd3fc96",
        ),
    ];

    #[test]
    fn released_migrations_are_as_they_were_released() {
        let hashes: Vec<_> = all().iter().map(|m| (m.number, m.name, m.hash())).collect();
        for (found, (number, name, hash)) in hashes.iter().zip(RELEASED) {
            assert_eq!(
                (found.0, found.1, found.2.as_str()),
                (*number, *name, *hash)
            );
        }
        assert!(hashes.len() >= RELEASED.len());
    }

    #[test]
    fn migrations_are_numbered_from_one_without_holes() {
        for (migration, number) in all().iter().zip(1..) {
            assert_eq!(migration.number, number);
        }
    }

    #[test]
    fn line_ends_do_not_change_the_hash() {
        let unix = Migration {
            number: 1,
            name: "a",
            text: "select 1;\n",
        };
        let windows = Migration {
            number: 1,
            name: "a",
            text: "select 1;\r\n",
        };
        assert_eq!(unix.hash(), windows.hash());
    }

    fn record(migration: &Migration) -> (i32, String, String) {
        (
            migration.number,
            migration.name.to_owned(),
            migration.hash(),
        )
    }

    #[test]
    fn a_schema_newer_than_the_binary_is_refused() {
        let mut applied: Vec<_> = all().iter().map(record).collect();
        applied.push((99, "future".to_owned(), "0".repeat(64)));
        let Err(error) = next(all(), &applied) else {
            panic!("the newer schema was taken");
        };
        assert_eq!(error.kind(), ErrorKind::Database);
        assert!(error.message().contains("migration 99 (future)"), "{error}");
    }

    #[test]
    fn an_applied_migration_with_another_text_is_refused_by_name() {
        let applied = [(1, "event_log".to_owned(), "0".repeat(64))];
        let Err(error) = next(all(), &applied) else {
            panic!("the other text was taken");
        };
        assert!(
            error.message().starts_with("migration 1 (event_log)"),
            "{error}"
        );
    }
}
