//! One row a decision.

use uuid::Uuid;

use super::PlannedAction::{End, Finish as Over, Repartition, Start};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::position::Position;

const ME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

/// What a plan is made from.
struct Given {
    view: u64,
    share: &'static [i32],
    projection: Option<ObservedProjection>,
    local: Local,
}

/// A projection of two free partitions at position 10, of which this instance is to run both.
fn given() -> Given {
    let checkpoint = |partition| ObservedCheckpoint {
        partition,
        partitions: 2,
        partitioning: 1,
        position: Position::new(10),
        drain_at: None,
        owner: None,
        stopped: false,
        stopped_before: false,
        retries: false,
        error: None,
    };
    Given {
        view: 5,
        share: &[0, 1],
        projection: Some(ObservedProjection {
            name: "p".to_owned(),
            generation: 1,
            hash: "hash".to_owned(),
            partitions: 2,
            paused: false,
            checkpoints: vec![checkpoint(0), checkpoint(1)],
        }),
        local: Local {
            me: ME,
            hash: "hash".to_owned(),
            ..Local::default()
        },
    }
}

impl Given {
    fn local(mut self, change: impl FnOnce(&mut Local)) -> Given {
        change(&mut self.local);
        self
    }

    fn seen(mut self, change: impl FnOnce(&mut ObservedProjection)) -> Given {
        if let Some(projection) = &mut self.projection {
            change(projection);
        }
        self
    }

    fn first(self, change: impl FnOnce(&mut ObservedCheckpoint)) -> Given {
        self.seen(|p| change(&mut p.checkpoints[0]))
    }

    fn share(self, share: &'static [i32]) -> Given {
        Given { share, ..self }
    }

    fn absent(self) -> Given {
        let projection = None;
        Given { projection, ..self }
    }

    fn owner(self, owner: Uuid) -> Given {
        self.first(|c| c.owner = Some(owner))
    }

    /// It has these partitions, and a runner for each.
    fn runs(self, partitions: &[i32]) -> Given {
        let is_ours = |c: &&mut ObservedCheckpoint| partitions.contains(&c.partition);
        let given = self.local(|l| l.running.extend(partitions));
        given.seen(|p| {
            let ours = p.checkpoints.iter_mut().filter(is_ours);
            ours.for_each(|c| c.owner = Some(ME));
        })
    }

    /// The last runner of the first partition ended at this view.
    fn ended_at(self, view: u64) -> Given {
        self.local(|l| l.ended_at.extend([(0, view)]))
    }

    fn stopped_here(self, partition: i32) -> Given {
        let error = Error::new(ErrorKind::Apply, "division by zero");
        self.local(|l| l.stopped.extend([(partition, error)]))
    }

    fn paused(self) -> Given {
        self.seen(|p| p.paused = true)
    }

    fn wanted(self, partitions: i32) -> Given {
        self.seen(|p| p.partitions = partitions)
    }

    /// The partitioning ends there.
    fn drains_at(self, end: i64) -> Given {
        self.seen(|p| {
            let checkpoints = p.checkpoints.iter_mut();
            checkpoints.for_each(|c| c.drain_at = Some(Position::new(end)));
        })
    }

    fn first_at(self, position: i64) -> Given {
        self.first(|c| c.position = Position::new(position))
    }

    fn until(self, head: i64) -> Given {
        self.local(|l| l.until = Some(Position::new(head)))
    }

    fn caught_up(self, partitions: &[i32]) -> Given {
        self.local(|l| l.caught_up.extend(partitions))
    }

    fn plan(&self) -> Vec<PlannedAction> {
        let view = View {
            revision: self.view,
            projection: self.projection.as_ref(),
            share: self.share,
        };
        plan(view, &self.local)
    }
}

fn check<const N: usize>(rows: [(&str, Given, Vec<PlannedAction>); N]) {
    for (what, given, expected) in rows {
        assert_eq!(given.plan(), expected, "{what}");
    }
}

#[test]
fn a_partition_is_started() {
    check([
        ("if it is free", given(), vec![Start(0), Start(1)]),
        ("up to the share", given().share(&[0]), vec![Start(0)]),
        ("its own first", given().share(&[1]), vec![Start(1)]),
        (
            "another one for one that cannot be had",
            given()
                .share(&[1])
                .ended_at(4)
                .seen(|p| p.checkpoints[1].stopped = true),
            vec![Start(0)],
        ),
        (
            "not beside enough others",
            given().share(&[0]).runs(&[1]),
            vec![],
        ),
        ("not if it runs here", given().runs(&[0]), vec![Start(1)]),
        ("not if it runs there", given().owner(OTHER), vec![Start(1)]),
        (
            "if it is ours by now",
            given().owner(ME),
            vec![Start(0), Start(1)],
        ),
        (
            "not again before the next view",
            given().ended_at(5),
            vec![Start(1)],
        ),
        (
            "again by the next view",
            given().ended_at(4),
            vec![Start(0), Start(1)],
        ),
        ("not in a pause", given().paused(), vec![]),
        (
            "not if it has caught up",
            given().caught_up(&[0]),
            vec![Start(1)],
        ),
        (
            "not if it stopped here",
            given().stopped_here(0),
            vec![Start(1)],
        ),
        (
            "not if it stopped since this instance began",
            given().first(|c| c.stopped = true),
            vec![Start(1)],
        ),
        (
            "beyond the share if it stopped before that, for older instances may not",
            given().share(&[]).first(|c| c.stopped_before = true),
            vec![Start(0)],
        ),
        (
            "beyond the share if it was not released, to hand it over once more",
            given().share(&[]).owner(ME).ended_at(3),
            vec![Start(0)],
        ),
        (
            "not if it may have been released while the view was read",
            given().share(&[]).owner(ME).ended_at(4),
            vec![],
        ),
        (
            "not at the end of its partitioning",
            given().wanted(3).drains_at(20).first_at(20),
            vec![Start(1)],
        ),
    ]);
}

#[test]
fn a_runner_is_ended() {
    let both = || given().runs(&[0, 1]);
    check([
        ("not within the share", both(), vec![]),
        (
            "if it is dealt to another",
            both().share(&[0]),
            vec![End(1)],
        ),
        ("whichever that is", both().share(&[1]), vec![End(0)]),
        (
            "not if the share is as large",
            given().runs(&[0]).share(&[1]),
            vec![],
        ),
        ("without a share", both().share(&[]), vec![End(0), End(1)]),
        ("in a pause", both().paused(), vec![End(0), End(1)]),
        (
            "once",
            both().share(&[]).local(|l| l.ending.extend([1])),
            vec![End(0)],
        ),
    ]);
}

#[test]
fn the_number_of_partitions_changes() {
    let both = || given().runs(&[0, 1]);
    check([
        (
            "if another one is wanted",
            both().wanted(3),
            vec![Repartition],
        ),
        (
            "not before all have drained",
            both().wanted(3).drains_at(20),
            vec![],
        ),
        (
            "once all have drained",
            given().wanted(3).drains_at(10),
            vec![Repartition],
        ),
        (
            "even if the old one is wanted again",
            given().drains_at(10),
            vec![Repartition],
        ),
        ("not in a pause", given().wanted(3).paused(), vec![]),
    ]);
}

#[test]
fn the_run_is_over() {
    let caught_up = || vec![Over(Finish::CaughtUp)];
    let stopped = |partition| vec![Over(Finish::Stopped(partition))];
    let both_stopped = given().seen(|p| p.checkpoints.iter_mut().for_each(|c| c.stopped = true));
    let first_stopped = || given().first(|c| c.stopped = true);
    let start_both = || vec![Start(0), Start(1)];
    check([
        ("at the head", given().until(10), caught_up()),
        ("also in a pause", given().until(10).paused(), caught_up()),
        ("not before the head", given().until(11), start_both()),
        (
            "not while a runner is at work",
            given().until(10).runs(&[0, 1]),
            vec![],
        ),
        (
            "if it has caught up here",
            given().until(11).caught_up(&[0, 1]),
            caught_up(),
        ),
        (
            "not before dead letters were tried again",
            given().until(10).first(|c| c.retries = true),
            start_both(),
        ),
        (
            "not before somebody has looked at what had stopped",
            given().until(10).first(|c| c.stopped_before = true),
            start_both(),
        ),
        ("if everything has stopped", both_stopped, stopped(0)),
        (
            "if the rest has caught up",
            given().until(10).stopped_here(1),
            stopped(1),
        ),
        (
            "not while the rest goes on",
            first_stopped().runs(&[1]),
            vec![],
        ),
        (
            "if the rest waits for a partitioning that cannot come",
            first_stopped().wanted(3).drains_at(10).first_at(5),
            stopped(0),
        ),
    ]);
}

#[test]
fn the_run_cannot_go_on() {
    let over = |finish| vec![Over(finish)];
    check([
        ("without its rows", given().absent(), over(Finish::Dropped)),
        (
            "but an old view may lack them",
            given().absent().local(|l| l.visible_from = 6),
            vec![],
        ),
        (
            "with another definition",
            given().seen(|p| p.hash.clear()),
            over(Finish::Changed),
        ),
        (
            "without one of its checkpoints",
            given().seen(|p| drop(p.checkpoints.pop())),
            over(Finish::NoCheckpoint),
        ),
        (
            "without any checkpoint",
            given().seen(|p| p.checkpoints.clear()),
            over(Finish::NoCheckpoint),
        ),
    ]);
}
