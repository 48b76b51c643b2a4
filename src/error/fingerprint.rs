//! What is alike in errors of one cause.

use sha2::{Digest, Sha256};

use super::Error;

impl Error {
    /// What is alike in errors of one cause, as twelve hexadecimal digits: kind, SQLSTATE, place and
    /// the message without what differs from event to event. Numbers, ids and what the server
    /// quotes of the data are left out; the names of tables, columns and constraints are kept.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        let message = without_values(self.message());
        let parts = [
            self.kind().as_str(),
            self.sqlstate().unwrap_or_default(),
            self.location().unwrap_or_default(),
            &message,
        ];
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize();
        digest[..6].iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The message with `#` for each word that has a digit in it, and without text in parentheses (the
/// server's detail) or in quotes after a colon (a value).
fn without_values(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(next) = rest.chars().next() {
        let taken = if let Some(value) = rest.strip_prefix(": \"") {
            text.push(':');
            // Up to the last quote: the value may hold quotes itself.
            value.rfind('"').map_or(value.len(), |end| end + 1) + 3
        } else if next == '(' {
            rest.rfind(')').map_or(1, |end| end + 1)
        } else if next.is_alphanumeric() {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'));
            let word = &rest[..end.unwrap_or(rest.len())];
            let has_digit = word.contains(|c: char| c.is_ascii_digit());
            text.push_str(if has_digit { "#" } else { word });
            word.len()
        } else {
            text.push(next);
            next.len_utf8()
        };
        rest = &rest[taken..];
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn print(message: &str) -> String {
        Error::new(ErrorKind::Apply, message)
            .with_sqlstate("22P02")
            .fingerprint()
    }

    #[test]
    fn errors_of_one_cause_are_alike_whatever_the_event_says() {
        for (one, other) in [
            (
                "apply failed: invalid input syntax for type bigint: \"many\"",
                "apply failed: invalid input syntax for type bigint: \"a \"few\"\"",
            ),
            (
                "duplicate key value violates unique constraint \"t_pkey\" (Key (id)=(7) already exists.)",
                "duplicate key value violates unique constraint \"t_pkey\" (Key (id)=(x (y)) already exists.)",
            ),
            (
                "event 13db215e-9a36-4f52-89f1-41d873fec787 has no cents at line 1 column 20",
                "event 5f6c1c9e-0000-4f52-aaaa-41d873fec787 has no cents at line 3 column 4",
            ),
        ] {
            assert_eq!(print(one), print(other), "{}", without_values(one));
        }
    }

    #[test]
    fn errors_of_two_causes_differ() {
        let error = |kind, location: &str, code: &str, message: &str| {
            let error = Error::new(kind, message)
                .with_location(location)
                .with_sqlstate(code);
            error.fingerprint()
        };
        let first = error(
            ErrorKind::Apply,
            "a.sql: line 3",
            "23505",
            "violates \"t_pkey\"",
        );
        assert_eq!(first.len(), 12);
        for other in [
            error(
                ErrorKind::Undigestible,
                "a.sql: line 3",
                "23505",
                "violates \"t_pkey\"",
            ),
            error(
                ErrorKind::Apply,
                "a.sql: line 4",
                "23505",
                "violates \"t_pkey\"",
            ),
            error(
                ErrorKind::Apply,
                "a.sql: line 3",
                "23503",
                "violates \"t_pkey\"",
            ),
            error(
                ErrorKind::Apply,
                "a.sql: line 3",
                "23505",
                "violates \"u_pkey\"",
            ),
        ] {
            assert_ne!(first, other);
        }
    }

    proptest! {
        #[test]
        fn any_message_has_a_fingerprint(message: String) {
            prop_assert_eq!(print(&message).len(), 12);
        }
    }
}
