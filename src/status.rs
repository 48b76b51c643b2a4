//! The status of sources and projections: one value for the command, the dashboard and the HTTP
//! API.
//!
//! It is read from outside: from the checkpoints that the engines write, and by following the mark
//! for a moment. It serialises as `highwater status --json` prints it, without the fields that only
//! the text shows.

mod blocked;
mod mark;
mod render;
mod source;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::engine::RunnerState;
use crate::error::{Error, Result, StoredError};
use crate::name::ProjectionName;
use crate::pg::database::Database;
use crate::position::Position;
use crate::projection::Definition;
use crate::source::{Blocker, Source};

#[cfg(feature = "cli")]
pub(crate) use mark::{follow, proven_head, reported};
pub(crate) use render::span;
#[cfg(feature = "cli")]
pub(crate) use render::{at, count, gap_text, thousands};

/// The status at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The sources, in the order they were given.
    pub sources: Vec<SourceStatus>,
    /// The projections, by name: those that are stored and those that are only known.
    pub projections: Vec<ProjectionStatus>,
    /// The database's time when it was read.
    #[serde(skip)]
    pub at: Timestamp,
}

/// The status of a source.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// The highest committed position; `None` if the source could not be read.
    pub head: Option<Position>,
    /// The highest position below which nothing can still appear; `None` if it is not known.
    pub mark: Option<Position>,
    /// The gap that holds the mark.
    pub gap: Option<Gap>,
    /// Why it could not be read, or why its order cannot be proven.
    #[serde(skip)]
    pub problem: Option<Arc<Error>>,
}

/// A gap below head that may still be filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gap {
    /// Its first missing position.
    pub from: Position,
    /// Its last missing position.
    pub to: Position,
    /// The transactions that may fill it.
    pub blocked_by: Vec<Blocker>,
}

/// The status of a projection.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its name.
    pub name: ProjectionName,
    /// The build that readers see; 0 for a projection that was never run.
    pub generation: i32,
    /// What it does; of several partitions, the state that needs attention most.
    pub state: State,
    /// How far its read model is: the partition that is furthest behind; 0 if it was never run.
    pub position: Position,
    /// Head less position, holes included; `None` if the head could not be read.
    pub lag_events: Option<u64>,
    /// Age of the first event after the position, 0 at head.
    pub lag_seconds: Option<f64>,
    /// Positions passed per second, 0 while no instance runs it.
    pub rate_per_second: f64,
    /// When it will be at the head at this rate, 0 at head; `None` if it does not move.
    pub eta_seconds: Option<f64>,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
    /// How many keys are parked.
    pub parked_keys: u64,
    /// How many dead letters there are.
    pub dead_letters: u64,
    /// The transactions that hold the locks that its batches wait for.
    pub blocked_by: Vec<Blocker>,
    /// The last error; gone once a batch succeeds.
    pub last_error: Option<StoredError>,
    /// The name of its source.
    #[serde(skip)]
    pub source: String,
    /// How its definition compares with the one the read model was built with.
    #[serde(skip)]
    pub definition: DefinitionState,
    /// The build that will be swapped in, if a rebuild is under way.
    #[serde(skip)]
    pub rebuild: Option<Rebuild>,
    /// When an operator paused it.
    #[serde(skip)]
    pub paused_at: Option<Timestamp>,
    /// The change of the number of partitions that is under way.
    #[serde(skip)]
    pub change: Option<Repartition>,
    /// An owner that did not sign off: when it was last seen.
    #[serde(skip)]
    pub gone: Option<Gone>,
}

/// The status of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// Its number, from 0.
    pub partition: i32,
    /// How far it is.
    pub position: Position,
    /// What its runner does.
    pub state: State,
    /// The instance that runs it, as `host:pid`.
    pub owner: Option<String>,
    /// The fencing number of the last claim.
    pub epoch: i64,
}

/// What a projection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// No instance runs it now.
    Idle,
    /// What its runner does, or that an error ended it.
    Runner(RunnerState),
}

/// How the definition of this process compares with the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DefinitionState {
    /// They are the same.
    Same,
    /// The read model was built with another one.
    Changed,
    /// There is a read model, and no definition.
    Gone,
    /// There is a definition, and no read model yet.
    NeverRun,
}

/// A generation that is built beside the live one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rebuild {
    /// Its number.
    pub generation: i32,
    /// How far it is.
    pub position: Position,
    /// What its runner does.
    pub state: State,
    /// Positions passed per second.
    pub rate: f64,
}

/// A change of the number of partitions that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repartition {
    /// How many there are.
    pub from: i32,
    /// How many there are to be.
    pub to: i32,
    /// Where the present ones end; `None` before that is decided.
    pub at: Option<Position>,
}

/// An owner that ended without signing off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gone {
    /// The instance, as `host:pid`.
    pub owner: String,
    /// When it was last seen.
    pub seen_at: Timestamp,
}

/// A source's status, and what the projections' lag is taken from.
struct Measured {
    status: SourceStatus,
    /// Seconds since the first event after each position was recorded.
    ages: HashMap<Position, f64>,
}

impl State {
    /// The state's one name.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Runner(state) => state.as_str(),
        }
    }

    /// Of several partitions the highest is shown. A partition that no instance runs comes before a
    /// healthy one.
    const fn urgency(self) -> (u8, bool) {
        match self {
            State::Idle => (RunnerState::Starting.urgency(), true),
            State::Runner(state) => (state.urgency(), false),
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads the status. `known` are the definitions of this process.
///
/// It costs three statements on the read models' database and a few on each source. A mark that
/// moves slowly, or is held, is followed for 150 ms.
///
/// # Errors
/// If the database of the read models cannot be read; without the schema the error says to run
/// `highwater init`. The error of a source is in its status.
pub async fn read(
    target: &Database,
    sources: &[Arc<dyn Source>],
    known: &[Definition],
) -> Result<Status> {
    let stored = stored::read(target).await?;
    let measured = join_all(sources.iter().map(|s| source::measure(&**s, &stored))).await;
    let projections = stored::merge(&stored, known, &measured);
    Ok(Status {
        sources: measured.into_iter().map(|m| m.status).collect(),
        projections,
        at: stored.at,
    })
}

impl Status {
    /// A projection by its name.
    pub fn projection(&self, name: &str) -> Option<&ProjectionStatus> {
        self.projections.iter().find(|p| p.name.as_str() == name)
    }

    /// A source by its name.
    pub fn source(&self, name: &str) -> Option<&SourceStatus> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// As `highwater status --json` prints it.
    pub fn to_json(&self) -> Value {
        // Numbers, texts and lists only: this cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}
