//! The kinds of errors: one table, from which everything that depends on a kind is derived.

use std::fmt;
use std::str::FromStr;

use super::Error;
use crate::suggest::suggestion;

/// What a runner does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may pass by itself: retry for ever, ever more slowly.
    Transient,
    /// An event of the batch causes it: find that event, then stop there or park its key.
    Poison,
    /// Neither a retry nor leaving out an event would help: stop.
    Fatal,
}

/// Declares [`ErrorKind`]. A row is `Kind = (name, verdict, exit code, default hint)`.
macro_rules! error_kinds {
    ($(
        $(#[doc = $doc:literal])+
        $kind:ident = ($name:literal, $verdict:ident, $exit_code:literal, $hint:expr),
    )+) => {
        /// What kind of failure it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)+];

            /// The kind as status, logs and metrics name it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorKind::$kind => $name,)+
                }
            }

            /// What a runner does about it.
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(ErrorKind::$kind => Verdict::$verdict,)+
                }
            }

            /// The exit code of a command that fails with it.
            pub const fn exit_code(self) -> u8 {
                match self {
                    $(ErrorKind::$kind => $exit_code,)+
                }
            }

            /// What an operator can do, where an error of this kind says nothing better.
            pub const fn hint(self) -> Option<&'static str> {
                match self {
                    $(ErrorKind::$kind => $hint,)+
                }
            }
        }
    };
}

error_kinds! {
    /// The command line cannot be understood.
    Usage = ("usage", Fatal, 2, Some("see --help")),
    /// A file, a setting, a statement or the machine is not as it must be.
    Config = ("config", Fatal, 2, None),
    /// The database refuses what it must allow: schema missing or too new, server too old,
    /// rights missing, an object not in the state that is needed.
    Database = ("database", Fatal, 1, None),
    /// The server could not be reached, or the connection was lost.
    ConnectionLost = ("connection_lost", Transient, 1, Some("check that the server runs and can be reached, then try again")),
    /// The server chose this transaction as the victim of a serialization failure or deadlock.
    Serialization = ("serialization", Transient, 1, Some("try again")),
    /// Another session holds a lock on what is needed, or uses it.
    Locked = ("locked", Transient, 1, Some("try again when the other session has finished")),
    /// The server has no room: disk, memory, a limit of its configuration.
    Resources = ("resources", Transient, 1, Some("make room on the server")),
    /// Something that the projection's own code needs cannot be used now ([`Error::transient`]).
    Unavailable = ("unavailable", Transient, 1, None),
    /// The table or its sequence is not one whose order can be proven.
    Precondition = ("precondition", Fatal, 1, None),
    /// The stream was not at the expected version.
    VersionConflict = ("version_conflict", Fatal, 1, Some("read the stream again and decide again")),
    /// The same event id is there with other content.
    IdConflict = ("id_conflict", Fatal, 1, Some("give the event an id of its own")),
    /// The event itself cannot be stored: not JSON, a NUL character, a line too long.
    BadEvent = ("bad_event", Fatal, 1, None),
    /// The projection's own SQL or code failed on a batch.
    Apply = ("apply", Poison, 1, None),
    /// The projection's code could not read an event.
    Undigestible = ("undigestible", Poison, 1, None),
    /// More keys or events would be parked than may be.
    ParkedFull = ("parked_full", Fatal, 1, None),
    /// The projection's definition is not the one its read model was built with.
    Changed = ("changed", Fatal, 1, None),
    /// Another instance runs this projection now, under a higher epoch.
    Fenced = ("fenced", Fatal, 1, Some("highwater status shows which instance runs it")),
    /// The source is not the one the checkpoint was taken from, or it went back; or the read model is
    /// not at the position of its checkpoint.
    Diverged = ("diverged", Fatal, 1, None),
    /// The source no longer has events that the projection has not read.
    Stranded = ("stranded", Fatal, 1, None),
    /// There is no such thing: projection, event, file.
    NotFound = ("not_found", Fatal, 1, None),
    /// The time given ran out, or the server's own limit for a statement.
    TimedOut = ("timed_out", Transient, 1, None),
    /// Reading or writing a file or a pipe failed.
    Io = ("io", Fatal, 1, None),
    /// A bug in highwater itself.
    Internal = ("internal", Fatal, 1, Some("report it with the log")),
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<ErrorKind, Error> {
        let mut kinds = ErrorKind::ALL.iter().copied();
        kinds.find(|kind| kind.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
            Error::new(
                ErrorKind::Usage,
                format!("\"{name}\" is not a kind of error"),
            )
            .with_hint(suggestion(name, &names))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_which_is_its_own() {
        for &kind in ErrorKind::ALL {
            assert_eq!(kind.as_str().parse::<ErrorKind>().unwrap(), kind);
        }
        let error = "diverge".parse::<ErrorKind>().unwrap_err();
        assert!(error.hint().unwrap().contains("did you mean diverged?"));
    }

    #[test]
    fn a_kind_is_named_as_its_variant_in_lower_case() {
        for kind in ErrorKind::ALL {
            let variant = format!("{kind:?}").to_lowercase();
            assert_eq!(kind.as_str().replace('_', ""), variant);
        }
    }

    #[test]
    fn what_may_pass_is_retried_what_an_event_causes_is_poison_and_all_else_stops() {
        let of = |verdict| {
            let kinds = ErrorKind::ALL
                .iter()
                .filter(|kind| kind.verdict() == verdict);
            kinds.map(|kind| kind.as_str()).collect::<Vec<_>>()
        };
        let transient = [
            "connection_lost",
            "serialization",
            "locked",
            "resources",
            "unavailable",
            "timed_out",
        ];
        assert_eq!(of(Verdict::Transient), transient);
        assert_eq!(of(Verdict::Poison), ["apply", "undigestible"]);
        assert_eq!(of(Verdict::Fatal).len(), ErrorKind::ALL.len() - 8);
    }

    #[test]
    fn a_command_ends_with_2_for_what_its_user_wrote_and_with_1_for_all_else() {
        for kind in ErrorKind::ALL {
            let is_users = matches!(kind, ErrorKind::Usage | ErrorKind::Config);
            assert_eq!(kind.exit_code(), if is_users { 2 } else { 1 }, "{kind}");
        }
    }

    #[test]
    fn a_default_hint_can_follow_a_semicolon() {
        for hint in ErrorKind::ALL.iter().filter_map(|kind| kind.hint()) {
            assert!(hint.starts_with(char::is_lowercase), "{hint}");
            assert!(!hint.ends_with('.'), "{hint}");
        }
    }
}
