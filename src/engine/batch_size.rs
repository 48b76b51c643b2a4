//! How many positions a batch spans: it grows while behind and begins small again at the head.

use std::time::Duration;

const FIRST: u64 = 1_000;
/// A batch that takes longer than this is halved, one that takes less than half of it grows. A row
/// that many events of a batch change is written once, so the longest batch is the fastest way; it
/// is short enough that little is lost when a stop rolls it back.
const GOAL: Duration = Duration::from_secs(10);
/// What a batch may be expected to take if its time grew in proportion. It grows less where many
/// events change one row, so a guess below this and its limit is mostly below the goal.
const GUESS: Duration = Duration::from_secs(30);
/// A small batch says little about a large one, but a step on the way costs more than a guess.
const GROWTH_MAX: u64 = 1_024;
/// In a new session most of the first batch is loading and planning, so the next one is this much
/// larger and shows more.
const SECOND: u64 = 5;
/// What a batch may take however few events it has: a new session's first statements, on cores that
/// another partition's batch keeps busy.
const OVERHEAD: Duration = Duration::from_millis(20);
/// How much larger than a batch that went well the next may be, if its time is to grow in
/// proportion.
const EXPECTED: u64 = 8;
/// How long a batch may take that is larger than that: long enough for a guess that was not quite
/// right, short enough that a wrong one costs little.
const LEAP_LIMIT: Duration = Duration::from_secs(45);

#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSize {
    span: u64,
    span_max: u64,
    /// The longest span that went well.
    proven: u64,
    /// What fits into memory, judged by the last batch that did not.
    fitting: u64,
    /// What the server can take, judged by the last batch that failed for lack of time or room.
    bearable: u64,
}

impl BatchSize {
    pub(super) fn new(span_max: u64) -> BatchSize {
        BatchSize {
            span: FIRST.min(span_max.max(1)),
            span_max: span_max.max(1),
            proven: 0,
            fitting: u64::MAX,
            bearable: u64::MAX,
        }
    }

    pub(super) fn span(&self) -> u64 {
        self.span
    }

    /// How much may ever be tried at once.
    pub(super) fn most(&self) -> u64 {
        self.span_max.min(self.bearable)
    }

    /// How long a batch of `span` positions may take, if it is much larger than any before.
    pub(super) fn limit(&self, span: u64) -> Option<Duration> {
        let expected = self.proven.saturating_mul(EXPECTED).max(FIRST);
        (span > expected).then_some(LEAP_LIMIT)
    }

    /// A batch took longer than its [`BatchSize::limit`]: the next one is no guess.
    pub(super) fn leapt_too_far(&mut self) {
        self.span = self.proven.saturating_mul(EXPECTED).max(1);
        self.bearable = self.span;
    }

    /// A batch of `span` positions took so long.
    pub(super) fn took(&mut self, span: u64, elapsed: Duration) {
        let growth_max = if self.proven == 0 { SECOND } else { GROWTH_MAX };
        self.proven = self.proven.max(span);
        if elapsed > GOAL {
            self.span = (self.span / 2).max(1);
        } else if span >= self.span && elapsed < GOAL / 2 {
            let working = elapsed.saturating_sub(OVERHEAD).max(elapsed / 2);
            let factor = GUESS.as_nanos() / working.as_nanos().max(1);
            let factor = u64::try_from(factor)
                .unwrap_or(growth_max)
                .clamp(2, growth_max);
            self.span = self.span.saturating_mul(factor);
            // What was too much once may be possible later.
            self.bearable = self.bearable.saturating_add(self.bearable / 8 + 1);
            let most = self.span_max.min(self.fitting).min(self.bearable);
            self.span = self.span.min(most);
        }
    }

    /// A limit cut a batch after `span` positions. The rest was read for nothing, so the next ones
    /// grow slowly from there.
    pub(super) fn cut(&mut self, span: u64) {
        self.span = span.clamp(1, self.span_max);
        self.fitting = span.saturating_mul(2).max(1);
    }

    /// A batch of `span` positions was too much for the available time or room. The next one is
    /// half of it, and later ones grow slowly beyond that.
    pub(super) fn failed(&mut self, span: u64) {
        self.span = (span / 2).clamp(1, self.span_max);
        self.bearable = self.span;
    }

    /// The head was reached: what comes next is short, and should be done soon.
    pub(super) fn at_head(&mut self) {
        self.span = FIRST.min(self.span_max).min(self.bearable);
        self.fitting = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_grow_while_batches_are_quick_and_shrink_when_they_are_slow() {
        let mut size = BatchSize::new(100_000);
        size.took(FIRST, Duration::from_millis(1));
        assert_eq!(size.span(), FIRST * SECOND, "the first says little");
        for _ in 0..10 {
            size.took(size.span(), Duration::from_millis(1));
        }
        assert_eq!(size.span(), 100_000);
        size.took(100_000, 2 * GOAL);
        assert_eq!(size.span(), 50_000);
        size.took(10, Duration::from_millis(1));
        assert_eq!(
            size.span(),
            50_000,
            "a short batch says nothing about long ones"
        );
        size.at_head();
        assert_eq!(size.span(), FIRST);
    }

    #[test]
    fn a_batch_that_memory_cut_keeps_those_after_it_short() {
        let mut size = BatchSize::new(100_000);
        size.cut(80);
        assert_eq!(size.span(), 80);
        size.took(80, Duration::from_millis(1));
        assert_eq!(size.span(), 160);
        size.took(160, Duration::from_millis(1));
        assert_eq!(size.span(), 160);
        size.at_head();
        size.took(FIRST, GUESS / 50 + OVERHEAD);
        assert_eq!(size.span(), FIRST * 50);
    }

    #[test]
    fn a_batch_much_larger_than_any_before_has_a_limit_of_its_own() {
        let mut size = BatchSize::new(1_000_000);
        assert_eq!(size.limit(size.span()), None, "the first is small");
        size.took(FIRST, Duration::from_millis(1));
        assert_eq!(size.limit(size.span()), None, "so is the second");
        size.took(FIRST * SECOND, Duration::from_millis(1));
        assert_eq!(size.span(), 1_000_000);
        assert_eq!(size.limit(size.span()), Some(LEAP_LIMIT));
        assert_eq!(size.limit(FIRST * SECOND * EXPECTED), None);
        size.leapt_too_far();
        assert_eq!(size.span(), FIRST * SECOND * EXPECTED);
        assert_eq!(size.limit(size.span()), None);
        size.took(size.span(), GOAL);
        assert_eq!(size.span(), FIRST * SECOND * EXPECTED);
        assert_eq!(size.limit(320_000), None, "close enough to that one");
    }

    #[test]
    fn a_batch_that_was_too_much_is_halved_and_those_after_it_grow_slowly() {
        let mut size = BatchSize::new(100_000);
        size.failed(1_000);
        size.failed(500);
        assert_eq!(size.span(), 250);
        size.took(250, Duration::from_millis(1));
        assert_eq!(size.span(), 282);
        for _ in 0..100 {
            size.took(size.span(), Duration::from_millis(1));
        }
        assert_eq!(size.span(), 100_000, "for ever it is not");
        size.failed(1);
        assert_eq!(size.span(), 1);
    }

    #[test]
    fn a_span_is_never_empty() {
        let mut size = BatchSize::new(0);
        for _ in 0..5 {
            size.took(1, Duration::from_secs(9));
        }
        assert_eq!(size.span(), 1);
    }
}
