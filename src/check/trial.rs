//! Tries a projection's SQL, and takes everything back.

use tokio_postgres::Client;
use uuid::Uuid;

use super::{Candidate, Finding};
use crate::engine::setup;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{self, quote_identifier};
use crate::projection::file::{ProjectionFile, Statement};
use crate::source::Source;

/// A check waits for nobody: neither for a lock that others hold nor for a slow statement, and
/// nobody waits long for it.
const BEGIN: &str = "begin isolation level read committed; set local row_security = off; \
                     set local lock_timeout = '2s'; set local statement_timeout = '10s'";

/// Runs `up`, puts the view of the batch beside it, and runs `apply` on the empty batch, in a
/// transaction that is rolled back.
pub(super) async fn run(
    client: &Client,
    candidate: &Candidate,
    source: &dyn Source,
    findings: &mut Vec<Finding>,
) {
    if candidate.file.is_some() && source.relation().is_none() {
        findings.push(Finding::error(candidate.located(elsewhere(source))));
        return;
    }
    let mut faults = Vec::new();
    if let Err(error) = attempt(client, candidate, source, &mut faults).await {
        faults.push(error);
    }
    if let Err(error) = client.batch_execute("rollback").await {
        // The connection is gone, and with it the transaction.
        faults.push(pg::error("cannot roll back", error));
    }
    for fault in faults {
        findings.push(finding(candidate.located(fault)));
    }
}

/// What took too long is not known to be wrong.
fn finding(error: Error) -> Finding {
    match error.code() {
        Some("57014" | "55P03") => Finding::warning(error.hint(
            "check waits 2 s for a lock and 10 s for a statement; check again when less is going on",
        )),
        _ => Finding::error(error),
    }
}

fn elsewhere(source: &dyn Source) -> Error {
    let what = format!(
        "the projection is SQL, and its source \"{}\" is not in the database of its read model",
        source.name()
    );
    Error::new(ErrorKind::Config, what)
        .hint("read a source of the same database, or write the projection in Rust")
}

async fn attempt(
    client: &Client,
    candidate: &Candidate,
    source: &dyn Source,
    faults: &mut Vec<Error>,
) -> Result<()> {
    let schema = format!("highwater_check_{}", Uuid::new_v4().simple());
    let begun = client.batch_execute(BEGIN).await;
    begun.map_err(|e| pg::error("cannot begin a transaction", e))?;
    setup::create_schema(client, &schema).await?;
    setup::fill_schema(client, &*candidate.runnable, source, &schema).await?;
    let Some(file) = &candidate.file else {
        // The engine hands no empty batch to code.
        return Ok(());
    };
    if let Some(key) = &file.header.key {
        let tried = try_one(client, &key_sql(&schema, key)).await?;
        faults.extend(tried.map(|e| key_fault(file, e)));
    }
    for statement in &file.apply.statements {
        let tried = try_one(client, &statement.text).await?;
        faults.extend(tried.map(|e| statement_fault(file, statement, e)));
    }
    Ok(())
}

/// Runs a statement so that one that fails does not keep the next from being tried.
async fn try_one(client: &Client, sql: &str) -> Result<Option<tokio_postgres::Error>> {
    let saved = client.batch_execute("savepoint highwater_check").await;
    saved.map_err(|e| pg::error("cannot set a savepoint", e))?;
    let Err(error) = client.batch_execute(sql).await else {
        return Ok(None);
    };
    let back = client.batch_execute("rollback to savepoint highwater_check");
    match back.await {
        Ok(()) => Ok(Some(error)),
        // The connection is gone: that is what failed.
        Err(_) => Err(pg::error("cannot try a statement", error)),
    }
}

fn key_sql(schema: &str, key: &str) -> String {
    include_str!("../../sql/queries/check/key.sql")
        .replace("{events}", &format!("{}.batch", quote_identifier(schema)))
        .replace("{key}", key)
}

fn key_fault(file: &ProjectionFile, error: tokio_postgres::Error) -> Error {
    pg::error(
        "the key is no expression over the columns of a batch",
        error,
    )
    .with_kind(ErrorKind::Config)
    .at(file.path.display().to_string())
    .hint("the columns are position, stream, version, type, data, metadata, id, recorded_at")
}

fn statement_fault(
    file: &ProjectionFile,
    statement: &Statement,
    error: tokio_postgres::Error,
) -> Error {
    let line = match pg::offset_of(&error) {
        Some(offset) => statement.line_at(offset),
        None => statement.line,
    };
    pg::error("apply failed on an empty batch", error).at(file.place(line))
}
