use super::*;

const ME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn local() -> Local {
    Local {
        me: ME,
        generation: 1,
        partitioning: 1,
        running: BTreeSet::from([0]),
        ..Local::default()
    }
}

fn observed(generation: i32, partitioning: i32, owner: Option<Uuid>) -> ObservedProjection {
    ObservedProjection {
        name: "p".to_owned(),
        generation,
        hash: String::new(),
        partitions: 1,
        paused: false,
        checkpoints: vec![ObservedCheckpoint {
            partition: 0,
            partitions: 1,
            partitioning,
            position: Position::START,
            drain_at: None,
            owner,
            stopped: false,
            stopped_before: false,
            retries: false,
            error: None,
        }],
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "why")
}

#[test]
fn what_follows_from_the_end_of_a_runner() {
    let rows: [(&str, Ended, u64, [bool; 3]); 8] = [
        // How long until the next poll in ms, caught up, stopped, final.
        ("asked to end", Ended::Drained, 0, [false, false, false]),
        (
            "partitioning ends",
            Ended::Repartitioned,
            0,
            [false, false, false],
        ),
        ("batch in flight", Ended::Busy, 100, [false, false, false]),
        (
            "lost",
            Ended::Lost(error(ErrorKind::Fenced)),
            0,
            [false, false, false],
        ),
        ("caught up", Ended::CaughtUp, 0, [true, false, false]),
        (
            "stopped",
            Ended::Stopped(error(ErrorKind::Apply)),
            0,
            [false, true, false],
        ),
        (
            "changed",
            Ended::Stopped(error(ErrorKind::Changed)),
            0,
            [false, true, true],
        ),
        (
            "dropped",
            Ended::Stopped(error(ErrorKind::NotFound)),
            0,
            [false, true, true],
        ),
    ];
    for (what, ended, poll_after, expected) in rows {
        let mut local = local();
        let after = local.ended(local.id(0), ended, 7);
        assert_eq!(
            after.poll_after,
            Duration::from_millis(poll_after),
            "{what}"
        );
        let is_stopped = local.stopped.contains_key(&0);
        let found = [local.caught_up.contains(&0), is_stopped, after.is_final];
        assert_eq!(found, expected, "{what}");
        assert!(local.running.is_empty(), "{what}");
        assert_eq!(local.ended_at.get(&0), Some(&7), "{what}");
    }
}

#[test]
fn the_result_of_a_runner_from_before_says_nothing_about_the_partitions_of_now() {
    for ended in [Ended::CaughtUp, Ended::Stopped(error(ErrorKind::NotFound))] {
        let mut local = local();
        let before = local.id(0);
        local.partitioning = 2;
        let after = local.ended(before, ended, 7);
        assert!(!after.is_final);
        assert!(local.caught_up.is_empty() && local.stopped.is_empty());
        assert!(local.running.is_empty());
    }
}

#[test]
fn what_is_known_is_forgotten_with_the_generation_or_the_partitioning_and_once_a_stop_is_overcome()
{
    let rows = [
        ("nothing new", observed(1, 1, None), true, true),
        ("the same owner", observed(1, 1, Some(ME)), true, true),
        (
            "taken up by another",
            observed(1, 1, Some(OTHER)),
            true,
            false,
        ),
        ("swapped", observed(2, 1, None), false, false),
        ("repartitioned", observed(1, 2, None), false, false),
    ];
    for (what, observed, keeps, keeps_stop) in rows {
        let mut local = local();
        local.ended_at.insert(0, 3);
        local.caught_up.insert(0);
        local.stopped.insert(0, error(ErrorKind::Apply));
        local.observe(&observed);
        assert_eq!(local.caught_up.contains(&0), keeps, "{what}");
        assert_eq!(local.ended_at.contains_key(&0), keeps, "{what}");
        assert_eq!(local.stopped.contains_key(&0), keeps_stop, "{what}");
        assert!(local.running.contains(&0), "{what}: runners go on");
    }
}

#[test]
fn a_stop_is_reported_with_the_error_of_this_runner_or_the_stored_one() {
    let mut local = local();
    let stored = StoredError {
        kind: "diverged".into(),
        message: "it went back".into(),
        hint: Some("accept it".into()),
        ..StoredError::default()
    };
    let shown = |local: &Local, stored: Option<&StoredError>| {
        let error = local.error_of(0, stored);
        (
            error.kind(),
            error.message().to_owned(),
            error.hint().map(str::to_owned),
        )
    };
    let (kind, message, hint) = shown(&local, Some(&stored));
    assert_eq!(
        (kind, &*message, hint.as_deref()),
        (ErrorKind::Diverged, "it went back", Some("accept it"))
    );
    let (kind, message, hint) = shown(&local, None);
    assert_eq!((kind, hint), (ErrorKind::Apply, None));
    assert_eq!(message, "it was stopped, and no error is stored");
    local.stopped.insert(0, error(ErrorKind::Apply));
    assert_eq!(shown(&local, Some(&stored)).1, "why");
}

#[test]
fn a_build_that_runs_alone_ends_as_its_worst_runner_does_and_the_first_error_counts() {
    let sum = |ends: Vec<Ended>| ends.into_iter().fold(Outcome::CaughtUp, worse);
    let stopped = |what: &str| Ended::Stopped(Error::new(ErrorKind::Apply, what));
    assert!(matches!(
        sum(vec![Ended::CaughtUp, Ended::CaughtUp]),
        Outcome::CaughtUp
    ));
    for ended in [Ended::Drained, Ended::Repartitioned, Ended::Busy] {
        assert!(matches!(
            sum(vec![ended, Ended::CaughtUp]),
            Outcome::Drained
        ));
    }
    let outcome = sum(vec![
        Ended::Drained,
        stopped("first"),
        stopped("second"),
        Ended::CaughtUp,
    ]);
    assert_eq!(outcome.error().map(Error::message), Some("first"));
    let lost = sum(vec![Ended::Lost(error(ErrorKind::Fenced))]);
    assert!(matches!(lost, Outcome::Stopped(_)));
}
