//! Finds projections of rare types that would read far less with an index.

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Candidate, Finding};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::sql::{Sql, query};
use crate::pg::{self, column};
use crate::source::Source;

/// A smaller log is fast to read without an index.
const EVENTS_MIN: f64 = 100_000.0;
/// Types with a larger share of the log are read as quickly without one.
const SHARE_MAX: f64 = 0.01;

/// Proposes an index on (type, position) for a projection that wants a small part of a large log.
pub(super) async fn check(
    client: &Client,
    candidate: &Candidate,
    source: &dyn Source,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let (Some(types), Some(relation)) = (&candidate.definition().events, source.relation()) else {
        return Ok(());
    };
    let Some((events, has_index)) = table(client, relation).await? else {
        return Ok(());
    };
    if has_index || events < EVENTS_MIN {
        return Ok(());
    }
    let wanted = estimate(client, relation, types).await?;
    if is_worth_an_index(events, wanted) {
        findings.push(Finding::warning(
            candidate.located(proposal(relation, events, wanted)),
        ));
    }
    Ok(())
}

fn is_worth_an_index(events: f64, wanted: f64) -> bool {
    events >= EVENTS_MIN && wanted <= events * SHARE_MAX
}

/// About how many events a table holds, and whether it has such an index. `None` if it is no table.
async fn table(client: &Client, relation: &str) -> Result<Option<(f64, bool)>> {
    let sql = include_str!("../../sql/queries/check/type_index.sql");
    let row = client
        .query_typed_opt(sql, &[(&relation, Type::TEXT)])
        .await;
    let row = row.map_err(|e| pg::error("cannot read the indexes of the event table", e))?;
    row.map(|row| Ok((column(&row, 0)?, column(&row, 1)?)))
        .transpose()
}

async fn estimate(client: &Client, relation: &str, types: &[String]) -> Result<f64> {
    let sql = query!("check/estimate.sql").fill(&[("events", &Sql::relation(relation)?)])?;
    let row = client
        .query_typed_one(&sql, &[(&types, Type::TEXT_ARRAY)])
        .await;
    let row = row.map_err(|e| pg::error("cannot estimate how many events are wanted", e))?;
    let plan: Value = column(&row, 0)?;
    Ok(plan
        .pointer("/0/Plan/Plan Rows")
        .and_then(Value::as_f64)
        .unwrap_or(f64::MAX))
}

fn proposal(relation: &str, events: f64, wanted: f64) -> Error {
    let what = format!(
        "reads all {events:.0} events to find about {wanted:.0}: {relation} has no index on (type, \
         position)"
    );
    Error::new(ErrorKind::Precondition, what).with_hint(format!(
        "create index concurrently on {relation} (type, position) makes it read only these; each append \
         then maintains one more index"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_worth_it_for_a_small_part_of_a_large_log() {
        for (events, wanted, expected) in [
            (99_000.0, 1.0, false),
            (100_000.0, 1_000.0, true),
            (100_000.0, 1_001.0, false),
            (10_000_000.0, 10_000.0, true),
            (10_000_000.0, f64::MAX, false),
        ] {
            assert_eq!(
                is_worth_an_index(events, wanted),
                expected,
                "{wanted} of {events}"
            );
        }
    }
}
