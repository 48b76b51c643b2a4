//! Errors of other code, and what highwater does about them.

use std::error::Error as StdError;
use std::iter::successors;

use super::{BoxError, Error, ErrorKind};

impl Error {
    /// An error of a projection's own code that an event causes: the projection stops at that event
    /// or parks its key, as `on_error` says.
    pub fn poison(error: impl Into<BoxError>) -> Error {
        Error::caused_by(ErrorKind::Apply, error.into())
    }

    /// An error of a projection's own code that may pass by itself: the batch is retried until it
    /// succeeds, ever more slowly.
    pub fn transient(error: impl Into<BoxError>) -> Error {
        Error::caused_by(ErrorKind::Unavailable, error.into())
    }

    fn caused_by(kind: ErrorKind, error: BoxError) -> Error {
        Error::new(kind, with_causes(&*error)).with_source(error)
    }

    /// This error as the source of `outer`, with the message of both.
    pub(crate) fn wrapped_in(mut self, outer: BoxError) -> Error {
        self.0.what = with_causes(&*outer);
        self.0.location = None;
        self.with_source(outer)
    }
}

/// The message of an error, with those of its sources unless it quotes them.
fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = said_by(error);
    for cause in successors(error.source(), |cause| (*cause).source()) {
        let said = said_by(cause);
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}

/// Without the hint for our own errors: that follows at the end.
fn said_by(error: &(dyn StdError + 'static)) -> String {
    match error.downcast_ref::<Error>() {
        Some(ours) => ours.message().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_all_causes_say_once() {
        let cause = std::io::Error::other("connection refused");
        let quoting =
            std::io::Error::other(Error::new(ErrorKind::Io, "no rates").with_source(cause));
        let error = Error::transient(quoting);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "no rates: connection refused");
        assert_eq!(
            Error::poison("negative amount").to_string(),
            "negative amount"
        );
    }

    #[test]
    fn the_source_of_an_error_can_be_reached_with_its_type() {
        let error = Error::poison(std::io::Error::other("x"));
        let source = StdError::source(&error).unwrap();
        assert!(source.is::<std::io::Error>());
        let copy = error.clone();
        assert!(StdError::source(&copy).unwrap().is::<std::io::Error>());
    }
}
