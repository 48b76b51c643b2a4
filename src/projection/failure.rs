//! The errors of a projection's own code, as highwater's errors.

use std::error::Error as StdError;
use std::iter::successors;

use crate::error::{BoxError, Error, EventRef};
use crate::event::RecordedEvent;
use crate::pg;

/// An error that a projection's code returned. One of highwater's stays as it is. Any other is of
/// the kind of the first error underneath that highwater or the driver made: a lost connection is
/// retried, however it is wrapped. Without such an error, an event counts as the cause.
pub(super) fn from_code(error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    let error = match error.downcast::<tokio_postgres::Error>() {
        Ok(error) => return pg::error("the projection's code failed", *error),
        Err(error) => error,
    };
    let outermost: &(dyn StdError + 'static) = &*error;
    let known = successors(Some(outermost), |error| (*error).source()).find_map(known);
    match known {
        Some(known) => known.wrapped_in(error),
        None => Error::poison(error),
    }
}

/// The same for code that was given one event.
pub(super) fn at_event(error: BoxError, event: &RecordedEvent) -> Error {
    let error = from_code(error);
    match error.event() {
        Some(_) => error,
        None => error.with_event(EventRef {
            position: event.position,
            id: event.id,
            event_type: event.event_type.clone(),
        }),
    }
}

fn known(error: &(dyn StdError + 'static)) -> Option<Error> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(error.clone());
    }
    let error = error.downcast_ref::<tokio_postgres::Error>()?;
    let known = Error::new(pg::kind_of(error), "the server refused it");
    Some(match error.code() {
        Some(code) => known.with_sqlstate(code.code()),
        None => known,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::error::ErrorKind;

    /// An error as users have them: a sentence of its own, and another error underneath.
    #[derive(Debug)]
    struct Wrapping(Error);

    impl fmt::Display for Wrapping {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot post to the ledger")
        }
    }

    impl StdError for Wrapping {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn fails() -> Result<(), BoxError> {
        "many".parse::<i64>()?;
        Ok(())
    }

    #[test]
    fn an_error_of_the_users_own_is_poison_and_says_what_it_says() {
        let error = from_code(fails().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Apply);
        assert_eq!(error.to_string(), "invalid digit found in string");
        let source = StdError::source(&error).unwrap();
        assert!(source.is::<std::num::ParseIntError>());
    }

    #[test]
    fn highwaters_error_comes_back_as_it_was() {
        let error = Error::transient("the exchange rates are not there").with_hint("wait");
        let text = error.to_string();
        let error = from_code(error.into());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_wrapped_error_keeps_the_kind_of_what_it_wraps() {
        let lost = Error::new(ErrorKind::ConnectionLost, "connection reset")
            .with_sqlstate("08006")
            .with_hint("look at the network");
        let error = from_code(Box::new(Wrapping(lost)));
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        assert_eq!(error.sqlstate(), Some("08006"));
        assert!(error.message().starts_with("cannot post to the ledger: "));
        let text = error.to_string();
        assert_eq!(text.matches("look at the network").count(), 1, "{text}");
    }
}
