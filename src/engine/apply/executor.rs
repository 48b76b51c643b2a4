//! How the events of a batch get to the projection: one executor for each way.

use tokio_util::sync::CancellationToken;

use super::Session;
use crate::error::Result;
use crate::event::RecordedEvent;
use crate::pg::checkpoint::LastEvent;
use crate::position::{Position, Range};
use crate::source::BoxFuture;

/// Applies events in one of these ways:
///
/// - [`InServer`](super::in_server::InServer): the server reads them, in the message that applies them;
/// - [`Streamed`](super::streamed::Streamed): they are read and handed to the projection.
pub(super) trait Executor<'a>: Send {
    /// Reads the events of a range that are to be applied, up to the limits, unless the server
    /// does.
    fn prepare(
        self: Box<Self>,
        range: Range,
        limits: Limits<'a>,
    ) -> BoxFuture<'a, Result<Box<dyn Work + 'a>>>;

    /// Applies a dead letter in a transaction of its own, and deletes it.
    fn apply_dead_letter<'s>(
        self: Box<Self>,
        session: &'s Session,
        event: RecordedEvent,
    ) -> BoxFuture<'s, Result<()>>
    where
        'a: 's;
}

/// The events to apply, known before a session is taken for them: runners that hold one session
/// while they wait for another could wait for each other for ever.
pub(in crate::engine) trait Work: Send {
    /// Applies it in one transaction, which moves the checkpoint to the position that is returned.
    fn apply<'s>(self: Box<Self>, session: &'s Session) -> BoxFuture<'s, Result<Position>>
    where
        Self: 's;
}

/// How much one batch may hold, and what is known about it before it is read.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Limits<'a> {
    pub(in crate::engine) events_max: usize,
    pub(in crate::engine) bytes_max: usize,
    /// Up to where the runner knows that it has missed nothing.
    pub(in crate::engine) read_up_to: Position,
    /// Several batches may share the transaction, until this is cancelled: there is a session to
    /// read them with.
    pub(in crate::engine) group_until: Option<&'a CancellationToken>,
    /// The last event of the range, if the reader's own rows tell it.
    pub(in crate::engine) last: Option<LastEvent>,
}
