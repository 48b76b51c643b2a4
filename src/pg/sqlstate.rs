//! The one table from SQLSTATE to kind.
//!
//! [`crate::retry`] decides what follows from a kind; here one question decides: what would help?
//!
//! | what would help | kind | codes |
//! |---|---|---|
//! | waiting for the server or another address | `ConnectionLost` | 08, 57 but 57014, 53300, 26, 25006, HV00N |
//! | trying again | `Serialization` | 40 but 40002, 72 |
//! | waiting until another session releases a lock | `Locked` | 55P03, 55006 |
//! | less at once, or more time | `TimedOut` | 57014, 25P03, 25P04 |
//! | room on the server | `Resources` | 53, 58000, 58030, HV001, HV014 |
//! | leaving an event out | `Apply` | data: 22, 23, 21, 27, 44, 54, P0 and others |
//! | a change of the statement or of what it names | `Config` | 42 but 42501 |
//! | a change of rights, settings or the server | `Database` | 42501, 0A, 28, 3D, 3F, 55, XX001 and others |
//!
//! Some are less plain than they look:
//!
//! - **Class 42** (no such table or column, wrong type, bad syntax) is not the fault of an event:
//!   the statement always fails. Halving its batch would take twenty attempts to blame
//!   an innocent event, and with `on_error = "park"` it would park one key after the other. So
//!   it stops the projection at once.
//! - **21000** is what `on conflict do update` raises when a batch changes a row twice: a batch of one
//!   event passes, so it is halved like any other fault of the data.
//! - **25006** (read only) is a standby: the address leads to the primary again after the failover.
//! - **25P02** comes where a projection's code continued after an error that it had swallowed: an event
//!   caused it.
//! - **26000** is a pooler that handed the session to others in between.
//! - **53300** says that no session was free, so nothing was lost and nothing is full.
//! - **57014** is `statement_timeout`, or a cancel by somebody: the statement was too much for
//!   the time there is.
//! - **XX000** is raised by extensions over bad data, and by the server over a table that somebody
//!   changes at that moment: with less of the data, or later, it may pass; if it does not, one event
//!   is named. **XX001** and **XX002** say that the data is broken: writing must stop.
//! - A code that PostgreSQL does not define was raised by a user's function about the data.

use crate::error::ErrorKind;

/// The kind of error that a SQLSTATE stands for.
pub(super) fn kind_of(code: &str) -> ErrorKind {
    known(code).unwrap_or(ErrorKind::Apply)
}

/// `None` for a code that neither PostgreSQL nor highwater defines.
fn known(code: &str) -> Option<ErrorKind> {
    exact(code).or_else(|| class(code.get(..2)?))
}

/// Codes that differ from the rest of their class.
fn exact(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "HW001" => ErrorKind::VersionConflict,
        "HW002" => ErrorKind::IdConflict,
        "HW003" => ErrorKind::BadEvent,
        "HW101" => ErrorKind::Fenced,
        "HW102" => ErrorKind::Internal,
        "HW103" => ErrorKind::ParkedFull,
        "HW104" => ErrorKind::Stranded,
        "HW105" => ErrorKind::Diverged,
        "25006" | "53300" | "HV00N" => ErrorKind::ConnectionLost,
        "55P03" | "55006" => ErrorKind::Locked,
        "57014" | "25P03" | "25P04" => ErrorKind::TimedOut,
        "58000" | "58030" | "HV001" | "HV014" => ErrorKind::Resources,
        "25P02" | "2F005" | "40002" => ErrorKind::Apply,
        "39P01" | "39P02" | "39P03" | "42501" | "XX001" | "XX002" => ErrorKind::Database,
        _ => return None,
    })
}

fn class(class: &str) -> Option<ErrorKind> {
    Some(match class {
        // The connection; a prepared statement that is not there; the server goes or comes.
        "08" | "26" | "57" => ErrorKind::ConnectionLost,
        // The transaction was chosen as a victim; its snapshot is too old.
        "40" | "72" => ErrorKind::Serialization,
        // Disk, memory, a configured limit.
        "53" => ErrorKind::Resources,
        // The data: warnings and "no data" raised as errors, triggers, CASE, cardinality, values,
        // constraints, functions of others, check options, built-in limits, PL/pgSQL, internal.
        "00" | "01" | "02" | "09" | "10" | "20" | "21" | "22" | "23" | "27" | "38" | "39"
        | "44" | "54" | "P0" | "XX" => ErrorKind::Apply,
        // The statement, or what it names.
        "42" => ErrorKind::Config,
        // Rights, the state of objects and transactions, the server's files and settings.
        "03" | "0A" | "0B" | "0F" | "0L" | "0P" | "0Z" | "24" | "25" | "28" | "2B" | "2D"
        | "2F" | "34" | "3B" | "3D" | "3F" | "55" | "58" | "F0" | "HV" => ErrorKind::Database,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Verdict, verdict};

    /// `CODE kind condition_name` of every code in the appendix of PostgreSQL's manual, up to 18.
    const CODES: &str = include_str!("../../tests/data/sqlstates.txt");

    fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
        let lines = CODES.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.next().unwrap())
        })
    }

    #[test]
    fn every_code_of_postgresql_has_a_kind_that_somebody_chose() {
        let wrong: Vec<String> = listed()
            .filter(|(code, kind)| known(code).map(ErrorKind::as_str) != Some(kind))
            .map(|(code, kind)| format!("{code} is not {kind} but {:?}", known(code)))
            .collect();
        assert_eq!(wrong, Vec::<String>::new());
        assert!(listed().count() > 260);
        let mut codes: Vec<&str> = listed().map(|(code, _)| code).collect();
        codes.dedup();
        assert_eq!(codes.len(), listed().count(), "a code stands there twice");
        assert!(codes.is_sorted());
    }

    #[test]
    fn no_code_without_an_event_at_fault_is_poison_and_what_nobody_defines_is() {
        for (code, expected) in [
            ("40001", Verdict::Transient),
            ("55P03", Verdict::Transient),
            ("57014", Verdict::Transient),
            ("53100", Verdict::Transient),
            ("53300", Verdict::Transient),
            ("57P01", Verdict::Transient),
            ("25006", Verdict::Transient),
            ("22012", Verdict::Poison),
            ("23505", Verdict::Poison),
            ("21000", Verdict::Poison),
            ("P0001", Verdict::Poison),
            ("XX000", Verdict::Poison),
            ("AB123", Verdict::Poison),
            ("42P01", Verdict::Fatal),
            ("42703", Verdict::Fatal),
            ("42501", Verdict::Fatal),
            ("0A000", Verdict::Fatal),
            ("XX001", Verdict::Fatal),
        ] {
            assert_eq!(verdict(kind_of(code)), expected, "{code}");
        }
    }
}
