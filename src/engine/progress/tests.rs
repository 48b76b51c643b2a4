use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::source::RangeSummary;

fn step(after: i64, through: i64, types: Option<&[&str]>) -> Step {
    let range = Range::new(Position::new(after), Position::new(through));
    Step {
        mark: range.through(),
        head: range.through(),
        passed: range,
        occurred: types.map(|types| {
            let mut occurred = RangeSummary::default();
            for &name in types {
                occurred.push(range.through(), Uuid::nil(), name.into());
            }
            occurred
        }),
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
    let c = ["C".to_owned()];
    assert!(progress.may_hold(Position::new(0), Some(&c)));
    assert!(!progress.may_hold(Position::new(99), Some(&c)), "the mark");
    progress.step(step(99, 100, Some(&["A"])));
    assert!(progress.may_hold(Position::new(0), Some(&c)));
    assert!(!progress.may_hold(Position::new(99), Some(&c)));
}

#[test]
fn whole_steps_tell_the_last_event_of_a_range_and_parts_of_steps_do_not() {
    let mut progress = Progress::default();
    progress.step(step(0, 10, None));
    progress.step(step(10, 12, Some(&["A", "B"])));
    progress.step(step(12, 15, Some(&[])));
    progress.step(step(15, 16, Some(&["B"])));
    let last = |after, through| {
        let range = Range::new(Position::new(after), Position::new(through));
        let last = progress.last_in(range)?;
        Some(last.map(|(position, _)| position.get()))
    };
    assert_eq!(last(10, 16), Some(Some(16)));
    assert_eq!(last(10, 15), Some(Some(12)));
    assert_eq!(last(12, 15), Some(None));
    for (after, through) in [(9, 16), (11, 16), (10, 14), (10, 17), (16, 17)] {
        assert_eq!(last(after, through), None, "({after}, {through}]");
    }
}

#[test]
fn a_mark_holds_on_a_connection_opened_before_its_session_was_last_confirmed() {
    let (mut publisher, mut subscriber) = channel(CancellationToken::new().drop_guard());
    let opened = Instant::now();
    let later = opened + std::time::Duration::from_millis(1);
    publisher.begin();
    assert!(!subscriber.covers(1, opened), "nothing is confirmed yet");
    publisher.step(step(0, 1, None), opened);
    assert!(!subscriber.covers(1, opened), "the server may have crashed");
    publisher.step(step(1, 2, None), later);
    assert!(subscriber.covers(1, opened));
    assert!(!subscriber.covers(1, later));
    publisher.begin();
    assert!(!subscriber.covers(1, opened), "the session is over");
    assert!(!subscriber.covers(2, opened));
}

#[test]
fn runners_hear_of_a_session_with_its_first_step() {
    let (mut publisher, subscriber) = channel(CancellationToken::new().drop_guard());
    publisher.begin();
    publisher.step(step(0, 7, None), Instant::now());
    publisher.begin();
    assert_eq!(subscriber.progress.borrow().session, 1);
    assert_eq!(subscriber.progress.borrow().mark, Position::new(7));
    publisher.step(step(7, 7, None), Instant::now());
    assert_eq!(subscriber.progress.borrow().session, 2);
}

#[tokio::test]
async fn who_waits_for_a_confirmation_hears_that_the_reader_has_given_up() {
    let (mut publisher, mut subscriber) = channel(CancellationToken::new().drop_guard());
    publisher.begin();
    let opened = Instant::now();
    publisher.step(step(0, 1, None), opened);
    assert!(!subscriber.covers(1, opened));
    let waiting = tokio::spawn(async move { subscriber.confirmed(1).await });
    tokio::task::yield_now().await;
    publisher.fail(Error::new(ErrorKind::Precondition, "CACHE 10"));
    drop(publisher);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
}
