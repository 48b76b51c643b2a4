//! Tries a projection's SQL, and rolls everything back.

use tokio_postgres::Client;
use uuid::Uuid;

use super::{Candidate, Finding};
use crate::engine::read_model;
use crate::error::{Error, ErrorKind, Result};
use crate::pg;
use crate::projection::file::{ProjectionFile, Statement};
use crate::source::{Keys, Source};

/// A check waits neither for locks of others nor for slow statements, so others never wait long for
/// it.
const BEGIN: &str = "begin isolation level read committed; set local row_security = off; \
                     set local lock_timeout = '2s'; set local statement_timeout = '10s'";

/// Runs `up`, creates the view of the batch, and runs `apply` on the empty batch, in a transaction
/// that is rolled back.
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

/// A statement that took too long is not known to be wrong.
fn finding(error: Error) -> Finding {
    match error.sqlstate() {
        Some("57014" | "55P03") => Finding::warning(error.with_hint(
            "check waits 2 s for a lock and 10 s for a statement; run it again when the database \
             is less busy",
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
        .with_hint("read a source of the same database, or write the projection in Rust")
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
    read_model::create_schema(client, &schema).await?;
    read_model::fill_schema(client, &*candidate.projection, &schema).await?;
    let Some(relation) = source.relation() else {
        return Ok(());
    };
    let mut definition = candidate.definition().clone();
    let tried = savepoint(
        client,
        read_model::check_key(client, &definition.key, relation, &schema),
    );
    if let Err(fault) = tried.await? {
        // The other checks run without it.
        faults.push(fault);
        definition.key = Keys::STREAM.to_owned();
    }
    let Some(file) = &candidate.file else {
        // The engine never passes an empty batch to code.
        return Ok(());
    };
    read_model::create_view(client, &definition, relation, &schema).await?;
    for statement in &file.apply.statements {
        let tried = async {
            let done = client.batch_execute(&statement.text).await;
            done.map_err(|e| statement_fault(file, statement, e))
        };
        faults.extend(savepoint(client, tried).await?.err());
    }
    Ok(())
}

/// Tries something so that its failure does not prevent the next attempt.
async fn savepoint(client: &Client, tried: impl Future<Output = Result<()>>) -> Result<Result<()>> {
    let saved = client.batch_execute("savepoint highwater_check").await;
    saved.map_err(|e| pg::error("cannot set a savepoint", e))?;
    let Err(fault) = tried.await else {
        return Ok(Ok(()));
    };
    let back = client.batch_execute("rollback to savepoint highwater_check");
    match back.await {
        Ok(()) => Ok(Err(fault)),
        // The connection is gone: that is the failure.
        Err(_) => Err(fault),
    }
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
    pg::error("apply failed on an empty batch", error).with_location(file.location(line))
}
