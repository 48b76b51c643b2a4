//! Who holds the mark, and what ends it.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{at, since};
use crate::pg::sql::Sql;
use crate::source::Blocker;
use crate::status::{Gap, ProjectionStatus, SourceStatus};

const QUERY_SHOWN_MAX: usize = 200;

impl SourceStatus {
    /// Who holds the mark, in one sentence; `None` if nobody does.
    pub(crate) fn blocked(&self, now: Timestamp) -> Option<String> {
        self.gap.as_ref().map(|gap| gap_text(gap, now))
    }
}

impl ProjectionStatus {
    /// Who holds the lock that its batch waits for, and what ends it; `None` if it waits for none.
    pub(crate) fn blocked(&self, now: Timestamp) -> Option<String> {
        let one = self.blocked_by.first()?;
        let more = match self.blocked_by.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more, which highwater status shows"),
        };
        let waits = format!("its batch waits for a lock held by {}", holder(one, now));
        Some(format!("{waits}; {}{more}", end(one)))
    }
}

pub(crate) fn gap_text(gap: &Gap, now: Timestamp) -> String {
    let which = if gap.from == gap.to {
        format!("position {} may still be filled", at(gap.from))
    } else {
        format!(
            "positions {} to {} may still be filled",
            at(gap.from),
            at(gap.to)
        )
    };
    match gap.blocked_by.as_slice() {
        [] => format!("{which}, by a transaction that has just ended"),
        [one] => format!("{which} by {}", holder(one, now)),
        several => several.iter().fold(format!("{which} by"), |text, one| {
            format!("{text}\n  {}", holder(one, now))
        }),
    }
}

/// `pid 123 (user app, application web, idle in transaction for 3 min): insert …`.
fn holder(holder: &Blocker, now: Timestamp) -> String {
    let mut facts = Vec::new();
    if let Some(user) = &holder.user {
        facts.push(format!("user {user}"));
    }
    if let Some(application) = holder.application.as_ref().filter(|a| !a.is_empty()) {
        facts.push(format!("application {application}"));
    }
    let age = holder.since.map(|at| since(now, at));
    match (&holder.prepared, &holder.state, age) {
        (Some(_), _, Some(age)) => facts.push(format!("prepared {age} ago")),
        (None, Some(state), Some(age)) => facts.push(format!("{state}, begun {age} ago")),
        (None, None, Some(age)) => facts.push(format!("begun {age} ago")),
        _ => {}
    }
    let who = match (&holder.prepared, holder.pid) {
        (Some(gid), _) => format!("the prepared transaction '{gid}'"),
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => "a prepared transaction".to_owned(),
    };
    let facts = match facts.is_empty() {
        true => " (only a role in pg_monitor sees who it is)".to_owned(),
        false => format!(" ({})", facts.join(", ")),
    };
    let query = match &holder.query {
        Some(query) if !query.is_empty() => format!(": {}", one_line(query)),
        _ => String::new(),
    };
    format!("{who}{facts}{query}")
}

pub(super) fn render_remedy(text: &mut String, gap: &Gap) {
    let _ = writeln!(
        text,
        "  every projection on it waits until they commit or roll back:"
    );
    for holder in &gap.blocked_by {
        let _ = writeln!(text, "  {}", end(holder));
    }
}

/// A batch waits for a lock.
pub(super) fn render_blocked(text: &mut String, name: &str, holders: &[Blocker], now: Timestamp) {
    for one in holders {
        let _ = writeln!(
            text,
            "\n{name}: its batch waits for a lock held by {}\n  {}",
            holder(one, now),
            end(one)
        );
    }
}

/// What ends a transaction.
fn end(holder: &Blocker) -> String {
    match (&holder.prepared, holder.pid) {
        (Some(gid), _) => {
            let gid = Sql::literal(gid);
            format!("commit prepared {gid}; or rollback prepared {gid};")
        }
        (None, Some(pid)) => {
            format!("select pg_terminate_backend({pid}); ends it and rolls it back")
        }
        (None, None) => "select * from pg_prepared_xacts; shows its name".to_owned(),
    }
}

fn one_line(query: &str) -> String {
    let words: Vec<&str> = query.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(QUERY_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::super::render_source;
    use super::*;
    use crate::position::Position;
    use crate::status::Status;

    #[test]
    fn a_held_mark_says_who_holds_it_and_what_ends_it() {
        let now = Timestamp::from_second(1_000).expect("a time");
        let holder = Blocker {
            name: "3/1".into(),
            pid: Some(123),
            user: Some("app".into()),
            application: Some("web".into()),
            query: Some("insert\n  into t".into()),
            since: Timestamp::from_second(820).ok(),
            prepared: None,
            state: Some("idle in transaction".into()),
        };
        let prepared = Blocker {
            pid: None,
            prepared: Some("it's".into()),
            application: None,
            query: None,
            ..holder.clone()
        };
        let mut source = SourceStatus {
            name: "default".into(),
            head: Some(Position::new(57)),
            mark: Some(Position::new(41)),
            gap: Some(Gap {
                from: Position::new(42),
                to: Position::new(42),
                blocked_by: vec![holder],
            }),
            problem: None,
        };
        let mut text = String::new();
        render_source(&mut text, &source, now);
        assert_eq!(
            text,
            "source default: mark 41 of head 57: position 42 may still be filled by pid 123 (user \
             app, application web, idle in transaction, begun 3 min ago): insert into t\n  every \
             projection on it waits until they commit or roll back:\n  select \
             pg_terminate_backend(123); ends it and rolls it back\n\n"
        );
        if let Some(gap) = &mut source.gap {
            gap.blocked_by = vec![prepared];
        }
        let mut text = String::new();
        render_source(&mut text, &source, now);
        assert!(text.contains("the prepared transaction 'it's' (user app, prepared 3 min ago)"));
        assert!(text.contains("rollback prepared 'it''s';"), "{text}");
        if let Some(gap) = &mut source.gap {
            gap.blocked_by[0].application = Some("\u{1b}[2Jgone".into());
        }
        let status = Status {
            sources: vec![source],
            projections: Vec::new(),
            at: now,
        };
        let shown = status.render(false);
        assert!(shown.contains("application \\u{1b}[2Jgone"), "{shown}");
    }
}
