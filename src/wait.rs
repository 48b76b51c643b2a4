//! Waits until a read model includes a position.
//!
//! The answer comes from the checkpoint, which is committed together with the read model: an event
//! that it reports as visible is visible. It is polled with short statements that leave nothing
//! behind in the session, so it works behind a pooler in transaction mode.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result, StoredError};
use crate::pg::database::Database;
use crate::pg::{self, column, projection};
use crate::position::Position;
use crate::projection::Definition;
use crate::source::Source;
use crate::status::{self, ProjectionStatus, SourceStatus, span};
use crate::suggest;

#[cfg(test)]
mod tests;

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The head as it is when the wait begins: the highest committed position.
    Head,
    /// This position.
    At(Position),
}

impl From<Position> for Target {
    fn from(position: Position) -> Target {
        Target::At(position)
    }
}

/// How a wait ended.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Waited {
    /// The read model includes the target.
    Visible {
        /// How far it is.
        position: Position,
        /// What was waited for.
        target: Position,
        /// How many events at or before the target are parked: it does not include these.
        dead_letters: i64,
    },
    /// The event at the target is a dead letter: it is not in the read model until it is retried.
    Parked {
        /// How far the projection is.
        position: Position,
        /// What was waited for.
        target: Position,
        /// What to do.
        hint: String,
    },
    /// The event at the target was discarded, so it will never be in the read model.
    Discarded {
        /// How far the projection is.
        position: Position,
        /// What was waited for.
        target: Position,
        /// What to do.
        hint: String,
    },
    /// The time ran out before that.
    TimedOut {
        /// How far it is.
        position: Position,
        /// What was waited for.
        target: Position,
        /// What the projection does.
        state: &'static str,
        /// Why it is not there yet, as far as that is known, and what to do.
        why: String,
    },
    /// The projection is stopped before the target.
    Stopped {
        /// Where it stopped.
        position: Position,
        /// What was waited for.
        target: Position,
        /// What stopped it.
        last_error: Option<Box<StoredError>>,
    },
}

/// The row of one poll.
struct Polled {
    source: String,
    /// `None`: there is no checkpoint, so nothing is visible.
    position: Option<Position>,
    stopped: Option<Option<StoredError>>,
}

/// Waits until the read model of the projection `name` includes `target`.
///
/// `sources` and `known` are the configured ones: they give the head and the known names. A
/// projection that is known but was never run is waited for like any other.
///
/// # Errors
/// [`ErrorKind::NotFound`] for an unknown name, and the errors of the database.
pub async fn until_visible(
    target: &Database,
    sources: &[Arc<dyn Source>],
    known: &[Definition],
    name: &str,
    goal: Target,
    timeout: Duration,
) -> Result<Waited> {
    let began = Instant::now();
    let first = poll(target, name).await;
    let mut polled = match first {
        Ok(polled) => polled,
        Err(error) => return Err(target.explained(error).await),
    };
    let definition = known.iter().find(|d| d.name.as_str() == name);
    let source = polled.as_ref().map(|p| p.source.as_str());
    let Some(source) = source.or(definition.map(|d| d.source.as_str())) else {
        return Err(unknown(target, known, name).await);
    };
    let goal = match goal {
        Target::At(position) => position,
        Target::Head => head(sources, source).await?,
    };
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(position) = polled.as_ref().and_then(|p| p.passed(goal)) {
            return passed(target, name, position, goal).await;
        }
        if let Some(stopped) = polled.as_ref().and_then(|p| p.stopped(goal)) {
            return Ok(stopped);
        }
        let Some(left) = timeout
            .checked_sub(began.elapsed())
            .filter(|l| !l.is_zero())
        else {
            return timed_out(target, sources, known, name, goal, timeout).await;
        };
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
        polled = poll(target, name).await?;
    }
}

async fn poll(target: &Database, name: &str) -> Result<Option<Polled>> {
    let client = target.short().await?;
    let sql = include_str!("../sql/queries/wait/checkpoint.sql");
    let reading = async {
        let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await;
        rows.map_err(|e| pg::error("cannot read the checkpoint", e))
    };
    let rows = client.within(reading).await?;
    let mut polled: Option<Polled> = None;
    for row in &rows {
        let next = read(row)?;
        polled = Some(match polled {
            None => next,
            // The partition that is furthest behind decides.
            Some(before) => Polled {
                source: before.source,
                position: before.position.min(next.position),
                stopped: before.stopped.or(next.stopped),
            },
        });
    }
    Ok(polled)
}

fn read(row: &Row) -> Result<Polled> {
    let state: Option<String> = column(row, 2)?;
    let error: Option<Value> = column(row, 3)?;
    let error = error.and_then(|value| serde_json::from_value(value).ok());
    Ok(Polled {
        source: column(row, 0)?,
        position: column::<Option<i64>>(row, 1)?.map(Position::new),
        stopped: (state.as_deref() == Some("stopped")).then_some(error),
    })
}

impl Polled {
    /// How far it is, if that is far enough.
    fn passed(&self, goal: Position) -> Option<Position> {
        self.position.filter(|position| *position >= goal)
    }

    fn stopped(&self, goal: Position) -> Option<Waited> {
        let position = self.position?;
        self.stopped.as_ref().map(|error| Waited::Stopped {
            position,
            target: goal,
            last_error: error.clone().map(Box::new),
        })
    }
}

/// The checkpoint has passed `goal`: the event there is visible, unless it is parked or was
/// discarded.
async fn passed(
    target: &Database,
    name: &str,
    position: Position,
    goal: Position,
) -> Result<Waited> {
    let client = target.client().await?;
    let sql = include_str!("../sql/queries/wait/parked.sql");
    let parameters: [(&pg::Parameter<'_>, Type); 2] =
        [(&name, Type::TEXT), (&goal.get(), Type::INT8)];
    let row = client.query_typed_opt(sql, &parameters).await;
    let row = row.map_err(|e| pg::error("cannot read the dead letters", e))?;
    let (dead_letters, parked, discarded) = match &row {
        Some(row) => (column(row, 0)?, column(row, 1)?, column(row, 2)?),
        None => (0, false, false),
    };
    let target = goal;
    if discarded {
        let hint = "highwater.discarded says why, and who did it".to_owned();
        return Ok(Waited::Discarded {
            position,
            target,
            hint,
        });
    }
    if parked {
        let hint = format!("highwater dead-letters list {name} shows why");
        return Ok(Waited::Parked {
            position,
            target,
            hint,
        });
    }
    Ok(Waited::Visible {
        position,
        target,
        dead_letters,
    })
}

async fn head(sources: &[Arc<dyn Source>], name: &str) -> Result<Position> {
    match sources.iter().find(|s| s.name() == name) {
        Some(source) => source.head().await,
        None => Err(Error::new(
            ErrorKind::Config,
            format!("the projection reads the source \"{name}\", which is not configured"),
        )
        .with_hint("configure it, or wait for a position")),
    }
}

async fn unknown(target: &Database, known: &[Definition], name: &str) -> Error {
    let mut names: Vec<String> = known.iter().map(|d| d.name.to_string()).collect();
    if let Ok(client) = target.client().await {
        names.extend(projection::names(&client).await.unwrap_or_default());
    }
    names.sort_unstable();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let what = format!("there is no projection \"{}\"", name.escape_debug());
    let error = Error::new(ErrorKind::NotFound, what);
    if names.is_empty() {
        return error.with_hint("there are none yet: write one into projections/NAME.sql");
    }
    error.with_hint(suggest::suggestion(name, &names))
}

/// Reads the status once, and says why it is not there.
async fn timed_out(
    target: &Database,
    sources: &[Arc<dyn Source>],
    known: &[Definition],
    name: &str,
    goal: Position,
    timeout: Duration,
) -> Result<Waited> {
    let status = status::read(target, sources, known).await?;
    let Some(projection) = status.projection(name) else {
        return Err(unknown(target, known, name).await);
    };
    if projection.position >= goal && !projection.partitions.is_empty() {
        return passed(target, name, projection.position, goal).await;
    }
    let source = status.source(&projection.source);
    let why = format!(
        "\"{name}\" is {} at {}, not at {goal} after {}: {}",
        projection.state.as_str(),
        projection.position,
        span(timeout.as_secs_f64()),
        reason(projection, source, status.at, goal),
    );
    Ok(Waited::TimedOut {
        position: projection.position,
        target: goal,
        state: projection.state.as_str(),
        why,
    })
}

/// Why a projection is not at `goal`, and what to do.
fn reason(
    projection: &ProjectionStatus,
    source: Option<&SourceStatus>,
    now: Timestamp,
    goal: Position,
) -> String {
    let name = &projection.name;
    if let Some(head) = source.and_then(|s| s.head).filter(|head| *head < goal) {
        return format!("no event is there yet, the head is {head}; append it, or wait for head");
    }
    if projection.partitions.is_empty() {
        return format!("it was never run; highwater run {name} builds it");
    }
    if projection.state == status::State::Idle && projection.paused_at.is_none() {
        return format!("no instance runs it; start highwater run {name}");
    }
    if let Some(obstacle) = obstacle(projection, source, now, goal) {
        return obstacle;
    }
    match projection.eta_seconds {
        Some(eta) if eta > 0.0 => format!("it needs about {} more; wait longer", span(eta)),
        _ => "it is making progress; wait longer, or see highwater status".to_owned(),
    }
}

/// What keeps a running projection from `goal`, besides the remaining work.
pub(crate) fn obstacle(
    projection: &ProjectionStatus,
    source: Option<&SourceStatus>,
    now: Timestamp,
    goal: Position,
) -> Option<String> {
    if projection.paused_at.is_some() {
        let name = &projection.name;
        return Some(format!("it is paused; highwater resume {name} resumes it"));
    }
    if let Some(problem) = source.and_then(|s| s.problem.as_ref()) {
        return Some(problem.to_string());
    }
    if let Some(blocked) = projection.blocked(now) {
        return Some(blocked);
    }
    if let Some(source) = source
        && source.mark.is_some_and(|mark| mark < goal)
        && let Some(held) = source.blocked(now)
    {
        return Some(held);
    }
    let error = projection.last_error.as_ref()?;
    Some(format!("it failed and is retried: {}", error.message))
}

impl Waited {
    /// The projection's position when the wait ended.
    pub fn position(&self) -> Position {
        match self {
            Waited::Visible { position, .. }
            | Waited::Parked { position, .. }
            | Waited::Discarded { position, .. }
            | Waited::TimedOut { position, .. }
            | Waited::Stopped { position, .. } => *position,
        }
    }
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waited::Visible {
                position,
                target,
                dead_letters,
            } => {
                write!(f, "visible at {target}")?;
                if position != target {
                    write!(f, ", the read model is at {position}")?;
                }
                match dead_letters {
                    0 => Ok(()),
                    1 => f.write_str(", without an earlier event that is parked"),
                    n => write!(f, ", without {n} earlier events that are parked"),
                }
            }
            Waited::Parked { target, hint, .. } => write!(
                f,
                "the event at {target} is parked, and is not in the read model; {hint}"
            ),
            Waited::Discarded { target, hint, .. } => write!(
                f,
                "the event at {target} was discarded, and is not in the read model; {hint}"
            ),
            Waited::TimedOut { why, .. } => f.write_str(why),
            Waited::Stopped {
                position,
                target,
                last_error,
            } => {
                write!(f, "stopped at {position}, before {target}")?;
                let Some(error) = last_error else {
                    return f.write_str("; highwater run retries from there");
                };
                write!(f, ": {}", error.message)?;
                match &error.hint {
                    Some(hint) => write!(f, "; {hint}"),
                    None => f.write_str("; fix it, then highwater run resumes from there"),
                }
            }
        }
    }
}
