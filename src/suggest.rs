//! Suggests the word that was probably meant.

/// The word of `known` that `word` was probably meant to be: at most a third of it differs. Two
/// letters that changed places are one difference; case is none.
pub(crate) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    let allowed = (length / 3).max(1);
    known
        .iter()
        // A word may be of any length, and comparing takes the product of both.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| {
            (
                strsim::osa_distance(&word, &candidate.to_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean b? (known: a, b, c)`, or only the known words.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match closest(word, known) {
        Some(close) => format!("did you mean {close}? (known: {list})"),
        None => format!("known: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keys_finds_the_word_and_another_word_does_not() {
        let known = ["events", "source", "key", "partitions", "on_error"];
        for (word, expected) in [
            ("event", Some("events")),
            ("Partition", Some("partitions")),
            ("on-error", Some("on_error")),
            ("kye", Some("key")),
            ("kee", Some("key")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(word, &known), expected, "{word}");
        }
        assert_eq!(closest("", &[]), None);
        assert_eq!(closest(&"x".repeat(10_000_000), &known), None);
    }
}
