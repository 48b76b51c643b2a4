//! The word that was probably meant.

/// The word of `known` that `word` was probably meant to be: at most a third of it differs.
pub(crate) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `known words are a, b, c`, and before it the near match, if there is one.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match closest(word, known) {
        Some(near) => format!("did you mean {near}? (known: {list})"),
        None => format!("known: {list}"),
    }
}

/// Insertions, deletions and replacements between two words, case ignored.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            last = replaced.min(last + 1).min(diagonal + 1);
            *cell = last;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keys_finds_the_word_and_another_word_does_not() {
        let known = ["events", "source", "key", "partitions", "on_error"];
        assert_eq!(closest("event", &known), Some("events"));
        assert_eq!(closest("Partition", &known), Some("partitions"));
        assert_eq!(closest("on-error", &known), Some("on_error"));
        assert_eq!(closest("kye", &known), None);
        assert_eq!(closest("kee", &known), Some("key"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(closest("", &[]), None);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (left, right, expected) in [("", "", 0), ("kitten", "sitting", 3), ("a", "", 1)] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }
}
