use super::*;
use crate::runner_state::RunnerState;
use crate::source::Blocker;
use crate::status::{DefinitionState, Gap, PartitionStatus, State};

const LIVE: State = State::Runner(RunnerState::Live);

/// Live at position 10 of 50, which is the mark and what is waited for.
fn given() -> (ProjectionStatus, SourceStatus) {
    let partition = PartitionStatus {
        partition: 0,
        position: Position::new(10),
        state: LIVE,
        owner: None,
        epoch: 1,
    };
    let projection = ProjectionStatus {
        name: "files".parse().unwrap(),
        generation: 1,
        state: LIVE,
        position: Position::new(10),
        lag_events: None,
        lag_seconds: None,
        rate_per_second: 0.0,
        eta_seconds: None,
        partitions: vec![partition],
        parked_keys: 0,
        dead_letters: 0,
        blocked_by: Vec::new(),
        last_error: None,
        source: "default".into(),
        definition: DefinitionState::Same,
        rebuild: None,
        paused_at: None,
        change: None,
        gone: None,
    };
    let source = SourceStatus {
        name: "default".into(),
        head: Some(Position::new(50)),
        mark: Some(Position::new(50)),
        gap: None,
        problem: None,
    };
    (projection, source)
}

fn blocker() -> Blocker {
    Blocker {
        name: "3/1".into(),
        pid: Some(123),
        user: None,
        application: None,
        query: None,
        since: None,
        prepared: None,
        state: None,
    }
}

/// Each row adds a fault to those before it, which are reported later.
#[test]
fn the_reason_is_the_first_thing_that_has_to_change() {
    type Change = fn(&mut ProjectionStatus, &mut SourceStatus);
    let rows: [(Change, &str); 9] = [
        (|_, _| {}, "it is making progress"),
        (
            |p, _| p.eta_seconds = Some(60.0),
            "it needs about 60 s more",
        ),
        (
            |p, _| {
                let error = Error::new(ErrorKind::Locked, "no lock");
                p.last_error = Some(StoredError::new(&error, Position::new(10), 2));
            },
            "it failed and is retried: no lock",
        ),
        (
            |_, s| {
                s.mark = Some(Position::new(41));
                let (from, to) = (Position::new(42), Position::new(42));
                s.gap = Some(Gap {
                    from,
                    to,
                    blocked_by: vec![blocker()],
                });
            },
            "position 42 may still be filled by pid 123",
        ),
        (
            |p, _| p.blocked_by = vec![blocker()],
            "its batch waits for a lock held by pid 123",
        ),
        (
            |_, s| s.problem = Some(Arc::new(Error::new(ErrorKind::Precondition, "CACHE 20"))),
            "CACHE 20",
        ),
        (|p, _| p.state = State::Idle, "no instance runs it"),
        (|p, _| p.partitions.clear(), "it was never run"),
        (
            |_, s| s.head = Some(Position::new(49)),
            "no event is there yet, the head is 49",
        ),
    ];
    let (mut projection, mut source) = given();
    let (now, goal) = (Timestamp::UNIX_EPOCH, Position::new(50));
    for (change, expected) in rows {
        change(&mut projection, &mut source);
        let found = reason(&projection, Some(&source), now, goal);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_pause_comes_before_what_else_is_wrong_and_a_gap_above_the_goal_is_no_obstacle() {
    let (now, goal) = (Timestamp::UNIX_EPOCH, Position::new(50));
    let (mut projection, mut source) = given();
    let (from, to) = (Position::new(51), Position::new(51));
    let blocked_by = vec![blocker()];
    source.gap = Some(Gap {
        from,
        to,
        blocked_by,
    });
    assert_eq!(obstacle(&projection, Some(&source), now, goal), None);
    projection.state = State::Idle;
    projection.paused_at = Some(now);
    source.problem = Some(Arc::new(Error::new(ErrorKind::Precondition, "CACHE 20")));
    let found = reason(&projection, Some(&source), now, goal);
    assert_eq!(found, "it is paused; highwater resume files resumes it");
}
