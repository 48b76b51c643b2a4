//! What the reader of a source knows, as its runners see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio_util::sync::DropGuard;

use super::recent::RecentSteps;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::checkpoint::LastEvent;
use crate::position::{Position, Range};
use crate::source::{OpenGap, Step, Types};

/// The state of a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Rises when the reader had to begin again and everything known before is void. 0 before its
    /// first step.
    pub(super) session: u64,
    pub(super) mark: Position,
    pub(super) head: Position,
    pub(super) gap: Option<OpenGap>,
    /// Why the source cannot be read now; the reader tries again.
    pub(super) trouble: Option<Arc<Error>>,
    /// The reader has given up.
    pub(super) failed: Option<Arc<Error>>,
    /// Shared, because runners copy this at each of their steps.
    recent: Arc<RecentSteps>,
}

impl Progress {
    /// Whether an event of `types` may lie in `(after, mark]`.
    pub(super) fn may_hold(&self, after: Position, types: Types<'_>) -> bool {
        self.recent.may_hold(after, self.mark, types)
    }

    /// The last event of a range, if the remembered steps know it; a range may hold none.
    pub(super) fn last_in(&self, range: Range) -> Option<LastEvent> {
        self.recent.last_in(range)
    }

    fn begin(&mut self, session: u64) {
        *self = Progress {
            session,
            head: self.head,
            ..Progress::default()
        };
    }

    fn step(&mut self, step: Step) {
        self.mark = step.mark;
        self.head = self.head.max(step.head);
        self.gap = step.gap;
        if step.passed.is_empty() {
            return;
        }
        match step.occurred {
            None => self.recent = Arc::default(),
            Some(summary) => Arc::make_mut(&mut self.recent).push(step.passed, summary),
        }
    }
}

/// The side of the reader.
pub(super) struct Publisher {
    progress: watch::Sender<Progress>,
    confirmed: watch::Sender<SessionCheck>,
    awaited: Arc<WaitingRunners>,
    session: u64,
}

/// Number of waiting runners. At zero, poll slowly and leave the CPU to catch-up.
#[derive(Default)]
struct WaitingRunners {
    by: AtomicUsize,
    first: Notify,
}

/// A runner waits for the next step until this is dropped.
pub(super) struct WaitGuard(Arc<WaitingRunners>);

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.by.fetch_sub(1, Ordering::AcqRel);
    }
}

/// When the last successful statement of the reader's session began. It proves that the server
/// did not crash between the reader's first statement of the session and that moment.
#[derive(Clone, Copy, Debug, Default)]
struct SessionCheck {
    session: u64,
    at: Option<Instant>,
}

/// The side of the runners.
#[derive(Clone)]
pub(super) struct Subscriber {
    pub(super) progress: watch::Receiver<Progress>,
    confirmed: watch::Receiver<SessionCheck>,
    awaited: Arc<WaitingRunners>,
    /// The reader ends when no runner needs it any more, not before.
    _followed: Arc<DropGuard>,
}

/// The two sides; `unfollowed` is dropped with the last subscriber.
pub(super) fn channel(unfollowed: DropGuard) -> (Publisher, Subscriber) {
    let (progress, published) = watch::channel(Progress::default());
    let (confirmed, confirmations) = watch::channel(SessionCheck::default());
    let awaited = Arc::<WaitingRunners>::default();
    let publisher = Publisher {
        progress,
        confirmed,
        awaited: awaited.clone(),
        session: 0,
    };
    let subscriber = Subscriber {
        progress: published,
        confirmed: confirmations,
        awaited,
        _followed: Arc::new(unfollowed),
    };
    (publisher, subscriber)
}

impl Publisher {
    /// A new session begins: the mark and the remembered steps are void. Runners see it with its first
    /// step, because the mark is unknown before that.
    pub(super) fn begin(&mut self) {
        self.session += 1;
        self.confirm(None);
    }

    /// A step that began at `began` has succeeded.
    pub(super) fn step(&self, step: Step, began: Instant) {
        self.confirm(Some(began));
        self.progress.send_if_modified(|p| {
            let begins = p.session != self.session;
            if begins {
                p.begin(self.session);
            }
            let moved = !step.passed.is_empty() || p.mark != step.mark;
            let recovered = p.trouble.take().is_some();
            let news = begins || moved || recovered || p.gap != step.gap;
            p.step(step);
            news
        });
    }

    /// The source cannot be read now.
    pub(super) fn trouble(&self, error: &Error) {
        let error = Arc::new(error.clone());
        self.progress.send_modify(|p| p.trouble = Some(error));
    }

    /// The reader gives up.
    pub(super) fn fail(&self, error: Error) {
        let error = Arc::new(error);
        self.progress.send_modify(|p| p.failed = Some(error));
    }

    pub(super) fn mark(&self) -> Position {
        self.progress.borrow().mark
    }

    /// Whether a runner waits for the next step.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.by.load(Ordering::Acquire) > 0
    }

    /// Resolves when a runner begins to wait and none did before.
    pub(super) async fn awaited(&self) {
        self.awaited.first.notified().await;
    }

    fn confirm(&self, at: Option<Instant>) {
        let session = self.session;
        self.confirmed.send_replace(SessionCheck { session, at });
    }
}

impl Subscriber {
    /// Whether a mark of `session` may be used on a connection that was opened at `opened`: the
    /// server did not crash between the mark's proof and that connection, so no commit that the
    /// mark relies on was undone.
    pub(super) fn covers(&mut self, session: u64, opened: Instant) -> bool {
        let confirmed = *self.confirmed.borrow_and_update();
        confirmed.session == session && confirmed.at.is_some_and(|at| at > opened)
    }

    /// Registers the caller as waiting for the next step.
    pub(super) fn awaiting(&self) -> WaitGuard {
        if self.awaited.by.fetch_add(1, Ordering::AcqRel) == 0 {
            self.awaited.first.notify_one();
        }
        WaitGuard(self.awaited.clone())
    }

    /// Waits until the reader confirms `session` again: [`Subscriber::covers`] may be true then.
    ///
    /// # Errors
    /// If that session is over, or the reader has given up.
    pub(super) async fn confirmed(&mut self, session: u64) -> Result<()> {
        let _awaiting = self.awaiting();
        // An error means that the reader is gone; it gives the reason.
        let _ = self.confirmed.changed().await;
        self.check_reader()?;
        if self.confirmed.borrow().session == session {
            return Ok(());
        }
        let what = "the source is being read again from the checkpoint";
        Err(Error::new(ErrorKind::ConnectionLost, what))
    }

    /// Waits until the reader has begun again: then the server answers, and a retry makes sense.
    pub(super) async fn begun_again(&self) {
        let mut progress = self.progress.clone();
        let session = progress.borrow().session;
        // An error means that the reader is gone; the next step gives the reason.
        let _ = progress.wait_for(|p| p.session != session).await;
    }

    /// Fails if the reader has given up.
    pub(super) fn check_reader(&self) -> Result<()> {
        if let Some(error) = &self.progress.borrow().failed {
            return Err((**error).clone());
        }
        if self.progress.has_changed().is_ok() {
            return Ok(());
        }
        let what = "the reader of the source ended unexpectedly";
        Err(Error::new(ErrorKind::Internal, what).with_hint("check the log, and run again"))
    }
}

#[cfg(test)]
mod tests;
