//! How a command ends: exit codes, and errors as they are printed.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// The command has succeeded.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line, the configuration or a projection's file is wrong.
    Usage = 2,
    /// Caught up, but with parked keys.
    Parked = 3,
    /// A projection is stopped.
    Stopped = 4,
    /// `--timeout` ran out.
    TimedOut = 124,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of a command that failed with an error of this kind.
    pub(super) const fn of(kind: ErrorKind) -> Exit {
        match kind.exit_code() {
            2 => Exit::Usage,
            // Also for the kind `TimedOut`: 124 is about `--timeout`, which a command handles
            // itself.
            _ => Exit::Failed,
        }
    }
}

/// How a command ended.
pub(super) type Done = Result<Exit, Failure>;

/// Why a command failed: one error, or all faults of several files.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Vec<Error>);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(vec![error])
    }
}

impl From<crate::cluster::Error> for Failure {
    fn from(error: crate::cluster::Error) -> Failure {
        Error::from(error).into()
    }
}

impl From<Vec<Error>> for Failure {
    fn from(errors: Vec<Error>) -> Failure {
        Failure(errors)
    }
}

impl Failure {
    /// The exit code: that of the first error.
    pub(super) fn exit(&self) -> Exit {
        let first = self.0.first();
        first.map_or(Exit::Failed, |error| Exit::of(error.kind()))
    }

    /// Whether our output is no longer read, which is not a failure.
    pub(super) fn is_closed_pipe(&self) -> bool {
        self.0.iter().any(|error| {
            let cause = std::error::Error::source(error);
            let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
            cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
        })
    }
}

/// An error as `--json` shows it.
pub(super) fn to_json(error: &Error) -> Value {
    let event = error.event();
    json!({
        "kind": error.kind().as_str(),
        "message": error.message(),
        "sqlstate": error.sqlstate(),
        "hint": error.hint(),
        "location": error.location(),
        "event_id": event.map(|event| event.id),
        "position": event.map(|event| event.position),
    })
}

/// A signal came while nothing could be finished.
pub(super) fn interrupted() -> Error {
    Error::new(ErrorKind::Io, "interrupted before it was finished").with_hint("run it again")
}

/// A bug of ours.
pub(super) fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "this is a bug in highwater").with_hint(
        "report it with the message above; what was committed stays, the rest is rolled back",
    )
}

/// Prints clap's answer: help and version on stdout, errors on stderr.
pub(super) fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    // A closed pipe does not matter here.
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Done;
    }
    match complaint(error, arguments) {
        // As clap prints it, in colours where they are seen.
        None => drop(error.print()),
        Some(text) => drop(writeln!(std::io::stderr(), "{text}")),
    }
    Exit::Usage
}

/// Clap's answer where it cannot be printed as it is: as JSON, or without a password.
pub(super) fn complaint(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let answer = error.to_string();
    let text = arguments.iter().fold(answer.clone(), without_password);
    if !arguments.iter().any(|argument| argument == "--json") {
        return (text != answer).then_some(text);
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let what = text.split("\n\n").next().unwrap_or_default();
    let error = Error::new(ErrorKind::Usage, what.replace('\n', " ")).with_hint("see --help");
    Some(json!({ "error": to_json(&error) }).to_string())
}

/// A connection string in a wrong place is quoted by clap like any other argument.
fn without_password(text: String, argument: &OsString) -> String {
    let argument = argument.to_string_lossy();
    if !(argument.contains("://") || argument.contains("password")) {
        return text;
    }
    text.replace(argument.as_ref(), "(a connection string)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_are_promised() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Parked, 3),
            (Exit::Stopped, 4),
            (Exit::TimedOut, 124),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code);
        }
        for &kind in ErrorKind::ALL {
            assert_eq!(Exit::of(kind) as u8, kind.exit_code(), "{kind}");
        }
    }

    #[test]
    fn only_a_closed_pipe_of_our_own_is_quiet() {
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let ours = Error::new(ErrorKind::Io, "cannot write").with_source(broken());
        assert!(Failure::from(ours).is_closed_pipe());
        let other = Error::new(ErrorKind::Io, "cannot write");
        assert!(!Failure::from(other).is_closed_pipe());
    }
}
