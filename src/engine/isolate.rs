//! Narrows a batch that failed down to the one event that causes it, by halving.

use crate::error::{Error, EventRef, Result};
use crate::event::RecordedEvent;
use crate::name::ProjectionName;
use crate::position::{Position, Range};
use crate::source::{Filter, ReadRequest, Source};

/// The range that is known to hold a poison event, and how far to try next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Isolation {
    suspect: Option<Suspect>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    bad_through: Position,
    try_through: Position,
}

/// What is left to do about a batch that failed.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Try a shorter batch.
    TryShorter,
    /// This event alone causes it.
    Poison(Box<RecordedEvent>),
    /// The range holds no event: the statements themselves fail.
    NoEvent,
}

impl Isolation {
    /// How far the next batch may go.
    pub(super) fn bound(&self, through: Position) -> Position {
        self.suspect
            .map_or(through, |suspect| suspect.try_through.min(through))
    }

    /// Whether a poison event is being looked for.
    pub(super) fn is_open(&self) -> bool {
        self.suspect.is_some()
    }

    /// A batch up to `position` succeeded: the rest of the suspect range is halved again.
    pub(super) async fn passed(
        &mut self,
        position: Position,
        source: &dyn Source,
        filter: Filter<'_>,
    ) -> Result<()> {
        let Some(suspect) = self.suspect else {
            return Ok(());
        };
        let rest = Range::new(position, suspect.bad_through);
        let middle = source.middle(rest, filter).await?;
        self.suspect = middle.map(|middle| Suspect {
            bad_through: suspect.bad_through,
            try_through: match middle.count {
                1 => suspect.bad_through,
                _ => middle.middle,
            },
        });
        Ok(())
    }

    /// The event at `position` is to be dealt with alone: what lies before it is passed first.
    pub(super) fn pass_before(&mut self, position: Position) {
        self.suspect = Some(Suspect {
            bad_through: position,
            try_through: position.previous(),
        });
    }

    /// A batch over `range` failed on its own account.
    pub(super) async fn failed(
        &mut self,
        range: Range,
        source: &dyn Source,
        filter: Filter<'_>,
    ) -> Result<Verdict> {
        let Some(middle) = source.middle(range, filter).await? else {
            return Ok(Verdict::NoEvent);
        };
        if middle.count > 1 {
            self.suspect = Some(Suspect {
                bad_through: range.through(),
                try_through: middle.middle,
            });
            return Ok(Verdict::TryShorter);
        }
        let request = ReadRequest {
            range: Range::new(middle.first.previous(), middle.first),
            types: filter.types,
            events_max: 1,
            bytes_max: usize::MAX,
        };
        let mut events = source.read_keys(request, filter.keys).await?.events;
        Ok(match events.pop() {
            Some(event) => Verdict::Poison(Box::new(event)),
            None => Verdict::NoEvent,
        })
    }
}

/// The error of a poison event: it names the event and what to do.
pub(super) fn poison(error: Error, name: &ProjectionName, event: &RecordedEvent) -> Error {
    let next = format!(
        "the projection stands before this event and lost nothing: mend it, highwater accept {name} \
         if its file changed, then highwater run goes on; on_error = \"park\" in its file would let the \
         events of other keys go on meanwhile"
    );
    let hint = match error.what_to_do() {
        Some(hint) => format!("{hint}; {next}"),
        None => next,
    };
    error.event(reference(event)).hint(hint)
}

/// The event, as an error names it.
pub(super) fn reference(event: &RecordedEvent) -> EventRef {
    EventRef {
        position: event.position,
        id: event.id,
        event_type: event.event_type.clone(),
    }
}
