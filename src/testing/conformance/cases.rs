//! The cases, each a sentence about a source.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Case, Followed, LIMIT, answer, event, everything, positions};
use crate::event::{NewEvent, RecordedEvent};
use crate::position::{Position, Range};
use crate::source::{EventKey, Filter, Keys, Parked, Partition, RangeSummary, ReadRequest, Tally};

pub(super) async fn an_empty_log_has_no_events_and_head_0(case: &Case) {
    let source = case.source();
    assert_eq!(answer(source.head().await), Position::START);
    assert_eq!(answer(source.last_at(Position::new(9)).await), None);
    let range = Range::new(Position::START, Position::new(9));
    let batch = answer(source.read(everything(range)).await);
    assert_eq!((batch.range, batch.events.len()), (range, 0));
    assert_eq!(answer(source.first(range).await), None);
    let state = answer(source.log_state(Position::START, None).await);
    assert_eq!((state.oldest, state.last), (None, None));
    let step = Followed::from_start(&*source).await.step().await;
    assert_eq!((step.mark, step.gap), (Position::START, None));
}

pub(super) async fn events_are_read_in_order_as_they_were_appended(case: &Case) {
    let id = uuid::Uuid::new_v4();
    let mut first = answer(NewEvent::new("A", &json!({ "text": "ä\"漢" })));
    first.id = Some(id);
    let appended = [
        case.subject.append("one", first).await,
        case.append("two", "B").await,
        case.append("one", "C").await,
    ];
    let events = case.all().await;
    assert_eq!(positions(&events), appended);
    assert!(appended.is_sorted_by(|a, b| a < b), "{appended:?}");
    let appended: Vec<_> = events
        .iter()
        .map(|e| (e.stream.as_str(), e.version, e.event_type.as_str()))
        .collect();
    assert_eq!(
        appended,
        [("one", 1, "A"), ("two", 1, "B"), ("one", 2, "C")]
    );
    assert_eq!(events[0].id, id);
    let data: serde_json::Value = serde_json::from_str(events[0].data.get()).unwrap_or_default();
    assert_eq!(data, json!({ "text": "ä\"漢" }));
}

pub(super) async fn every_connection_sees_the_same_log(case: &Case) {
    let last = case.append("one", "A").await;
    let (source, other) = (case.source(), case.source());
    assert_eq!(source.name(), other.name());
    let identity = answer(source.identity().await);
    assert_eq!(answer(other.identity().await), identity);
    let state = answer(other.log_state(last, Some(last)).await);
    assert_eq!(state.identity, identity);
    answer(source.check().await);
}

pub(super) async fn only_the_wanted_types_are_read(case: &Case) {
    let mut wanted = Vec::new();
    for name in ["A", "B", "A", "C", "B"] {
        let position = case.append("one", name).await;
        wanted.extend((name != "A").then_some(position));
    }
    let source = case.source();
    let range = Range::new(Position::START, answer(source.head().await));
    for (types, expected) in [
        (vec!["B".to_owned(), "C".to_owned()], wanted),
        (vec!["D".to_owned()], vec![]),
    ] {
        let request = ReadRequest {
            types: Some(&types),
            ..everything(range)
        };
        let batch = answer(source.read(request).await);
        assert_eq!(positions(&batch.events), expected, "{types:?}");
        assert_eq!(batch.range, range, "nothing was cut");
    }
}

pub(super) async fn a_read_ends_at_its_limit_of_events_and_says_how_far_it_came(case: &Case) {
    let appended = case.append_many(10).await;
    let (events_max, bytes_max) = (3, usize::MAX);
    let batches = read_to_the_end(case, events_max, bytes_max).await;
    assert!(batches.iter().all(|batch| batch.len() <= events_max));
    assert_eq!(positions(&batches.concat()), appended);
}

pub(super) async fn a_read_ends_at_its_limit_of_bytes_and_a_larger_event_comes_alone(case: &Case) {
    let mut appended = Vec::new();
    for size in [10, 10, 300_000, 10, 3_000_000, 10] {
        let event = answer(NewEvent::new("T", &json!({ "text": "x".repeat(size) })));
        appended.push(case.subject.append("one", event).await);
    }
    let (events_max, bytes_max) = (1_000_000, 100_000);
    let batches = read_to_the_end(case, events_max, bytes_max).await;
    for batch in &batches {
        let sizes: Vec<usize> = batch.iter().map(|e| e.data.get().len()).collect();
        let fits = sizes.iter().sum::<usize>() <= bytes_max;
        assert!(fits || sizes.len() == 1, "{sizes:?}");
    }
    assert_eq!(positions(&batches.concat()), appended);
}

/// The batches of reads with these limits, each from where the one before ended.
async fn read_to_the_end(
    case: &Case,
    events_max: usize,
    bytes_max: usize,
) -> Vec<Vec<RecordedEvent>> {
    let source = case.source();
    let end = answer(source.head().await);
    let mut after = Position::START;
    let mut batches = Vec::new();
    while after < end {
        let request = ReadRequest {
            events_max,
            bytes_max,
            ..everything(Range::new(after, end))
        };
        let batch = answer(source.read(request).await);
        assert_eq!(batch.range.after(), after);
        assert!(batch.range.through() > after, "a read comes further");
        after = batch.range.through();
        let last = batch.events.last().map(|event| event.position);
        assert!(last.is_none_or(|last| last <= after), "it covers it");
        batches.push(batch.events);
    }
    batches
}

pub(super) async fn the_last_event_at_a_position_is_found_also_in_a_hole(case: &Case) {
    let first = case.append("one", "A").await;
    case.subject.burn(5).await;
    let second = case.append("one", "B").await;
    let events = case.all().await;
    let source = case.source();
    let last = |at: Position| source.last_at(at);
    let known = |at: usize| Some((events[at].position, events[at].id));
    assert_eq!(answer(last(first.previous()).await), None);
    assert_eq!(answer(last(first).await), known(0));
    assert_eq!(answer(last(second.previous()).await), known(0));
    assert_eq!(answer(last(second).await), known(1));
    assert_eq!(answer(last(second.forward(9)).await), known(1));
    let state = answer(source.log_state(second, Some(second)).await);
    assert_eq!(state.last, known(1));
    assert_eq!(state.oldest, Some(first));
    assert!(state.reached >= second);
    let rest = Range::new(first, second);
    assert_eq!(answer(source.first(rest).await), Some(second));
}

pub(super) async fn the_mark_passes_holes(case: &Case) {
    case.append("one", "A").await;
    case.subject.burn(3).await;
    let last = case.append("one", "B").await;
    let source = case.source();
    Followed::from_start(&*source).await.reaches(last).await;
    assert_eq!(answer(source.head().await), last);
}

pub(super) async fn steps_follow_each_other_and_say_what_occurred(case: &Case) {
    let source = case.source();
    let mut followed = Followed::from_start(&*source).await;
    let mut appended = Vec::new();
    for name in ["A", "B", "A"] {
        appended.push(case.append("one", name).await);
        followed.reaches(appended[appended.len() - 1]).await;
    }
    for step in followed.steps {
        let Some(summary) = step.occurred else {
            continue;
        };
        let batch = answer(source.read(everything(step.passed)).await);
        let mut expected = RangeSummary::default();
        for event in batch.events {
            expected.push(event.position, event.id, event.event_type.into());
        }
        assert_eq!(summary, expected);
    }
}

pub(super) async fn the_mark_waits_for_a_late_commit(case: &Case) {
    let before = case.append("one", "A").await;
    let Some(pending) = case.subject.begin("two", event("B")).await else {
        return;
    };
    let after = case.append("three", "C").await;
    assert!(before < pending.position && pending.position < after);
    let source = case.source();
    let mut followed = Followed::from_start(&*source).await;
    followed.reaches(before).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        let step = followed.step().await;
        assert_eq!(
            step.mark, before,
            "a position before it may still be filled"
        );
    }
    let gap = followed.steps.last().and_then(|step| step.gap.clone());
    assert_eq!(gap.map(|gap| gap.from), Some(pending.position));
    let expected = [before, pending.position, after];
    pending.ending.commit().await;
    followed.reaches(after).await;
    assert_eq!(positions(&case.all().await), expected);
}

pub(super) async fn the_mark_passes_what_was_rolled_back(case: &Case) {
    let Some(pending) = case.subject.begin("one", event("A")).await else {
        return;
    };
    let after = case.append("two", "B").await;
    let source = case.source();
    let mut followed = Followed::from_start(&*source).await;
    assert!(followed.step().await.mark < pending.position);
    pending.ending.roll_back().await;
    followed.reaches(after).await;
    assert_eq!(positions(&case.all().await), [after]);
}

fn of_keys(partition: Partition, parked: Parked<'_>) -> Keys<'_> {
    Keys {
        key: Keys::STREAM,
        partition,
        parked,
    }
}

pub(super) async fn partitions_share_the_events_out_and_parked_keys_are_left_out(case: &Case) {
    let appended = case.append_many(30).await;
    let source = case.source();
    let all = everything(Range::new(Position::START, answer(source.head().await)));
    let mut shared = Vec::new();
    for number in 0..3 {
        let partition = Partition { number, of: 3 };
        let keys = of_keys(partition, Parked::With);
        let keyed = answer(source.read_keyed(all, keys).await);
        for (key, event) in &keyed.events {
            assert_eq!(key.as_deref(), Some(event.stream.as_str()));
            assert!(partition.holds(key.as_deref()));
        }
        shared.extend(keyed.events.iter().map(|(_, event)| event.position));
    }
    shared.sort_unstable();
    assert_eq!(shared, appended);

    let parked: [EventKey; 1] = [Some("s-3".to_owned())];
    for (which, is_parked) in [
        (Parked::Without(&parked), false),
        (Parked::Only(&parked), true),
    ] {
        let batch = answer(
            source
                .read_keys(all, of_keys(Partition::WHOLE, which))
                .await,
        );
        assert!(!batch.events.is_empty());
        let fits = |stream: &str| (stream == "s-3") == is_parked;
        assert!(batch.events.iter().all(|event| fits(&event.stream)));
    }
}

pub(super) async fn ranges_are_halved_and_counted(case: &Case) {
    let appended = case.append_many(9).await;
    let source = case.source();
    let range = Range::new(Position::START, answer(source.head().await));
    let middle = answer(source.middle(range, Filter::ALL).await);
    let middle = middle.map(|m| (m.count, m.first, m.middle));
    assert_eq!(middle, Some((9, appended[0], appended[4])));
    let nothing = Filter::of_types(Some(&[]));
    assert_eq!(answer(source.middle(range, nothing).await), None);

    let mut expected = Tally::default();
    let events = case.all().await;
    for event in &events[..4] {
        expected.add(event.position, event.id);
    }
    let counted = answer(source.tally(range, 4).await);
    assert_eq!(counted, (appended[3], expected));
    let rest = Range::new(appended[3], range.through());
    let (through, tally) = answer(source.tally(rest, 1_000).await);
    assert_eq!((through, tally.events), (range.through(), 5));
}

pub(super) async fn the_lag_is_measured_from_the_head(case: &Case) {
    let appended = case.append_many(3).await;
    let source = case.source();
    let lag = answer(source.lag(&[Position::START, appended[2]]).await);
    assert_eq!(lag.head, appended[2]);
    assert_eq!(lag.ages.len(), 2, "one for each position");
    assert!(lag.ages[0].is_none_or(|age| age >= 0.0));
    assert!(
        lag.ages[1].is_none_or(|age| age == 0.0),
        "nothing lies after the head"
    );
}

pub(super) async fn a_log_that_went_back_does_not_look_as_it_did(case: &Case) {
    let appended = case.append_many(3).await;
    let at = appended[2];
    let before = answer(case.source().log_state(at, Some(at)).await);
    if !case.subject.rewind(appended[1]).await {
        return;
    }
    let after = answer(case.source().log_state(at, Some(at)).await);
    assert!(after.reached < at, "positions went back: {after:?}");
    assert_ne!(after.last, before.last);
    case.append("another", "T").await;
    let again = answer(case.source().log_state(at, Some(at)).await);
    assert_ne!(again.last, before.last, "another event has its position");
}

pub(super) async fn removed_events_are_known_to_be_removed(case: &Case) {
    let appended = case.append_many(5).await;
    if !case.subject.remove_through(appended[1]).await {
        return;
    }
    let source = case.source();
    assert_eq!(positions(&case.all().await), appended[2..]);
    let state = answer(source.log_state(appended[4], Some(appended[4])).await);
    assert_eq!(state.oldest, Some(appended[2]));
    let Some(removed) = state.removed else {
        return;
    };
    assert_eq!(removed.through, appended[1]);
    assert!(removed.contains(appended[0]) && !removed.contains(appended[2]));
    assert_eq!(answer(source.removed_through().await), appended[1]);
}

pub(super) async fn an_append_wakes(case: &Case) {
    let source = case.source();
    let Some(mut wakes) = answer(source.wakes().await) else {
        return;
    };
    case.append("one", "A").await;
    let woken = tokio::time::timeout(LIMIT, wakes.next()).await;
    assert!(matches!(woken, Ok(Ok(()))), "nobody was woken: {woken:?}");
}

pub(super) async fn reads_succeed_again_after_connections_were_cut(case: &Case) {
    let source = case.source();
    let first = case.append("one", "A").await;
    let mut followed = Followed::from_start(&*source).await;
    followed.reaches(first).await;
    if !case.subject.disconnect().await {
        return;
    }
    assert!(followed.follower.step().await.is_err(), "it was cut");
    let last = case.append("one", "B").await;
    let began = Instant::now();
    while let Err(error) = source.head().await {
        assert!(began.elapsed() < LIMIT, "it stays cut: {error}");
    }
    Followed::from_start(&*source).await.reaches(last).await;
    assert_eq!(positions(&case.all().await), [first, last]);
}
