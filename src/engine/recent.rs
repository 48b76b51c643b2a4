//! The last steps of a reader: which types occurred in them, and what their last event was.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pg::checkpoint::LastEvent;
use crate::position::{Position, Range};
use crate::source::{RangeSummary, Types};

/// Steps remembered. A runner further behind reads the source itself.
const STEPS_MAX: usize = 256;

/// The last steps, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentSteps(VecDeque<RecentStep>);

#[derive(Clone, Debug)]
struct RecentStep {
    range: Range,
    summary: Arc<RangeSummary>,
}

impl RecentSteps {
    pub(super) fn push(&mut self, range: Range, summary: RangeSummary) {
        if self.0.len() == STEPS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(RecentStep {
            range,
            summary: Arc::new(summary),
        });
    }

    /// Whether an event of `types` may lie in `(after, mark]`. Yes, unless these steps reach back to
    /// `after` and none of the types occurred in them.
    pub(super) fn may_hold(&self, after: Position, mark: Position, types: Types<'_>) -> bool {
        if types.is_none() {
            return after < mark;
        }
        let mut reached = after;
        for step in self.0.iter().filter(|step| step.range.through() > after) {
            if step.range.after() > reached || step.summary.holds(types) {
                return true;
            }
            reached = step.range.through();
        }
        reached < mark
    }

    /// The last event of a range, if whole steps make up the range; a range may hold none.
    pub(super) fn last_in(&self, range: Range) -> Option<LastEvent> {
        let steps = self.whole_steps(range)?;
        Some(steps.iter().rev().find_map(|step| step.summary.last))
    }

    /// The steps that together make up this range.
    fn whole_steps(&self, range: Range) -> Option<Vec<&RecentStep>> {
        let within = |step: &&RecentStep| {
            step.range.through() > range.after() && step.range.after() < range.through()
        };
        let steps: Vec<&RecentStep> = self.0.iter().filter(within).collect();
        let mut reached = range.after();
        for step in &steps {
            if step.range.after() != reached {
                return None;
            }
            reached = step.range.through();
        }
        (reached == range.through()).then_some(steps)
    }
}
