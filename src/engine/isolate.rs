//! Narrows a batch that failed down to the one event that causes it, by halving.

use crate::error::{Error, EventRef, Result};
use crate::event::RecordedEvent;
use crate::name::ProjectionName;
use crate::position::{Position, Range};
use crate::source::{Filter, Midpoint, ReadRequest, Source};

/// How far the next batch may go during the search for a poison event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Isolation(Option<Bisection>);

/// A range that is known to hold a poison event, and how much of it to try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bisection {
    bad_through: Position,
    try_through: Position,
}

impl Bisection {
    /// Half of the events of a range; one event alone is tried with all that is left.
    fn of(bad_through: Position, events: &Midpoint) -> Bisection {
        let try_through = match events.count {
            1 => bad_through,
            _ => events.middle,
        };
        Bisection {
            bad_through,
            try_through,
        }
    }
}

/// What to do about a batch that failed.
#[derive(Debug)]
pub(super) enum IsolationResult {
    /// One of several events: try a shorter batch.
    Several,
    /// This event alone causes it.
    One(Box<RecordedEvent>),
    /// The range holds no event: the statements themselves fail.
    None,
}

impl Isolation {
    /// How far the next batch may go.
    pub(super) fn bound(&self, through: Position) -> Position {
        self.0
            .map_or(through, |bisection| bisection.try_through.min(through))
    }

    /// Whether a search for a poison event is under way.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// A batch up to `position` succeeded: the rest of the suspect range is halved again.
    pub(super) async fn passed(
        &mut self,
        position: Position,
        source: &dyn Source,
        filter: Filter<'_>,
    ) -> Result<()> {
        let Some(Bisection { bad_through, .. }) = self.0 else {
            return Ok(());
        };
        let rest = Range::new(position, bad_through);
        let events = source.middle(rest, filter).await?;
        self.0 = events.map(|events| Bisection::of(bad_through, &events));
        Ok(())
    }

    /// The event at `position` gets a batch of its own, after the events before it.
    pub(super) fn pass_before(&mut self, position: Position) {
        self.0 = Some(Bisection {
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
    ) -> Result<IsolationResult> {
        let Some(events) = source.middle(range, filter).await? else {
            return Ok(IsolationResult::None);
        };
        if events.count > 1 {
            self.0 = Some(Bisection::of(range.through(), &events));
            return Ok(IsolationResult::Several);
        }
        let request = ReadRequest {
            range: Range::new(events.first.previous(), events.first),
            types: filter.types,
            events_max: 1,
            bytes_max: usize::MAX,
        };
        let mut events = source.read_keys(request, filter.keys).await?.events;
        Ok(match events.pop() {
            Some(event) => IsolationResult::One(Box::new(event)),
            None => IsolationResult::None,
        })
    }
}

/// The error of a poison event: it names the event and what to do.
pub(super) fn poison(error: Error, name: &ProjectionName, event: &RecordedEvent) -> Error {
    let next = format!(
        "stopped before this event; nothing is lost. Fix the cause (after a file change: highwater accept \
         {name}), then highwater run. With on_error = \"park\" other keys would continue"
    );
    let hint = match error.hint() {
        Some(hint) => format!("{hint}; {next}"),
        None => next,
    };
    error.with_event(reference(event)).with_hint(hint)
}

/// The event, as an error names it.
pub(super) fn reference(event: &RecordedEvent) -> EventRef {
    EventRef {
        position: event.position,
        id: event.id,
        event_type: event.event_type.clone(),
    }
}

#[cfg(test)]
mod tests;
