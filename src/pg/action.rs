//! What operators did: every command that changes something writes one row, in the transaction of
//! the change.

use serde_json::{Value, json};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg;

/// What an operator did.
#[derive(Clone, Debug)]
pub(crate) enum Action<'a> {
    /// `init`: one migration was applied.
    Migrated {
        component: &'a str,
        number: i32,
        name: &'a str,
    },
    /// `rebuild` made the next generation.
    RebuildBegun(&'a ProjectionName, i32),
    /// `rebuild` made the next generation the live one.
    RebuildSwapped(&'a ProjectionName, i32),
    /// `rebuild` took the next generation away: it could never be complete.
    RebuildGivenUp(&'a ProjectionName, i32),
    /// `accept` kept the read model.
    Accepted {
        projection: &'a ProjectionName,
        /// The hash of the definition.
        hash: &'a str,
        definition_changed: bool,
        log_differed: bool,
    },
    /// `drop`.
    Dropped(&'a ProjectionName),
    /// `pause`.
    Paused(&'a ProjectionName),
    /// `resume`.
    Resumed(&'a ProjectionName),
    /// `dead-letters retry`.
    Retried {
        projection: &'a ProjectionName,
        which: &'a str,
        the_one: Option<&'a str>,
        dead_letters: i64,
    },
    /// `dead-letters discard`.
    Discarded {
        projection: &'a ProjectionName,
        which: &'a str,
        the_one: Option<&'a str>,
        dead_letters: usize,
        reason: &'a str,
    },
}

impl<'a> Action<'a> {
    /// The row: command, projection, detail.
    fn row(&self) -> (&'static str, Option<&'a ProjectionName>, Value) {
        let step = |step, generation| json!({ "step": step, "generation": generation });
        match *self {
            Action::Migrated {
                component,
                number,
                name,
            } => {
                let detail = json!({ "component": component, "migration": number, "name": name });
                ("init", None, detail)
            }
            Action::RebuildBegun(projection, generation) => {
                ("rebuild", Some(projection), step("begin", generation))
            }
            Action::RebuildSwapped(projection, generation) => {
                ("rebuild", Some(projection), step("swap", generation))
            }
            Action::RebuildGivenUp(projection, generation) => {
                ("rebuild", Some(projection), step("give up", generation))
            }
            Action::Accepted {
                projection,
                hash,
                definition_changed,
                log_differed,
            } => {
                let detail = json!({
                    "hash": hash,
                    "definition_changed": definition_changed,
                    "log_differed": log_differed,
                });
                ("accept", Some(projection), detail)
            }
            Action::Dropped(projection) => ("drop", Some(projection), json!({})),
            Action::Paused(projection) => ("pause", Some(projection), json!({})),
            Action::Resumed(projection) => ("resume", Some(projection), json!({})),
            Action::Retried {
                projection,
                which,
                the_one,
                dead_letters,
            } => {
                let detail = json!({ which: the_one, "dead_letters": dead_letters });
                ("dead-letters retry", Some(projection), detail)
            }
            Action::Discarded {
                projection,
                which,
                the_one,
                dead_letters,
                reason,
            } => {
                let detail =
                    json!({ which: the_one, "dead_letters": dead_letters, "reason": reason });
                ("dead-letters discard", Some(projection), detail)
            }
        }
    }
}

/// Records an action in the transaction that is open.
pub(crate) async fn record(client: &impl GenericClient, action: Action<'_>) -> Result<()> {
    let sql = include_str!("../../sql/queries/action/record.sql");
    let (command, projection, detail) = action.row();
    let projection = projection.map(ProjectionName::as_str);
    let done = client
        .execute_typed(
            sql,
            &[
                (&command, Type::TEXT),
                (&projection, Type::TEXT),
                (&detail, Type::JSONB),
            ],
        )
        .await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot record the action", e))
}
