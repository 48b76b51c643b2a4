use proptest::prelude::*;

use super::*;

#[test]
fn durations_are_read_with_their_units() {
    let milliseconds = |text| parse_duration(text).expect(text).as_millis();
    assert_eq!(milliseconds("5s"), 5_000);
    assert_eq!(milliseconds("200ms"), 200);
    assert_eq!(milliseconds("1m30s"), 90_000);
    assert_eq!(milliseconds("1d2h3m4s5ms"), 93_784_005);
    assert_eq!(milliseconds("7"), 7_000);
    assert_eq!(milliseconds(" 0s "), 0);
}

#[test]
fn what_is_no_duration_is_refused_with_an_example() {
    for text in [
        "",
        "s",
        "5x",
        "5 s",
        "-5s",
        "+5",
        "1s1m",
        "1s1s",
        "1.5s",
        "99999999999999999d",
    ] {
        let error = parse_duration(text).expect_err(text).to_string();
        assert!(
            error.ends_with("; write it like 200ms, 5s, 1m30s or 2h"),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(milliseconds: u64) {
        let duration = Duration::from_millis(milliseconds);
        prop_assert_eq!(parse_duration(&format_duration(duration)).ok(), Some(duration));
    }
}
