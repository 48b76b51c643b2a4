//! Status as text: one line for each source and projection, then the problems.

mod holders;

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{DefinitionState, ProjectionStatus, Repartition, SourceStatus, State, Status};
use crate::engine::RunnerState;
use crate::error::{Printable, StoredError};
use crate::position::Position;
use holders::render_remedy;

pub(crate) use holders::gap_text;

const HEADINGS: [&str; 6] = ["PROJECTION", "STATE", "POSITION", "LAG", "RATE", "ETA"];

impl Status {
    /// The status as text that ends with a line end. A line is never wrapped; `color` marks
    /// states with ANSI colors.
    pub fn render(&self, color: bool) -> String {
        let mut text = String::new();
        for source in &self.sources {
            render_source(&mut text, source, self.at);
        }
        // Queries of others, names of applications, the server's text: anybody may have written
        // them.
        text = Printable(&text).to_string();
        if self.projections.is_empty() {
            text.push_str(
                "no projections: write one into projections/NAME.sql, then highwater run\n",
            );
            return text;
        }
        let mut details = String::new();
        for projection in &self.projections {
            self.render_details(&mut details, projection);
        }
        self.render_table(&mut text, color);
        let _ = write!(text, "{}", Printable(&details));
        text
    }

    fn render_table(&self, text: &mut String, color: bool) {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.projections.iter().map(|p| self.row(p)));
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
        for (at, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = width - cell.chars().count();
                match at.checked_sub(1).and_then(|at| self.projections.get(at)) {
                    Some(p) if color && column == 1 => line.push_str(&painted(cell, p.state)),
                    _ => line.push_str(cell),
                }
                line.extend(std::iter::repeat_n(' ', padding + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }

    fn row(&self, p: &ProjectionStatus) -> [String; 6] {
        let head = self.source(&p.source).and_then(|s| s.head);
        let lag = match (p.lag_events, p.lag_seconds) {
            (None, _) => "?".to_owned(),
            (Some(0), _) => "0".to_owned(),
            (Some(events), None) => number(events),
            (Some(events), Some(age)) => format!("{} ({})", number(events), span(age)),
        };
        let rate = match p.rate_per_second {
            rate if rate >= 1.0 => format!("{}/s", number(rate as u64)),
            _ => "-".to_owned(),
        };
        let eta = match p.eta_seconds {
            Some(eta) if eta > 0.0 => span(eta),
            _ => "-".to_owned(),
        };
        let position = match head {
            Some(head) => format!("{} of {}", at(p.position), at(head)),
            None => at(p.position),
        };
        let state = p.state.as_str().to_owned();
        [p.name.to_string(), state, position, lag, rate, eta]
    }

    fn render_details(&self, text: &mut String, p: &ProjectionStatus) {
        let name = &p.name;
        let mut say = |what: String| {
            let _ = writeln!(text, "\n{name}: {what}");
        };
        match p.definition {
            DefinitionState::Same => {}
            DefinitionState::Changed
                if p.last_error.as_ref().is_some_and(|e| e.kind == "changed") => {}
            DefinitionState::Changed => say(format!(
                "changed since its read model was built; highwater rebuild {name} builds it \
                 again, highwater accept {name} keeps the read model"
            )),
            DefinitionState::Gone => say(format!(
                "its file is missing or invalid, or it is compiled into another program; restore \
                 or fix the file, or highwater drop {name} if nobody needs it"
            )),
            DefinitionState::NeverRun => {
                say(format!("was never run; highwater run {name} builds it"))
            }
        }
        if self.source(&p.source).is_none() {
            say(format!(
                "reads the source \"{}\", which is not configured here",
                p.source
            ));
        }
        if let (Some(gone), State::Idle) = (&p.gone, p.state) {
            say(format!(
                "{} ran it and ended without signing off, or cannot reach the database; it was \
                 last seen {} ago",
                gone.owner,
                since(self.at, gone.seen_at)
            ));
        }
        if p.partitions.len() > 1 {
            say(partitions(p));
        }
        if let Some(paused_at) = p.paused_at {
            let since = since(self.at, paused_at);
            say(format!(
                "was paused {since} ago; highwater resume {name} resumes it"
            ));
        }
        if let Some(change) = &p.change {
            say(changing(change));
        }
        if let Some(rebuild) = &p.rebuild {
            let head = self.source(&p.source).and_then(|s| s.head);
            say(rebuilding(rebuild, head));
        }
        if p.parked_keys > 0 {
            say(parked(p));
        }
        holders::render_blocked(text, name.as_str(), &p.blocked_by, self.at);
        if let Some(error) = &p.last_error {
            render_error(text, p, error, self.at);
        }
    }
}

fn parked(p: &ProjectionStatus) -> String {
    let (keys, dead_letters) = (p.parked_keys, p.dead_letters);
    format!(
        "{} key{} parked with {} event{}; highwater dead-letters list {} shows why",
        number(keys),
        if keys == 1 { " is" } else { "s are" },
        number(dead_letters),
        if dead_letters == 1 { "" } else { "s" },
        p.name
    )
}

/// The most partitions that are shown one by one; further ones are only counted.
const PARTITIONS_SHOWN: usize = 32;

fn partitions(p: &ProjectionStatus) -> String {
    let mut text = format!("{} partitions", p.partitions.len());
    for partition in p.partitions.iter().take(PARTITIONS_SHOWN) {
        let owner = partition.owner.as_deref().unwrap_or("nobody");
        let _ = write!(
            text,
            "\n  {:>4}  {:<11}  {} at {}",
            partition.partition,
            partition.state.as_str(),
            owner,
            at(partition.position)
        );
    }
    let more = p.partitions.len().saturating_sub(PARTITIONS_SHOWN);
    if more > 0 {
        let _ = write!(text, "\n  and {more} more, which --json shows");
    }
    text
}

fn changing(change: &Repartition) -> String {
    let (from, to) = (change.from, change.to);
    match change.at {
        None => format!("will have {to} partitions instead of {from} once it runs"),
        Some(end) => format!(
            "changes from {from} to {to} partitions once each of the {from} is at {}",
            at(end)
        ),
    }
}

fn rebuilding(rebuild: &super::Rebuild, head: Option<Position>) -> String {
    let mut what = format!(
        "generation {} is being built beside it: {} at {}",
        rebuild.generation,
        rebuild.state.as_str(),
        at(rebuild.position)
    );
    if let Some(head) = head {
        let share = rebuild.position.get() as f64 * 100.0 / (head.get() as f64).max(1.0);
        let _ = write!(what, " of {} ({:.0} %)", at(head), share.floor().min(100.0));
        let left = head.since(rebuild.position);
        if rebuild.rate >= 1.0 && left > 0 {
            let (rate, eta) = (number(rebuild.rate as u64), left as f64 / rebuild.rate);
            let _ = write!(what, ", {rate}/s, done in {}", span(eta));
        }
    }
    what
}

/// The kinds after which a run resumes where it stopped, once the cause is fixed. For all others
/// the hint alone says what to do: the log or the definition is another one, or a limit is reached.
const RESUMED_BY_RUNNING: [&str; 5] = [
    "apply",
    "undigestible",
    "config",
    "database",
    "precondition",
];

fn render_error(text: &mut String, p: &ProjectionStatus, error: &StoredError, now: Timestamp) {
    let verb = match p.state {
        State::Runner(RunnerState::Stopped) => "stopped",
        State::Runner(RunnerState::Retrying) => "is retrying",
        _ => "last failed",
    };
    let code = match &error.sqlstate {
        Some(code) => format!(" (SQLSTATE {code})"),
        None => String::new(),
    };
    let _ = writeln!(text, "\n{}: {verb} at {}", p.name, at(p.position));
    let _ = writeln!(text, "  error   {}{code}", error.message.trim_end());
    let _ = writeln!(text, "  kind    {}", error.kind);
    if let Some(id) = error.event_id {
        let kind = error.event_type.as_deref().unwrap_or("unknown type");
        let _ = writeln!(text, "  event   position {}, {kind}, {id}", error.position);
    }
    let times = match error.attempts {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    if let Some(when) = error.at {
        let _ = writeln!(text, "  tried   {times}, {when} ({} ago)", since(now, when));
    }
    if let Some(hint) = &error.hint {
        let _ = writeln!(text, "  hint    {hint}");
    }
    if p.state == State::Runner(RunnerState::Stopped)
        && RESUMED_BY_RUNNING.contains(&error.kind.as_str())
    {
        let _ = writeln!(
            text,
            "  to do   highwater run {} resumes after {} once it is fixed; nothing is lost",
            p.name,
            at(p.position)
        );
    }
}

fn render_source(text: &mut String, source: &SourceStatus, now: Timestamp) {
    let shown = |position: Option<Position>| position.map_or("unknown".to_owned(), at);
    let _ = write!(text, "source {}: ", source.name);
    if let Some(error) = &source.problem {
        let _ = writeln!(text, "head {}; {error}", shown(source.head));
    } else if let Some(gap) = &source.gap {
        let (mark, head) = (shown(source.mark), shown(source.head));
        let _ = writeln!(text, "mark {mark} of head {head}: {}", gap_text(gap, now));
        render_remedy(text, gap);
    } else {
        let (head, mark) = (shown(source.head), shown(source.mark));
        let _ = writeln!(text, "head {head}, mark {mark}");
    }
    text.push('\n');
}

fn painted(cell: &str, state: State) -> String {
    let code = match state {
        State::Runner(RunnerState::Stopped) => "31",
        State::Runner(RunnerState::Retrying | RunnerState::Paused) => "33",
        State::Runner(RunnerState::Live) => "32",
        State::Idle => "2",
        State::Runner(_) => "36",
    };
    format!("\u{1b}[{code}m{cell}\u{1b}[0m")
}

fn at(position: Position) -> String {
    number(position.since(Position::START))
}

fn since(now: Timestamp, then: Timestamp) -> String {
    span(now.duration_since(then).as_secs_f64())
}

/// A number with a comma after each thousand.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span of time in one unit, as people say it.
pub(crate) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1_000.0),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_written_as_people_read_them() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(n), text);
        }
        for (seconds, text) in [
            (-1.0, "0 ms"),
            (0.25, "250 ms"),
            (59.0, "59 s"),
            (180.0, "3 min"),
            (7_300.0, "2 h"),
            (200_000.0, "2 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
