//! Checks against the database: schema, sources, read models, names.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Candidate, Finding, index, trial};
use crate::engine::divergence;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::database::Database;
use crate::pg::projection::{check_hash, names, stored};
use crate::pg::{self, column, migrate};
use crate::source::Source;

/// Checks what needs the database, on a session of its own.
pub(super) async fn check(
    target: &Database,
    sources: &[Arc<dyn Source>],
    candidates: &[Candidate],
    findings: &mut Vec<Finding>,
) {
    let connected = target.connector().connect().await.map_err(Error::from);
    let client = match connected {
        Ok(client) => client,
        Err(error) if error.kind() == ErrorKind::ConnectionLost => {
            return findings.push(Finding::warning(unchecked(&error)));
        }
        Err(error) => return findings.push(Finding::error(error)),
    };
    if let Err(error) = migrate::verify(&client).await {
        return findings.push(Finding::error(error));
    }
    for source in sources {
        if let Err(error) = check_source(&client, &**source).await {
            let location = format!("source {}", source.name());
            findings.push(Finding::error(match error.location() {
                Some(_) => error,
                None => error.with_location(location),
            }));
        }
    }
    if let Err(error) = check_stored(&client, candidates, findings).await {
        findings.push(Finding::error(error));
    }
    for candidate in candidates {
        let source = &candidate.definition().source;
        // A missing source was reported already.
        if let Some(source) = sources.iter().find(|s| s.name() == source) {
            trial::run(&client, candidate, &**source, findings).await;
            if let Err(error) = index::check(&client, candidate, &**source, findings).await {
                findings.push(Finding::error(candidate.located(error)));
            }
        }
    }
}

fn unchecked(error: &Error) -> Error {
    let what = format!(
        "only files were checked, the database cannot be reached: {}",
        error.message()
    );
    let ours = Error::new(error.kind(), what);
    let ours = match error.location() {
        Some(location) => ours.with_location(location),
        None => ours,
    };
    match error.hint() {
        Some(hint) => ours.with_hint(hint),
        None => ours,
    }
}

/// The snapshot of the locks refuses a source whose order cannot be proven.
async fn check_source(client: &Client, source: &dyn Source) -> Result<()> {
    let proven = divergence::proven_position(client, source).await?;
    source.follow(proven).await.map(drop)
}

/// Compares with the stored projections: changed definitions, missing files, schemas in the way.
async fn check_stored(
    client: &Client,
    candidates: &[Candidate],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut new = Vec::new();
    for candidate in candidates {
        let definition = candidate.definition();
        let Some(stored) = stored(client, &definition.name).await? else {
            new.push(candidate);
            continue;
        };
        // This may be the next definition of a rebuild under way.
        let is_next = stored.next_hash.as_ref() == Some(&definition.hash);
        if !is_next && let Err(error) = check_hash(&definition.name, &definition.hash, &stored.hash)
        {
            findings.push(Finding::warning(candidate.located(error)));
        }
    }
    let schemas = schemas(client, &new).await?;
    for candidate in new {
        let name = candidate.definition().name.as_str();
        if schemas.iter().any(|schema| schema == name) {
            findings.push(Finding::error(candidate.located(taken(name))));
        }
    }
    for name in names(client).await? {
        let is_known = |c: &Candidate| c.definition().name.as_str() == name;
        if !candidates.iter().any(is_known) {
            findings.push(Finding::warning(gone(&name)));
        }
    }
    Ok(())
}

async fn schemas(client: &Client, candidates: &[&Candidate]) -> Result<Vec<String>> {
    let names = candidates.iter().map(|c| c.definition().name.as_str());
    let names: Vec<&str> = names.collect();
    let sql = include_str!("../../sql/queries/check/schemas.sql");
    let rows = client.query_typed(sql, &[(&names, Type::TEXT_ARRAY)]).await;
    let rows = rows.map_err(|e| pg::error("cannot list the schemas", e))?;
    rows.iter().map(|row| column(row, 0)).collect()
}

fn taken(name: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("schema \"{name}\" exists and does not belong to highwater"),
    )
    .with_hint("rename the projection, or drop the schema if nothing needs it")
}

fn gone(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("projection \"{name}\" has a read model, but no valid file here"),
    )
    .with_hint(format!(
        "restore or fix it; leave it if it is compiled into another program; or \
                        highwater drop {name}"
    ))
}
