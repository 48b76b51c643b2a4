use super::*;

#[test]
fn half_of_the_events_are_tried_next_and_the_last_one_with_all_that_is_left() {
    let at = Position::new;
    for (count, first, middle, tried) in [(1, 7, 7, 20), (2, 7, 7, 7), (5, 3, 9, 9)] {
        let events = Midpoint {
            count,
            first: at(first),
            middle: at(middle),
        };
        let isolation = Isolation(Some(Bisection::of(at(20), &events)));
        assert_eq!(isolation.bound(at(100)), at(tried), "{count} events");
    }
    let mut isolation = Isolation::default();
    assert_eq!(isolation.bound(at(100)), at(100));
    isolation.pass_before(at(8));
    assert_eq!(isolation.bound(at(100)), at(7));
    assert_eq!(isolation.bound(at(5)), at(5));
}
