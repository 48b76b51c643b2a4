//! Comparing the rows of a table with the rows that a test expects.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::ExpectedRow;

const SHOWN_MAX: usize = 20;

/// The difference between the expected rows of a table and its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Expected rows that are not there.
    pub missing: Vec<ExpectedRow>,
    /// Rows that are there but were not expected.
    pub unexpected: Vec<ExpectedRow>,
    /// The columns that the expected rows name; empty if there are none.
    columns: Vec<String>,
}

/// Compares as multisets: each expected row needs a row of its own that agrees with it in all
/// columns it names, and no row may be left over.
///
/// Numbers agree by value (1 and 1.0), and two RFC 3339 times with an offset if they are the
/// same instant.
pub fn compare(expected: &[ExpectedRow], actual: &[Map<String, Value>]) -> Option<Difference> {
    let partners = Matching::new(expected, actual).solve();
    let missing = rows_without(expected, |row| partners.contains(&Some(row)));
    let unexpected = rows_without(actual, |row| partners.get(row).is_some_and(Option::is_some));
    if missing.is_empty() && unexpected.is_empty() {
        return None;
    }
    let mut columns: Vec<String> = expected
        .iter()
        .flat_map(|row| row.keys().cloned())
        .collect();
    columns.sort_unstable();
    columns.dedup();
    Some(Difference {
        missing,
        unexpected,
        columns,
    })
}

fn rows_without(rows: &[ExpectedRow], matched: impl Fn(usize) -> bool) -> Vec<ExpectedRow> {
    let rows = rows.iter().enumerate();
    rows.filter(|(at, _)| !matched(*at))
        .map(|(_, row)| row.clone())
        .collect()
}

/// The largest possible matching. Rows may name different columns, so that the first row that
/// fits can be the one that another row needs.
struct Matching<'a> {
    expected: &'a [ExpectedRow],
    actual: &'a [ExpectedRow],
    /// The expected row that each actual row is taken by.
    partners: Vec<Option<usize>>,
}

impl<'a> Matching<'a> {
    fn new(expected: &'a [ExpectedRow], actual: &'a [ExpectedRow]) -> Matching<'a> {
        Matching {
            expected,
            actual,
            partners: vec![None; actual.len()],
        }
    }

    fn solve(mut self) -> Vec<Option<usize>> {
        for row in 0..self.expected.len() {
            self.place(row);
        }
        self.partners
    }

    /// Finds a row for `first` by a breadth-first search along rows that could move elsewhere.
    fn place(&mut self, first: usize) {
        let mut reached_from: Vec<Option<usize>> = vec![None; self.actual.len()];
        let mut queue = std::collections::VecDeque::from([first]);
        while let Some(row) = queue.pop_front() {
            for at in 0..self.actual.len() {
                if reached_from.get(at) != Some(&None) || !self.fits(row, at) {
                    continue;
                }
                set(&mut reached_from, at, row);
                match self.partners.get(at).copied().flatten() {
                    Some(taken_by) => queue.push_back(taken_by),
                    None => return self.shift(first, at, &reached_from),
                }
            }
        }
    }

    /// Gives `at` to the row it was reached from, that row's old place to the one before, and so
    /// on until `first` has a place.
    fn shift(&mut self, first: usize, mut at: usize, reached_from: &[Option<usize>]) {
        while let Some(row) = reached_from.get(at).copied().flatten() {
            let old = self.partners.iter().position(|p| *p == Some(row));
            set(&mut self.partners, at, row);
            match old {
                Some(old) if row != first => at = old,
                _ => return,
            }
        }
    }

    fn fits(&self, expected: usize, actual: usize) -> bool {
        let (Some(expected), Some(actual)) = (self.expected.get(expected), self.actual.get(actual))
        else {
            return false;
        };
        let mut columns = expected.iter();
        columns.all(|(column, value)| actual.get(column).is_some_and(|other| same(value, other)))
    }
}

fn set(places: &mut [Option<usize>], at: usize, row: usize) {
    if let Some(place) = places.get_mut(at) {
        *place = Some(row);
    }
}

fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            a.as_f64() == b.as_f64()
        }
        (Value::String(a), Value::String(b)) => a == b || same_instant(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// A `timestamptz` is shown in the time zone of the session.
fn same_instant(a: &str, b: &str) -> bool {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    time(a).is_some_and(|a| time(b) == Some(a))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.columns.is_empty();
        let shown = |row: &ExpectedRow| -> ExpectedRow {
            let columns = row.iter();
            columns
                .filter(|(column, _)| all || self.columns.contains(column))
                .map(|(column, value)| (column.clone(), value.clone()))
                .collect()
        };
        list(
            f,
            "expected, but not there",
            &self.missing,
            ExpectedRow::clone,
        )?;
        if !self.missing.is_empty() && !self.unexpected.is_empty() {
            writeln!(f)?;
        }
        list(f, "there, but not expected", &self.unexpected, shown)
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: &[ExpectedRow],
    shown: impl Fn(&ExpectedRow) -> ExpectedRow,
) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    write!(f, "{title}:")?;
    for row in rows.iter().take(SHOWN_MAX) {
        write!(f, "\n    {}", toml_of(&Value::Object(shown(row))))?;
    }
    match rows.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => write!(f, "\n    and {more} more"),
    }
}

/// The value as it could stand in the test's file.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Null => "{ null = true }".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml_of).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let pairs = map.iter();
            let pairs: Vec<String> = pairs
                .map(|(key, value)| format!("{} = {}", key_of(key), toml_of(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn key_of(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}
