//! What operators did: every command that changes something writes one row, in the transaction of
//! the change.

use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::host;
use crate::name::ProjectionName;
use crate::pg::{self, Parameter};

/// What an operator did to a projection.
#[derive(Clone, Debug)]
pub(crate) enum OperatorAction<'a> {
    /// `run` created the read model.
    Created {
        /// The hash of the definition.
        hash: &'a str,
        partitions: i32,
    },
    /// `run` has a definition with another number of partitions.
    PartitionsSet(i32),
    /// `rebuild` created the next generation.
    RebuildBegun(i32),
    /// `rebuild` made the next generation the live one.
    RebuildSwapped(i32),
    /// `rebuild` dropped the next generation: it could never be complete.
    RebuildGivenUp(i32),
    /// `accept` kept the read model.
    Accepted {
        /// The hash of the definition.
        hash: &'a str,
        definition_changed: bool,
        log_differed: bool,
        position_differed: bool,
    },
    /// `drop`.
    Dropped,
    /// `pause`.
    Paused,
    /// `resume`.
    Resumed,
    /// `dead-letters retry`.
    Retried(Selected),
    /// `dead-letters discard`.
    Discarded { selected: Selected, reason: &'a str },
}

/// The dead letters that a command was about.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// How they were selected: `all`, `key`, `event` or `fingerprint`.
    pub(crate) by: &'static str,
    /// The key, event or fingerprint.
    pub(crate) value: Option<String>,
    pub(crate) dead_letters: i64,
}

impl OperatorAction<'_> {
    fn command(&self) -> &'static str {
        match self {
            OperatorAction::Created { .. } | OperatorAction::PartitionsSet(_) => "run",
            OperatorAction::RebuildBegun(_)
            | OperatorAction::RebuildSwapped(_)
            | OperatorAction::RebuildGivenUp(_) => "rebuild",
            OperatorAction::Accepted { .. } => "accept",
            OperatorAction::Dropped => "drop",
            OperatorAction::Paused => "pause",
            OperatorAction::Resumed => "resume",
            OperatorAction::Retried(_) => "dead-letters retry",
            OperatorAction::Discarded { .. } => "dead-letters discard",
        }
    }

    fn detail(&self) -> Value {
        let step = |step, generation: &i32| json!({ "step": step, "generation": generation });
        match self {
            OperatorAction::Created { hash, partitions } => {
                json!({ "step": "create", "hash": hash, "partitions": partitions })
            }
            OperatorAction::PartitionsSet(partitions) => {
                json!({ "step": "set partitions", "partitions": partitions })
            }
            OperatorAction::RebuildBegun(generation) => step("begin", generation),
            OperatorAction::RebuildSwapped(generation) => step("swap", generation),
            OperatorAction::RebuildGivenUp(generation) => step("give up", generation),
            OperatorAction::Accepted {
                hash,
                definition_changed,
                log_differed,
                position_differed,
            } => json!({
                "hash": hash,
                "definition_changed": definition_changed,
                "log_differed": log_differed,
                "position_differed": position_differed,
            }),
            OperatorAction::Dropped | OperatorAction::Paused | OperatorAction::Resumed => json!({}),
            OperatorAction::Retried(selected) => selected.detail(json!({})),
            OperatorAction::Discarded { selected, reason } => {
                selected.detail(json!({ "reason": reason }))
            }
        }
    }
}

impl Selected {
    fn detail(&self, mut detail: Value) -> Value {
        detail[self.by] = json!(self.value);
        detail["dead_letters"] = json!(self.dead_letters);
        detail
    }
}

/// Records an action in the transaction that is open.
pub(crate) async fn record(
    client: &Client,
    projection: &ProjectionName,
    action: OperatorAction<'_>,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/action/record.sql");
    let parameters: [(&Parameter<'_>, Type); 4] = [
        (&host::name(), Type::TEXT),
        (&action.command(), Type::TEXT),
        (&projection.as_str(), Type::TEXT),
        (&action.detail(), Type::JSONB),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot record the action", e))
}
