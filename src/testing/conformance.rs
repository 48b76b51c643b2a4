//! What every source must do, as one suite: a source conforms if [`run`] ends.
//!
//! A [`SourceUnderTest`] says how to write to the log of a source. By default nothing else happens to the
//! log (a rollback, a removal), and the cases about that are left out.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::event::{NewEvent, RecordedEvent};
use crate::position::{Position, Range};
use crate::source::{BoxFuture, Follower, ReadRequest, Source, Step};

mod cases;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A log under test, empty at first, and how it is written to.
///
/// Its functions panic if the log refuses: a test can do nothing else.
pub trait SourceUnderTest: Send + Sync {
    /// The source; each time a new one on the same log.
    fn source(&self) -> Arc<dyn Source>;

    /// Appends an event as the only one of a transaction.
    fn append<'a>(&'a self, stream: &'a str, event: NewEvent) -> BoxFuture<'a, Position>;

    /// Begins to append an event: it has its position, and is not committed. `None` if in this log a
    /// position is always committed with those before it.
    fn begin<'a>(&'a self, _stream: &'a str, _event: NewEvent) -> BoxFuture<'a, Option<Pending>> {
        Box::pin(ready(None))
    }

    /// Uses up positions without an event. False if this log has no holes.
    fn burn(&self, _count: u32) -> BoxFuture<'_, bool> {
        Box::pin(ready(false))
    }

    /// Takes the log back to a position, as a restored backup does, and its positions too. False if
    /// that cannot be done here.
    fn rewind(&self, _to: Position) -> BoxFuture<'_, bool> {
        Box::pin(ready(false))
    }

    /// Removes the oldest events, up to a position, on purpose. False if that cannot be done here.
    fn remove_through(&self, _position: Position) -> BoxFuture<'_, bool> {
        Box::pin(ready(false))
    }

    /// Cuts every connection to the log. False if it has none.
    fn disconnect(&self) -> BoxFuture<'_, bool> {
        Box::pin(ready(false))
    }
}

/// An append that is not committed yet.
pub struct Pending {
    /// The position that it has.
    pub position: Position,
    /// How it ends.
    pub ending: Box<dyn PendingAppend>,
}

/// The two ends of an append that was begun.
pub trait PendingAppend: Send {
    /// It is committed.
    fn commit(self: Box<Self>) -> BoxFuture<'static, ()>;

    /// It is rolled back: its position stays empty.
    fn roll_back(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Runs every case, each on a log of its own that `subject` makes.
///
/// # Panics
///
/// If the source does not conform; the case is logged before, at the level `info`.
pub async fn run<S: SourceUnderTest + 'static>(subject: impl AsyncFn() -> S) {
    macro_rules! run {
        ($($case:ident)*) => {$(
            tracing::info!(case = stringify!($case), "conformance");
            let case = Case { subject: Box::new(subject().await) };
            Box::pin(cases::$case(&case)).await;
        )*};
    }
    run! {
        an_empty_log_has_no_events_and_head_0
        events_are_read_in_order_as_they_were_appended
        every_connection_sees_the_same_log
        only_the_wanted_types_are_read
        a_read_ends_at_its_limit_of_events_and_says_how_far_it_came
        a_read_ends_at_its_limit_of_bytes_and_a_larger_event_comes_alone
        the_last_event_at_a_position_is_found_also_in_a_hole
        the_mark_passes_holes
        steps_follow_each_other_and_say_what_occurred
        the_mark_waits_for_a_late_commit
        the_mark_passes_what_was_rolled_back
        partitions_share_the_events_out_and_parked_keys_are_left_out
        ranges_are_halved_and_counted
        the_lag_is_measured_from_the_head
        a_log_that_went_back_does_not_look_as_it_did
        removed_events_are_known_to_be_removed
        an_append_wakes
        reads_succeed_again_after_connections_were_cut
    }
}

/// What a case is about.
struct Case {
    subject: Box<dyn SourceUnderTest>,
}

impl Case {
    fn source(&self) -> Arc<dyn Source> {
        self.subject.source()
    }

    async fn append(&self, stream: &str, event_type: &str) -> Position {
        self.subject.append(stream, event(event_type)).await
    }

    /// Appends events of type `T` to streams `s-0`, `s-1`, … in turn.
    async fn append_many(&self, count: usize) -> Vec<Position> {
        let mut positions = Vec::new();
        for number in 0..count {
            positions.push(self.append(&format!("s-{}", number % 7), "T").await);
        }
        positions
    }

    /// Everything up to the head, where nothing is in flight.
    async fn all(&self) -> Vec<RecordedEvent> {
        let source = self.source();
        let head = answer(source.head().await);
        let request = everything(Range::new(Position::START, head));
        answer(source.read(request).await).events
    }
}

fn event(event_type: &str) -> NewEvent {
    answer(NewEvent::new(event_type, &json!({ "n": 1 })))
}

/// A request for all events of a range.
fn everything(range: Range) -> ReadRequest<'static> {
    ReadRequest {
        range,
        types: None,
        events_max: 1_000_000,
        bytes_max: usize::MAX,
    }
}

fn positions(events: &[RecordedEvent]) -> Vec<Position> {
    events.iter().map(|event| event.position).collect()
}

#[track_caller]
#[allow(clippy::panic, reason = "a test can do nothing else")]
fn answer<T>(answer: crate::Result<T>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("the source failed: {error}"),
    }
}

/// Follows a source from the start, and keeps what the mark passed.
struct Followed {
    follower: Box<dyn Follower>,
    mark: Position,
    steps: Vec<Step>,
}

impl Followed {
    async fn from_start(source: &dyn Source) -> Followed {
        Followed {
            follower: answer(source.follow(Position::START).await),
            mark: Position::START,
            steps: Vec::new(),
        }
    }

    async fn step(&mut self) -> Step {
        let step = answer(self.follower.step().await);
        assert_eq!(step.passed.after(), self.mark, "steps follow each other");
        assert_eq!(step.passed.through(), step.mark);
        assert!(step.mark <= step.head, "the mark is not above the head");
        self.mark = step.mark;
        self.steps.push(step.clone());
        let pause = step.again.unwrap_or(Duration::from_millis(2));
        tokio::time::sleep(pause).await;
        step
    }

    async fn reaches(&mut self, position: Position) {
        let began = Instant::now();
        while self.mark < position {
            let step = self.step().await;
            assert!(began.elapsed() < LIMIT, "not at {position}: {step:?}");
        }
        assert_eq!(self.mark, position);
    }
}
