//! The state of schema `highwater`, and whether this role may migrate it.

use tokio_postgres::GenericClient;

use super::get;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{self, connect};

const STATE: &str = include_str!("../../../sql/queries/migrate/state.sql");

/// What there is, and what this role may do.
pub(super) struct SchemaState {
    server_version: i32,
    server_version_text: String,
    role: String,
    pub(super) database: String,
    may_create: bool,
    pub(super) has_schema: bool,
    owner: Option<String>,
    may_fill: bool,
    may_read: bool,
    pub(super) is_ours: bool,
    pub(super) is_empty: bool,
}

impl SchemaState {
    pub(super) async fn read(client: &impl GenericClient) -> Result<SchemaState> {
        let rows = client
            .query_typed(STATE, &[])
            .await
            .map_err(|e| pg::error("cannot read the state of schema highwater", e))?;
        let row = rows.first().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "the server returned no state of schema highwater",
            )
        })?;
        Ok(SchemaState {
            server_version: get(row, 0)?,
            server_version_text: get(row, 1)?,
            role: get(row, 2)?,
            database: get(row, 3)?,
            may_create: get(row, 4)?,
            has_schema: get(row, 5)?,
            owner: get(row, 6)?,
            may_fill: get(row, 7)?,
            may_read: get(row, 8)?,
            is_ours: get(row, 9)?,
            is_empty: get(row, 10)?,
        })
    }

    pub(super) fn check_server(&self) -> Result<()> {
        connect::check_version(self.server_version, &self.server_version_text)
    }

    pub(super) fn check_ours(&self) -> Result<()> {
        if self.is_ours {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Database,
            format!(
                "database {} has a schema highwater that highwater did not make: it has no table \
                 highwater.migration",
                self.database
            ),
        )
        .with_hint("rename that schema, or use another database"))
    }

    pub(super) fn check_may_read(&self) -> Result<()> {
        if self.may_read {
            return Ok(());
        }
        let role = pg::quote_identifier(&self.role);
        Err(Error::new(
            ErrorKind::Database,
            format!(
                "role {} may not read the schema highwater of database {}",
                self.role, self.database
            ),
        )
        .with_hint(format!(
            "as its owner ({}), run: grant usage on schema highwater to {role}; grant select on \
             all tables in schema highwater to {role}; grant select on all sequences in schema \
             highwater to {role}",
            self.owner()
        )))
    }

    /// There is no record of migrations yet: may this role make one?
    pub(super) fn check_may_create(&self) -> Result<()> {
        let role = pg::quote_identifier(&self.role);
        if !self.has_schema {
            if self.may_create {
                return Ok(());
            }
            let database = pg::quote_identifier(&self.database);
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "role {} may not create schemas in database {}",
                    self.role, self.database
                ),
            )
            .with_hint(format!(
                "as the database's owner, run: grant create on database {database} to {role}"
            )));
        }
        if !self.is_empty {
            return self.check_ours();
        }
        if self.may_fill {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Database,
            format!(
                "role {} may not create tables in the schema highwater of database {}",
                self.role, self.database
            ),
        )
        .with_hint(format!(
            "as its owner ({}), run: grant usage, create on schema highwater to {role}",
            self.owner()
        )))
    }

    /// A later migration alters what its owner made.
    pub(super) fn explain_rights(&self, error: Error) -> Error {
        match &self.owner {
            Some(owner) if *owner != self.role && error.hint().is_none() => error
                .with_kind(ErrorKind::Database)
                .with_hint(format!("run highwater init as role {owner}")),
            _ => error.with_kind(ErrorKind::Database),
        }
    }

    fn owner(&self) -> &str {
        self.owner.as_deref().unwrap_or("unknown")
    }
}
