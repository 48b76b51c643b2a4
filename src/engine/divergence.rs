//! Whether a source is still the log that a checkpoint was taken from, and still has what the
//! projection has not read.
//!
//! A checkpoint knows one event: the last at or before its position. The log must have that event
//! there and no later one, or record that the event was removed on purpose. In all other cases the
//! log went back, was started again or is another one, however far it has grown since: the events
//! below the checkpoint need not be those that were applied.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::mutation;
use crate::name::ProjectionName;
use crate::pg::checkpoint::{self, Checkpoint, Key};
use crate::pg::database::Database;
use crate::position::Position;
use crate::source::{LogState, Source};

/// The proven position of a source: its highest checkpoint whose last event the log still has.
pub(crate) async fn proven_position(client: &Client, source: &dyn Source) -> Result<Position> {
    let identity = source.identity().await?;
    for (position, last_event) in checkpoint::highest(client, &identity).await? {
        if last_event.is_some() && source.last_at(position).await? == last_event {
            return Ok(position);
        }
    }
    Ok(Position::START)
}

/// Refuses a source that is not the one that a checkpoint was taken from, that went back, or that
/// lacks events which the projection has not read.
pub(crate) async fn check(key: &Key, checkpoint: &Checkpoint, source: &dyn Source) -> Result<()> {
    if mutation::on("divergence") {
        return Ok(());
    }
    let known = checkpoint.last_event.map(|(position, _)| position);
    let state = source.log_state(checkpoint.position, known).await?;
    match compare(checkpoint, &state) {
        Ok(()) => Ok(()),
        Err(difference) => Err(difference.explain(key, checkpoint, source.name())),
    }
}

/// As [`check`], for every checkpoint of the live read model: also one that no runner claims,
/// because it seems to have passed the end of the run. The source may have no follower then, so
/// this checks as well whether it could have one.
pub(crate) async fn check_live(
    target: &Database,
    projection: &ProjectionName,
    source: &dyn Source,
) -> Result<()> {
    source.check().await?;
    let client = target.short().await?;
    let checkpoints = client.within(checkpoint::live(&client, projection)).await?;
    // The source may need one from the same pool.
    drop(client);
    for (key, checkpoint) in checkpoints {
        check(&key, &checkpoint, source).await?;
    }
    Ok(())
}

/// How a log differs from what a checkpoint knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Difference {
    /// It is another one.
    Identity(String),
    /// It never issued the checkpoint's position.
    Behind(Position),
    /// Another event has the position of the one that the checkpoint knows.
    OtherEvent(Position, Uuid, Uuid),
    /// The last event is one that was not there when the checkpoint was written.
    NewEvent(Position, Uuid),
    /// The event that the checkpoint knows is gone, and its removal is not recorded.
    Gone(Position, Uuid),
    /// An event has a position whose event was removed.
    TakenAgain(Position),
    /// Events after the checkpoint were removed; the oldest one left, if any.
    Stranded(Option<Position>),
}

fn compare(checkpoint: &Checkpoint, log: &LogState) -> Result<(), Difference> {
    if log.identity != checkpoint.source_identity {
        return Err(Difference::Identity(log.identity.clone()));
    }
    if log.reached < checkpoint.position {
        return Err(Difference::Behind(log.reached));
    }
    compare_events(checkpoint, log)?;
    let removed = log.removed.as_ref().map(|removed| removed.through);
    if removed.is_some_and(|through| through > checkpoint.position) {
        return Err(Difference::Stranded(log.oldest));
    }
    Ok(())
}

/// The last event that the checkpoint knows, and the last that the log has up to there.
fn compare_events(checkpoint: &Checkpoint, log: &LogState) -> Result<(), Difference> {
    let (known_at, known) = match (checkpoint.last_event, log.last) {
        (None, None) => return Ok(()),
        (None, Some((at, id))) => return Err(Difference::NewEvent(at, id)),
        (Some(known), Some(last)) if known == last => return Ok(()),
        (Some(known), _) => known,
    };
    match log.last {
        Some((at, id)) if at > known_at => return Err(Difference::NewEvent(at, id)),
        Some((at, id)) if at == known_at => return Err(Difference::OtherEvent(at, known, id)),
        _ => {}
    }
    let Some(removed) = &log.removed else {
        // The source keeps no record of removals; a log that begins later shows that one happened.
        return Err(match (log.last, log.oldest) {
            (None, Some(oldest)) => Difference::Stranded(Some(oldest)),
            _ => Difference::Gone(known_at, known),
        });
    };
    match log.last {
        Some((at, _)) if removed.contains(at) => Err(Difference::TakenAgain(at)),
        _ if removed.contains(known_at) => Ok(()),
        _ => Err(Difference::Gone(known_at, known)),
    }
}

impl Difference {
    fn explain(self, key: &Key, checkpoint: &Checkpoint, source: &str) -> Error {
        let (name, position) = (&key.projection, checkpoint.position);
        let is_at = format!("the checkpoint of \"{name}\" is at {position}");
        let what = match self {
            Difference::Identity(identity) => format!(
                "the checkpoint of \"{name}\" was taken from the log {}, but source \"{source}\" \
                 is the log {identity}",
                checkpoint.source_identity
            ),
            Difference::Behind(reached) => format!(
                "{is_at}, but source \"{source}\" has issued no position above {reached}: the log \
                 went back"
            ),
            Difference::OtherEvent(at, known, found) => format!(
                "the checkpoint of \"{name}\" has event {known} at position {at}, but source \
                 \"{source}\" now has event {found} there: the log went back"
            ),
            Difference::NewEvent(at, id) => format!(
                "{is_at}, but source \"{source}\" now has event {id} at position {at}, where \
                 there was none: the log went back"
            ),
            Difference::Gone(at, known) => format!(
                "the checkpoint of \"{name}\" has event {known} at position {at}, but source \
                 \"{source}\" no longer has it and did not record its removal: the log went back"
            ),
            Difference::TakenAgain(at) => format!(
                "{is_at}, but source \"{source}\" has a new event at position {at}, whose event \
                 was removed: positions are issued again"
            ),
            Difference::Stranded(oldest) => return stranded(key, position, source, oldest),
        };
        let hint = format!(
            "connect to the database it was built from, or run highwater rebuild {name}; if no other \
             events lie below the checkpoint, highwater accept {name} resumes after it"
        );
        Error::new(ErrorKind::Diverged, what).with_hint(hint)
    }
}

/// Refuses to pass over events that were removed while the projection had only read up to a
/// position.
pub(crate) async fn check_unread(
    key: &Key,
    read_up_to: Position,
    source: &dyn Source,
) -> Result<()> {
    let through = source.removed_through().await?;
    if through <= read_up_to {
        return Ok(());
    }
    let what =
        format!("events up to {through} were removed, but only those up to {read_up_to} were read");
    Err(removed_unread(key, Error::new(ErrorKind::Stranded, what)))
}

/// The error of the server or of [`check_unread`], with a hint.
pub(crate) fn removed_unread(key: &Key, error: Error) -> Error {
    let name = &key.projection;
    // Events that are inserted again get other positions, or are below those recorded as removed.
    error.with_hint(format!(
        "restore the database from before the removal, or run highwater accept {name} to resume \
         without the removed events"
    ))
}

fn stranded(key: &Key, position: Position, source: &str, oldest: Option<Position>) -> Error {
    let name = &key.projection;
    let left = match oldest {
        Some(oldest) => format!("the oldest that is left is at {oldest}"),
        None => "none is left".to_owned(),
    };
    let what = format!(
        "\"{name}\" has read up to {position}, and events of source \"{source}\" after that were \
         removed: {left}"
    );
    removed_unread(key, Error::new(ErrorKind::Stranded, what))
}

/// Accepts the present log as the one that the live read model was built from: its checkpoints
/// continue from there, over events that were removed. False if none differed.
///
/// # Errors
/// If the log has not issued the checkpoint's position yet: its next events would be skipped.
pub(crate) async fn accept(
    client: &Client,
    projection: &ProjectionName,
    source: &dyn Source,
) -> Result<bool> {
    let mut accepted = false;
    for (key, checkpoint) in checkpoint::live(client, projection).await? {
        let known = checkpoint.last_event.map(|(position, _)| position);
        let log = source.log_state(checkpoint.position, known).await?;
        let Err(difference) = compare(&checkpoint, &log) else {
            continue;
        };
        if log.reached < checkpoint.position {
            let error = Difference::Behind(log.reached).explain(&key, &checkpoint, source.name());
            return Err(error.with_hint(format!(
                "new events would be skipped; run highwater rebuild {projection}"
            )));
        }
        let position = accepted_position(&checkpoint, &log, &difference);
        let last = source.last_at(position).await?;
        checkpoint::anchor(client, &key, position, &log.identity, last).await?;
        accepted = true;
    }
    Ok(accepted)
}

/// Where a checkpoint resumes: where it is, or after the removed events.
fn accepted_position(checkpoint: &Checkpoint, log: &LogState, difference: &Difference) -> Position {
    let removed = log.removed.as_ref().map(|removed| removed.through);
    let cut = match (removed, difference) {
        (Some(through), _) => through,
        (None, Difference::Stranded(Some(oldest))) => oldest.previous(),
        (None, _) => Position::START,
    };
    checkpoint.position.max(cut)
}

#[cfg(test)]
mod tests {
    use super::Difference::{Behind, Gone, Identity, NewEvent, OtherEvent, Stranded, TakenAgain};
    use super::*;
    use crate::source::Removed;

    const KNOWN: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn at(position: i64) -> Position {
        Position::new(position)
    }

    /// What was removed: the oldest events up to a position, and others.
    fn removed(through: i64, others: &[i64]) -> Option<Removed> {
        Some(Removed {
            through: at(through),
            others: others.iter().copied().map(at).collect(),
        })
    }

    #[test]
    fn a_log_must_have_the_known_event_and_no_later_one_or_have_recorded_its_removal() {
        let known = Some((8, KNOWN));
        let none = || removed(0, &[]);
        for (number, (known, last, oldest, removed, expected)) in [
            (None, None, None, none(), Ok(())),
            (
                None,
                Some((8, OTHER)),
                Some(8),
                none(),
                Err(NewEvent(at(8), OTHER)),
            ),
            (known, known, Some(1), none(), Ok(())),
            (
                known,
                Some((9, OTHER)),
                Some(1),
                none(),
                Err(NewEvent(at(9), OTHER)),
            ),
            (
                known,
                Some((8, OTHER)),
                Some(1),
                none(),
                Err(OtherEvent(at(8), KNOWN, OTHER)),
            ),
            (
                known,
                Some((5, OTHER)),
                Some(1),
                none(),
                Err(Gone(at(8), KNOWN)),
            ),
            (known, Some((5, OTHER)), Some(1), removed(0, &[8]), Ok(())),
            (
                known,
                Some((5, OTHER)),
                Some(5),
                removed(6, &[]),
                Err(TakenAgain(at(5))),
            ),
            (known, None, Some(11), removed(8, &[]), Ok(())),
            (
                known,
                None,
                Some(11),
                removed(7, &[]),
                Err(Gone(at(8), KNOWN)),
            ),
            // It keeps no record of removals.
            (
                known,
                Some((5, OTHER)),
                Some(5),
                None,
                Err(Gone(at(8), KNOWN)),
            ),
            (known, None, None, None, Err(Gone(at(8), KNOWN))),
            (known, None, Some(12), None, Err(Stranded(Some(at(12))))),
            // Events after the checkpoint were removed.
            (
                known,
                None,
                Some(13),
                removed(12, &[]),
                Err(Stranded(Some(at(13)))),
            ),
            (None, None, None, removed(12, &[]), Err(Stranded(None))),
        ]
        .into_iter()
        .enumerate()
        {
            let place = |(position, id)| (at(position), id);
            let checkpoint = checkpoint(known.map(place));
            let log = LogState {
                last: last.map(place),
                oldest: oldest.map(at),
                removed,
                ..log()
            };
            assert_eq!(compare(&checkpoint, &log), expected, "row {number}");
        }
    }

    #[test]
    fn another_log_and_one_that_went_back_are_known_before_any_event_is_compared() {
        let checkpoint = checkpoint(Some((at(8), KNOWN)));
        let behind = LogState {
            reached: at(9),
            ..log()
        };
        assert_eq!(compare(&checkpoint, &behind), Err(Behind(at(9))));
        let another = LogState {
            identity: "another".into(),
            ..behind
        };
        assert_eq!(
            compare(&checkpoint, &another),
            Err(Identity("another".into()))
        );
    }

    /// At position 10.
    fn checkpoint(last_event: checkpoint::LastEvent) -> Checkpoint {
        Checkpoint {
            position: at(10),
            epoch: checkpoint::Epoch::default(),
            source_identity: "log".into(),
            last_event,
            partitions: 1,
            drain_at: None,
            parking: 0,
        }
    }

    fn log() -> LogState {
        LogState {
            identity: "log".into(),
            reached: at(10),
            oldest: None,
            last: None,
            removed: None,
        }
    }
}
