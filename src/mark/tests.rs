//! The rule against a model of PostgreSQL: any schedule of writers and statements.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(n: i64) -> Position {
    Position::new(n)
}

fn positions(numbers: &[i64]) -> Vec<Position> {
    numbers.iter().copied().map(Position::new).collect()
}

fn live(name: &str) -> Holder {
    Holder {
        name: name.into(),
        prepared: false,
    }
}

fn prepared(name: &str) -> Holder {
    Holder {
        name: name.into(),
        prepared: true,
    }
}

#[test]
fn rows_without_a_hole_move_the_mark_without_reading_locks() {
    let mut mark = Mark::new(at(2));
    let advance = mark.rows_read(&positions(&[3, 4, 5]), false);
    assert_eq!(advance.passed, Range::new(at(2), at(5)));
    assert!(advance.open.is_none());
}

#[test]
fn a_gap_without_holders_is_passed_only_after_rows_were_read_again() {
    let mut mark = Mark::new(at(0));
    let seen = mark
        .rows_read(&positions(&[1, 3]), false)
        .open
        .expect("a gap");
    assert_eq!(mark.position(), at(1));
    assert!(mark.locks_read(seen, &[]));
    assert_eq!(mark.position(), at(1), "locks alone never move the mark");
    let advance = mark.rows_read(&positions(&[2, 3]), false);
    assert_eq!(advance.passed, Range::new(at(1), at(3)));
}

#[test]
fn a_gap_waits_for_the_holders_of_the_first_snapshot_only() {
    let mut mark = Mark::new(at(0));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(!mark.locks_read(seen, &[live("3/1"), live("4/1")]));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(!mark.locks_read(seen, &[live("4/1"), live("5/9")]));
    assert_eq!(mark.blocked_by(), ["4/1"]);
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(mark.locks_read(seen, &[live("5/9"), live("6/1")]));
    assert_eq!(
        mark.rows_read(&positions(&[2]), false).passed.through(),
        at(2)
    );
}

#[test]
fn what_was_seen_after_the_locks_is_not_proven_by_it() {
    let mut mark = Mark::new(at(0));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(mark.locks_read(seen, &[]));
    let advance = mark.rows_read(&positions(&[2, 4]), false);
    assert_eq!(advance.passed.through(), at(2), "3 may still come");
    assert!(advance.open.is_some());
}

#[test]
fn a_prepared_transaction_is_followed_under_its_name() {
    let mut mark = Mark::new(at(0));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(!mark.locks_read(seen, &[live("3/7")]));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(
        !mark.locks_read(seen, &[prepared("3/7")]),
        "PREPARE is not the end"
    );
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(mark.locks_read(seen, &[]));
}

#[test]
fn a_transaction_that_prepare_renamed_is_waited_for_and_new_ones_are_not() {
    let mut mark = Mark::new(at(0));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(!mark.locks_read(seen, &[live("3/7"), prepared("-1/50")]));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(!mark.locks_read(seen, &[prepared("-1/50"), prepared("-1/77")]));
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(
        !mark.locks_read(seen, &[prepared("-1/77"), prepared("-1/80")]),
        "77 may be 3/7"
    );
    assert_eq!(mark.blocked_by(), ["-1/77"]);
    let seen = mark.rows_read(&positions(&[2]), false).open.expect("a gap");
    assert!(
        mark.locks_read(seen, &[prepared("-1/80"), prepared("-1/81")]),
        "the set is closed"
    );
}

#[test]
fn a_proven_range_that_was_not_read_to_its_end_is_passed_and_said_to_be_unread() {
    let mut mark = Mark::new(at(0));
    let seen = mark.head_read(at(1000)).expect("rows below head");
    assert!(mark.locks_read(seen, &[]));
    let advance = mark.rows_read(&positions(&[1, 2, 3]), true);
    assert_eq!(advance.passed.through(), at(1000));
    assert!(!advance.rows_cover_it);
}

#[test]
fn open_rounds_are_bounded() {
    let mut mark = Mark::new(at(0));
    for n in 1..100 {
        let seen = mark
            .rows_read(&positions(&[2, 2 + 2 * n]), false)
            .open
            .expect("a gap");
        mark.locks_read(seen, &[live("3/1")]);
    }
    assert!(mark.rounds.len() <= ROUNDS_MAX);
}

/// What a schedule does next.
#[derive(Clone, Debug)]
enum Step {
    Begin,
    Draw(usize),
    Insert(usize),
    Commit(usize),
    Release(usize),
    Rollback(usize),
    Prepare(usize),
    Read,
    Look,
}

/// One writer. A commit makes rows visible first and releases the lock later, as PostgreSQL does.
#[derive(Default)]
struct Writer {
    name: String,
    prepared: bool,
    holds: bool,
    drawn: Vec<i64>,
    inserted: Vec<i64>,
    visible: bool,
    ended: bool,
}

#[derive(Default)]
struct Model {
    sequence: i64,
    names: usize,
    writers: Vec<Writer>,
    table: BTreeSet<i64>,
}

impl Model {
    fn writer(&mut self, pick: usize) -> Option<&mut Writer> {
        let open: Vec<usize> = (0..self.writers.len())
            .filter(|&i| !self.writers[i].ended && !self.writers[i].visible)
            .collect();
        let index = *open.get(pick.checked_rem(open.len())?)?;
        Some(&mut self.writers[index])
    }

    fn act(&mut self, step: &Step, rename_on_prepare: bool) {
        match *step {
            Step::Begin => {
                self.names += 1;
                self.writers.push(Writer {
                    name: format!("w/{}", self.names),
                    ..Writer::default()
                });
            }
            Step::Draw(i) => {
                let number = self.sequence + 1;
                let Some(writer) = self.writer(i).filter(|w| !w.prepared) else {
                    return;
                };
                writer.holds = true;
                writer.drawn.push(number);
                self.sequence = number;
            }
            Step::Insert(i) => {
                let Some(writer) = self.writer(i).filter(|w| !w.prepared) else {
                    return;
                };
                writer.inserted.append(&mut writer.drawn);
            }
            Step::Commit(i) => {
                let Some(writer) = self.writer(i) else { return };
                writer.visible = true;
                let rows = writer.inserted.clone();
                self.table.extend(rows);
            }
            Step::Release(i) => {
                let done: Vec<usize> = (0..self.writers.len())
                    .filter(|&i| self.writers[i].visible && !self.writers[i].ended)
                    .collect();
                if let Some(&index) = done.get(i.checked_rem(done.len()).unwrap_or(0)) {
                    self.writers[index].ended = true;
                }
            }
            Step::Rollback(i) => {
                let Some(writer) = self.writer(i) else { return };
                writer.ended = true;
            }
            // A transaction is prepared, and renamed, once.
            Step::Prepare(i) => {
                let Some(writer) = self.writer(i).filter(|w| !w.prepared) else {
                    return;
                };
                writer.prepared = true;
                if rename_on_prepare {
                    writer.name = format!("-1/{}", writer.name);
                }
            }
            Step::Read | Step::Look => {}
        }
    }

    fn holders(&self) -> Vec<Holder> {
        let holding = self.writers.iter().filter(|w| w.holds && !w.ended);
        holding
            .map(|w| Holder {
                name: w.name.clone(),
                prepared: w.prepared,
            })
            .collect()
    }

    fn rows(&self, after: Position, limit: usize) -> (Vec<Position>, bool) {
        let mut rows = self
            .table
            .range(after.get() + 1..)
            .copied()
            .map(Position::new);
        let read: Vec<Position> = rows.by_ref().take(limit).collect();
        let more = read.len() == limit;
        (read, more)
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Begin),
        4 => (0usize..8).prop_map(Step::Draw),
        3 => (0usize..8).prop_map(Step::Insert),
        3 => (0usize..8).prop_map(Step::Commit),
        3 => (0usize..8).prop_map(Step::Release),
        1 => (0usize..8).prop_map(Step::Rollback),
        1 => (0usize..8).prop_map(Step::Prepare),
        4 => Just(Step::Read),
        4 => Just(Step::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever the schedule, no row ever appears at or below the mark after it passed there.
    #[test]
    fn nothing_appears_below_the_mark_in_any_schedule(
        steps in prop::collection::vec(step(), 1..120),
        rename_on_prepare in any::<bool>(),
        limit in prop_oneof![Just(3usize), Just(1000usize)],
        start_by_head in any::<bool>(),
    ) {
        let mut model = Model::default();
        let mut mark = Mark::new(Position::START);
        let mut seen = None;
        let mut below: BTreeSet<i64> = BTreeSet::new();
        for step in &steps {
            model.act(step, rename_on_prepare);
            match step {
                Step::Read => {
                    let (rows, more) = model.rows(mark.position(), limit);
                    seen = mark.rows_read(&rows, more).open;
                    if start_by_head {
                        let head = model.table.last().copied().unwrap_or(0);
                        seen = mark.head_read(Position::new(head)).or(seen);
                    }
                    below = model.table.range(..=mark.position().get()).copied().collect();
                }
                Step::Look => {
                    if let Some(seen) = seen.take() {
                        mark.locks_read(seen, &model.holders());
                    }
                }
                _ => {}
            }
            let now: BTreeSet<i64> = model.table.range(..=mark.position().get()).copied().collect();
            prop_assert_eq!(&now, &below, "a row appeared below the mark {}", mark.position());
        }
    }

    /// When every writer has ended, two reads of rows and two of locks bring the mark to the last row.
    #[test]
    fn the_mark_reaches_the_head_once_the_writers_are_gone(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::default();
        let mut mark = Mark::new(Position::START);
        let mut seen = None;
        for step in &steps {
            model.act(step, true);
            match step {
                Step::Read => {
                    let (rows, more) = model.rows(mark.position(), 1000);
                    seen = mark.rows_read(&rows, more).open;
                }
                Step::Look => {
                    if let Some(seen) = seen.take() {
                        mark.locks_read(seen, &model.holders());
                    }
                }
                _ => {}
            }
        }
        for writer in &mut model.writers {
            writer.ended = true;
        }
        for _ in 0..2 {
            let (rows, more) = model.rows(mark.position(), 1000);
            if let Some(seen) = mark.rows_read(&rows, more).open {
                mark.locks_read(seen, &model.holders());
            }
        }
        let (rows, more) = model.rows(mark.position(), 1000);
        mark.rows_read(&rows, more);
        let head = model.table.last().copied().unwrap_or(0);
        prop_assert_eq!(mark.position().get(), head);
    }
}
