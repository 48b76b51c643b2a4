//! What the engines wrote down, as status shows it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{Client, Row};

use super::blocked::Blocked;
use super::mark;
use super::{
    DefinitionState, Gone, Measured, PartitionStatus, ProjectionStatus, Rebuild, Repartition, State,
};
use crate::engine::RunnerState;
use crate::error::{Result, StoredError};
use crate::name::ProjectionName;
use crate::pg::checkpoint::Key;
use crate::pg::database::Database;
use crate::pg::{self, column_named};
use crate::position::Position;
use crate::projection::Definition;

/// The rows of one reading.
pub(super) struct StoredStatus {
    pub(super) at: Timestamp,
    /// The highest mark of each source by name, as living instances report it.
    marks: HashMap<String, Position>,
    projections: BTreeMap<ProjectionName, StoredProjection>,
    blocked: Blocked,
}

struct StoredProjection {
    generation: i32,
    hash: String,
    source: String,
    next_generation: Option<i32>,
    next_hash: Option<String>,
    /// How many partitions it is to have.
    wanted: i32,
    paused_at: Option<Timestamp>,
    parked_keys: u64,
    dead_letters: u64,
    checkpoints: Vec<StoredCheckpoint>,
}

struct StoredCheckpoint {
    generation: i32,
    partition: i32,
    partitions: i32,
    drain_at: Option<Position>,
    position: Position,
    source_identity: String,
    epoch: i64,
    state: State,
    rate: f64,
    last_error: Option<StoredError>,
    owner: Option<String>,
    gone: Option<Gone>,
}

/// Reads what is stored, in one round trip.
pub(super) async fn read(target: &Database) -> Result<StoredStatus> {
    let client = target.short().await?;
    let read = client.within(query(&client)).await;
    // The session may owe an answer.
    drop(client);
    match read {
        Ok(stored) => Ok(stored),
        Err(error) => Err(target.explained(error).await),
    }
}

async fn query(client: &Client) -> Result<StoredStatus> {
    let projections = include_str!("../../sql/queries/status/projections.sql");
    let projections = async {
        let rows = client.query_typed(projections, &[]).await;
        rows.map_err(|e| pg::error("cannot read the checkpoints", e))
    };
    let ((at, marks), rows) = tokio::try_join!(mark::reported(client), projections)?;
    let mut stored = StoredStatus {
        at,
        marks,
        projections: BTreeMap::new(),
        blocked: Blocked::default(),
    };
    for row in &rows {
        stored.add(row)?;
    }
    stored.blocked = Blocked::read(client, stored.keys()).await?;
    Ok(stored)
}

impl StoredStatus {
    fn add(&mut self, row: &Row) -> Result<()> {
        let name: ProjectionName = column_named::<String>(row, "name")?.parse()?;
        let projection = match self.projections.entry(name) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(StoredProjection {
                generation: column_named(row, "generation")?,
                hash: column_named(row, "hash")?,
                source: column_named(row, "source")?,
                next_generation: column_named(row, "next_generation")?,
                next_hash: column_named(row, "next_hash")?,
                wanted: column_named(row, "wanted")?,
                paused_at: column_named(row, "paused_at")?,
                parked_keys: column_named::<i64>(row, "parked_keys")?.unsigned_abs(),
                dead_letters: column_named::<i64>(row, "dead_letters")?.unsigned_abs(),
                checkpoints: Vec::new(),
            }),
        };
        if let Some(generation) = column_named(row, "of_generation")? {
            projection.checkpoints.push(checkpoint(row, generation)?);
        }
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        let projections = self.projections.iter();
        projections.flat_map(|(name, p)| p.checkpoints.iter().map(|c| c.key(name)))
    }

    /// The positions of all checkpoints on a source, and 0 for projections that were never run.
    pub(super) fn positions(&self, source: &str) -> Vec<Position> {
        let of_source = self.projections.values().filter(|p| p.source == source);
        let checkpoints = of_source.flat_map(|p| &p.checkpoints).map(|c| c.position);
        let mut positions: Vec<Position> = checkpoints.chain([Position::START]).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// The highest mark that a living instance reports.
    pub(super) fn reported(&self, source: &str) -> Option<Position> {
        self.marks.get(source).copied()
    }

    /// Everything at or below this was proven by some engine.
    pub(super) fn proven_position(&self, source: &str, identity: &str) -> Position {
        let checkpoints = self.projections.values().flat_map(|p| &p.checkpoints);
        let same_log = checkpoints.filter(|c| c.source_identity == identity);
        same_log
            .map(|c| c.position)
            .chain(self.reported(source))
            .max()
            .unwrap_or_default()
    }
}

fn checkpoint(row: &Row, generation: i32) -> Result<StoredCheckpoint> {
    let alive: bool = column_named(row, "alive")?;
    let owner: Option<String> = column_named(row, "owner")?;
    let seen_at: Option<Timestamp> = column_named(row, "seen_at")?;
    let gone = match (owner.clone(), seen_at) {
        (Some(owner), Some(seen_at)) if !alive => Some(Gone { owner, seen_at }),
        _ => None,
    };
    let error: Option<Value> = column_named(row, "last_error")?;
    Ok(StoredCheckpoint {
        generation,
        partition: column_named(row, "partition")?,
        partitions: column_named(row, "partitions")?,
        drain_at: column_named::<Option<i64>>(row, "drain_at")?.map(Position::new),
        position: Position::new(column_named(row, "position")?),
        source_identity: column_named(row, "source_identity")?,
        epoch: column_named(row, "epoch")?,
        state: state(column_named(row, "state")?, alive),
        rate: match alive {
            true => column_named(row, "rate")?,
            false => 0.0,
        },
        last_error: error.map(last_error),
        owner: owner.filter(|_| alive),
        gone,
    })
}

/// What an instance said of a runner counts while it lives; that an error ended it always does.
fn state(text: &str, alive: bool) -> State {
    let known = RunnerState::ALL.iter().find(|s| s.as_str() == text);
    match known {
        Some(state) if alive || *state == RunnerState::Stopped => State::Runner(*state),
        _ => State::Idle,
    }
}

fn last_error(value: Value) -> StoredError {
    let text = value.to_string();
    serde_json::from_value(value).unwrap_or_else(|_| StoredError {
        message: text,
        ..StoredError::default()
    })
}

/// The stored projections and those that are only known, by name.
pub(super) fn merge(
    stored: &StoredStatus,
    known: &[Definition],
    measured: &[Measured],
) -> Vec<ProjectionStatus> {
    let of_source = |name: &str| measured.iter().find(|m| m.status.name == name);
    let mut all: Vec<ProjectionStatus> = stored
        .projections
        .iter()
        .map(|(name, projection)| {
            let definition = known.iter().find(|d| d.name == *name);
            let mut status = projection.status(name, definition);
            let keys: Vec<Key> = projection.checkpoints.iter().map(|c| c.key(name)).collect();
            status.blocked_by = stored.blocked.holders(&keys);
            status.measure(of_source(&projection.source));
            status
        })
        .collect();
    for definition in known {
        if !stored.projections.contains_key(&definition.name) {
            let mut status = ProjectionStatus::new(&definition.name, &definition.source);
            status.measure(of_source(&definition.source));
            all.push(status);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl StoredProjection {
    fn status(&self, name: &ProjectionName, known: Option<&Definition>) -> ProjectionStatus {
        let of = |generation| {
            let checkpoints = self.checkpoints.iter();
            checkpoints.filter(move |c| c.generation == generation)
        };
        let mut status = ProjectionStatus::new(name, &self.source);
        status.generation = self.generation;
        status.parked_keys = self.parked_keys;
        status.dead_letters = self.dead_letters;
        status.definition = match known {
            None => DefinitionState::Gone,
            Some(known) if known.hash == self.hash => DefinitionState::Same,
            // It is the one that the rebuild builds.
            Some(known) if self.next_hash.as_ref() == Some(&known.hash) => DefinitionState::Same,
            Some(_) => DefinitionState::Changed,
        };
        status.position = lowest(of(self.generation));
        status.state = self.state(of(self.generation));
        status.rate_per_second = rate(of(self.generation));
        status.paused_at = self.paused_at;
        status.change = self.change(of(self.generation));
        status.partitions = of(self.generation).map(StoredCheckpoint::status).collect();
        let failed = of(self.generation).filter(|c| c.last_error.is_some());
        let worst = failed.max_by_key(|c| c.state.urgency());
        status.last_error = worst.and_then(|c| c.last_error.clone());
        status.gone = of(self.generation).find_map(|c| c.gone.clone());
        status.rebuild = self.next_generation.map(|generation| Rebuild {
            generation,
            position: lowest(of(generation)),
            state: most_urgent(of(generation)),
            rate: rate(of(generation)),
        });
        status
    }

    /// An operator's pause shows, unless something worse does.
    fn state<'a>(&self, checkpoints: impl Iterator<Item = &'a StoredCheckpoint>) -> State {
        let state = most_urgent(checkpoints);
        let paused = State::Runner(RunnerState::Paused);
        if self.paused_at.is_some() && state != State::Runner(RunnerState::Stopped) {
            return paused;
        }
        state
    }

    /// The change of the number of partitions that is on its way.
    fn change<'a>(
        &self,
        mut checkpoints: impl Iterator<Item = &'a StoredCheckpoint>,
    ) -> Option<Repartition> {
        let first = checkpoints.next()?;
        let is_on_its_way = first.partitions != self.wanted || first.drain_at.is_some();
        is_on_its_way.then_some(Repartition {
            from: first.partitions,
            to: self.wanted,
            at: first.drain_at,
        })
    }
}

/// That of the partition that is furthest behind: each passes all positions.
fn rate<'a>(checkpoints: impl Iterator<Item = &'a StoredCheckpoint>) -> f64 {
    let behind = checkpoints.min_by_key(|c| c.position);
    behind.map_or(0.0, |c| c.rate)
}

fn lowest<'a>(checkpoints: impl Iterator<Item = &'a StoredCheckpoint>) -> Position {
    checkpoints.map(|c| c.position).min().unwrap_or_default()
}

fn most_urgent<'a>(checkpoints: impl Iterator<Item = &'a StoredCheckpoint>) -> State {
    let states = checkpoints.map(|c| c.state);
    states.max_by_key(|s| s.urgency()).unwrap_or(State::Idle)
}

impl StoredCheckpoint {
    fn key(&self, projection: &ProjectionName) -> Key {
        Key {
            projection: projection.clone(),
            generation: self.generation,
            partition: self.partition,
        }
    }

    fn status(&self) -> PartitionStatus {
        PartitionStatus {
            partition: self.partition,
            position: self.position,
            state: self.state,
            owner: self.owner.clone(),
            epoch: self.epoch,
        }
    }
}

impl ProjectionStatus {
    /// A projection that was never run.
    fn new(name: &ProjectionName, source: &str) -> ProjectionStatus {
        ProjectionStatus {
            name: name.clone(),
            generation: 0,
            state: State::Idle,
            position: Position::START,
            lag_events: None,
            lag_seconds: None,
            rate_per_second: 0.0,
            eta_seconds: None,
            partitions: Vec::new(),
            parked_keys: 0,
            dead_letters: 0,
            blocked_by: Vec::new(),
            last_error: None,
            source: source.to_owned(),
            definition: DefinitionState::NeverRun,
            rebuild: None,
            paused_at: None,
            change: None,
            gone: None,
        }
    }

    fn measure(&mut self, source: Option<&Measured>) {
        let Some(source) = source else { return };
        let Some(head) = source.status.head else {
            return;
        };
        let lag = head.since(self.position);
        self.lag_events = Some(lag);
        self.lag_seconds = match lag {
            0 => Some(0.0),
            _ => source.ages.get(&self.position).copied(),
        };
        self.eta_seconds = match lag {
            0 => Some(0.0),
            _ if self.rate_per_second > 0.0 => Some(lag as f64 / self.rate_per_second),
            _ => None,
        };
    }
}
