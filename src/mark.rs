//! The high-water mark: the highest position below which nothing can still appear.
//!
//! Positions come from a sequence: a number is drawn before its transaction commits, so a lower
//! number can become visible after a higher one, and a rollback burns its number for ever. This
//! file holds the rule that decides when a gap is dead; it does no I/O. [`crate::source::table`]
//! sends the statements in the order that the rule asks for.
//!
//! **Who is authoritative.** PostgreSQL's lock table. `nextval` takes RowExclusiveLock on the
//! sequence before it draws a number and keeps it until the top transaction ends.
//!
//! **States.** No gap: the mark follows the rows. A gap: a *round* opens for the highest position
//! seen, waits for the transactions that held the lock in a later snapshot, and ends when each has
//! gone. A proof counts from the next read of rows on.
//!
//! ```text
//!   rows ──no hole──▶ mark moves, no snapshot of the locks
//!     │ hole
//!     ▼
//!   locks ──nobody holds──▶ proven(n) ──rows──▶ mark = n
//!     │ holders S             ▲
//!     ▼                       │ S is empty
//!   round(n, S) ──locks───────┘
//! ```
//!
//! **The rule.** Rows are read, n being the highest position seen; in a LATER statement the holders
//! S are read; each transaction that drew a number below n is in S or had ended. When every member
//! of S has ended, rows are read again in a NEW statement: a position up to n that is still missing
//! was rolled back or deleted, and the mark passes n. A commit becomes visible before its locks are
//! released; that order is the proof, so [`UnprovenPosition`] can only come out of a read and must be
//! handed to the snapshot of the locks that follows it.
//!
//! **Failures.** A lost connection voids the rounds and the mark: make a new [`Mark`] from the
//! highest checkpoint. The mark never moves on a timer.

use std::collections::{HashSet, VecDeque};

use crate::mutation;
use crate::position::{Position, Range};

/// Rounds that may be open at once. More would only pass a new gap a little earlier.
const ROUNDS_MAX: usize = 8;

/// A transaction that may still bring a position below what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its `virtualtransaction` in the lock table, the one name that PREPARE keeps.
    pub name: String,
    /// Whether it belongs to no process any more: PREPARE TRANSACTION was called.
    pub prepared: bool,
}

/// The highest position that a read of rows has seen beyond the mark: the locks decide whether it
/// is proven.
#[derive(Debug)]
#[must_use = "a gap is open: read the locks, in a later statement"]
pub struct UnprovenPosition(Position);

/// What a read of rows did to the mark.
#[derive(Debug)]
pub struct MarkAdvance {
    /// The range that the mark passed; empty if it did not move.
    pub passed: Range,
    /// Whether the rows that were read are all of `passed`.
    pub rows_cover_it: bool,
    /// There are rows beyond a gap.
    pub open: Option<UnprovenPosition>,
}

/// The mark of one source, and the rounds that are open above it.
#[derive(Debug)]
pub struct Mark {
    mark: Position,
    proven: Position,
    rounds: VecDeque<LockWait>,
}

impl Mark {
    /// A mark at `proven`: everything at or below it was proven before.
    pub fn new(proven: Position) -> Mark {
        Mark {
            mark: proven,
            proven,
            rounds: VecDeque::new(),
        }
    }

    /// The position of the mark.
    pub fn position(&self) -> Position {
        self.mark
    }

    /// Whether a round waits for transactions to end.
    pub fn waits(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// The holders that the oldest round waits for.
    pub fn blocked_by(&self) -> Vec<String> {
        let Some(round) = self.rounds.front() else {
            return Vec::new();
        };
        let mut names: Vec<String> = round.waiting_for.iter().cloned().collect();
        names.sort();
        names
    }

    /// The highest committed position was read, and nothing below it: the start rule. The next
    /// snapshot of the locks opens a round for it.
    pub fn head_read(&self, head: Position) -> Option<UnprovenPosition> {
        (head > self.mark).then_some(UnprovenPosition(head))
    }

    /// Rows after the mark were read, in order, by a statement that began after the last
    /// snapshot of the locks had been answered. `more` says that the statement's limit cut them short.
    pub fn rows_read(&mut self, rows: &[Position], more: bool) -> MarkAdvance {
        let before = self.mark;
        let mut to = before.max(self.proven);
        // A proven range need not have been read to its end: positions that are missing in it are
        // dead, and a runner that wants its rows reads them in its own statement.
        let last = rows.last().copied();
        if self.proven > before && mutation::on("mark.unseen_rows_proven") {
            to = to.max(last.unwrap_or_default());
        }
        let rows_cover_it = !more || last.is_some_and(|last| last >= to);
        for &row in rows.iter().filter(|&&row| row > before) {
            if row <= to {
                continue;
            }
            if row != to.next() {
                break;
            }
            to = row;
        }
        self.mark = to;
        self.proven = to;
        self.rounds.retain(|round| round.through > to);
        MarkAdvance {
            passed: Range::new(before, to),
            rows_cover_it,
            open: last.filter(|&last| last > to).map(UnprovenPosition),
        }
    }

    /// The locks were read, in a statement sent after the one that gave `unproven` had been
    /// answered. Returns whether something is proven now and rows should be read at once.
    pub fn locks_read(&mut self, unproven: UnprovenPosition, holders: &[Holder]) -> bool {
        let present: HashSet<&str> = holders.iter().map(|h| h.name.as_str()).collect();
        let mut proven = self.proven;
        for round in &mut self.rounds {
            if round.has_ended(&present, holders) {
                proven = proven.max(round.through);
            }
        }
        self.rounds.retain(|round| round.through > proven);
        if holders.is_empty() {
            proven = proven.max(unproven.0);
        } else if self.wants_round(&unproven) && unproven.0 > proven {
            self.rounds.push_back(LockWait::new(unproven.0, holders));
        }
        let moved = proven > self.proven;
        self.proven = proven;
        moved
    }

    fn wants_round(&self, seen: &UnprovenPosition) -> bool {
        self.rounds.len() < ROUNDS_MAX
            && self.rounds.back().is_none_or(|last| last.through < seen.0)
    }
}

/// One wait: when every holder of the first snapshot has ended, everything up to `through` is proven.
#[derive(Debug)]
struct LockWait {
    through: Position,
    waiting_for: HashSet<String>,
    known_prepared: HashSet<String>,
    prepared_added: bool,
}

impl LockWait {
    fn new(through: Position, holders: &[Holder]) -> LockWait {
        let prepared = holders.iter().filter(|h| h.prepared);
        LockWait {
            through,
            waiting_for: holders.iter().map(|h| h.name.clone()).collect(),
            known_prepared: prepared.map(|h| h.name.clone()).collect(),
            prepared_added: false,
        }
    }

    /// Old minor releases rename a transaction when it is prepared. So when the last member that
    /// a process still has is gone, the prepared holders that were not there before are added,
    /// once: one of them may be a member under another name. Adding them at every snapshot would
    /// never end.
    fn has_ended(&mut self, present: &HashSet<&str>, holders: &[Holder]) -> bool {
        self.waiting_for
            .retain(|name| present.contains(name.as_str()));
        let a_process_has_one = holders
            .iter()
            .any(|h| !h.prepared && self.waiting_for.contains(&h.name));
        if !a_process_has_one && !self.prepared_added {
            self.prepared_added = true;
            let renamed = holders
                .iter()
                .filter(|h| h.prepared && !self.known_prepared.contains(&h.name));
            self.waiting_for.extend(renamed.map(|h| h.name.clone()));
        }
        self.waiting_for.is_empty()
    }
}

#[cfg(test)]
mod tests;
