//! What the reader of a source knows, as its runners see it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::error::Error;
use crate::position::{Position, Range};
use crate::source::{OpenGap, Step};

/// Steps remembered with the types that occurred in them. A runner further behind reads itself.
const STEPS_MAX: usize = 256;

/// Where a source stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Rises when the reader had to begin again: what was known before is void.
    pub(super) session: u64,
    pub(super) mark: Position,
    pub(super) head: Position,
    pub(super) gap: Option<OpenGap>,
    /// The reader has given up.
    pub(super) failed: Option<Arc<Error>>,
    recent: VecDeque<Passed>,
}

#[derive(Clone, Debug)]
struct Passed {
    range: Range,
    types: Arc<[Arc<str>]>,
}

impl Progress {
    /// Whether an event of `types` may lie in `(after, mark]`. Yes, unless the steps that are
    /// remembered reach back to `after` and none of the types occurred in them.
    pub(super) fn may_hold(&self, after: Position, types: Option<&[String]>) -> bool {
        let Some(wanted) = types else {
            return after < self.mark;
        };
        let mut reached = after;
        for passed in self.recent.iter().filter(|p| p.range.through() > after) {
            if passed.range.after() > reached {
                return true;
            }
            if passed
                .types
                .iter()
                .any(|t| wanted.iter().any(|w| **w == **t))
            {
                return true;
            }
            reached = passed.range.through();
        }
        reached < self.mark
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
        match step.types {
            None => self.recent.clear(),
            Some(types) => {
                if self.recent.len() == STEPS_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back(Passed {
                    range: step.passed,
                    types: types.into(),
                });
            }
        }
    }
}

/// The reader's side: it publishes.
pub(super) struct Publisher {
    progress: watch::Sender<Progress>,
    confirmed: Arc<Confirmed>,
    session: u64,
}

/// When the last successful statement of the reader's session began. It proves that the server
/// did not crash between the reader's first statement of the session and that moment.
#[derive(Debug, Default)]
struct Confirmed {
    session: AtomicU64,
    at: Mutex<Option<Instant>>,
}

/// The runners' side: they follow.
#[derive(Clone)]
pub(super) struct Following {
    pub(super) progress: watch::Receiver<Progress>,
    confirmed: Arc<Confirmed>,
}

pub(super) fn channel() -> (Publisher, Following) {
    let (sender, receiver) = watch::channel(Progress::default());
    let confirmed = Arc::new(Confirmed::default());
    let publisher = Publisher {
        progress: sender,
        confirmed: confirmed.clone(),
        session: 0,
    };
    let following = Following {
        progress: receiver,
        confirmed,
    };
    (publisher, following)
}

impl Publisher {
    /// A new session begins: the mark and what was remembered are void.
    pub(super) fn begin(&mut self) {
        self.session += 1;
        self.confirm(None);
        let session = self.session;
        self.progress.send_modify(|p| p.begin(session));
    }

    /// A step that began at `began` has succeeded.
    pub(super) fn step(&self, step: Step, began: Instant) {
        self.confirm(Some(began));
        self.progress.send_if_modified(|p| {
            let news = !step.passed.is_empty() || p.mark != step.mark || p.gap != step.gap;
            p.step(step);
            news
        });
    }

    /// The reader gives up.
    pub(super) fn fail(&self, error: Error) {
        let error = Arc::new(error);
        self.progress.send_modify(|p| p.failed = Some(error));
    }

    pub(super) fn mark(&self) -> Position {
        self.progress.borrow().mark
    }

    fn confirm(&self, at: Option<Instant>) {
        *self
            .confirmed
            .at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = at;
        self.confirmed
            .session
            .store(self.session, Ordering::Release);
    }
}

impl Following {
    /// Whether a mark of `session` may be used on a connection that was opened at `opened`: the
    /// server did not crash between the mark's proof and that connection, so nothing that the
    /// mark counts on was taken back.
    pub(super) fn covers(&self, session: u64, opened: Instant) -> bool {
        let at = *self
            .confirmed
            .at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.confirmed.session.load(Ordering::Acquire) == session
            && at.is_some_and(|at| at > opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(after: i64, through: i64, types: Option<&[&str]>) -> Step {
        let range = Range::new(Position::new(after), Position::new(through));
        Step {
            mark: range.through(),
            head: range.through(),
            passed: range,
            types: types.map(|types| types.iter().map(|&t| t.into()).collect()),
            gap: None,
            again: None,
        }
    }

    #[test]
    fn a_runner_reads_only_what_may_hold_its_types() {
        let mut progress = Progress::default();
        progress.step(step(0, 10, None));
        progress.step(step(10, 12, Some(&["A"])));
        progress.step(step(12, 15, Some(&["B"])));
        let b = ["B".to_owned()];
        let c = ["C".to_owned()];
        assert!(progress.may_hold(Position::new(10), Some(&b)));
        assert!(progress.may_hold(Position::new(12), Some(&b)));
        assert!(!progress.may_hold(Position::new(10), Some(&c)));
        assert!(
            progress.may_hold(Position::new(9), Some(&c)),
            "what lies before is not known"
        );
        assert!(progress.may_hold(Position::new(14), None));
        assert!(!progress.may_hold(Position::new(15), None));
    }

    #[test]
    fn a_step_whose_types_are_unknown_voids_what_was_remembered() {
        let mut progress = Progress::default();
        progress.step(step(0, 10, Some(&["A"])));
        progress.step(step(10, 99, None));
        progress.step(step(99, 100, Some(&["A"])));
        let c = ["C".to_owned()];
        assert!(progress.may_hold(Position::new(0), Some(&c)));
        assert!(!progress.may_hold(Position::new(99), Some(&c)));
    }
}
