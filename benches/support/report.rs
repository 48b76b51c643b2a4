//! Figures, what they are held against, and how they are shown.

use std::fs;
use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use highwater::Result;
use serde::Serialize;

use super::{Form, failed};

/// What a row of a report must be to be met.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Budget {
    RatioAtLeast(f64),
    EachRatioAtLeast(f64),
    RatioAtMost(f64),
    FigureAtMost(f64),
}

/// One measured path of a benchmark.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    figures: Vec<f64>,
    reference: Option<String>,
    references: Vec<f64>,
    ratios: Vec<f64>,
    budget: Option<Budget>,
    met: Option<bool>,
}

/// What a benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: String,
    full: bool,
    runs: usize,
    postgresql: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// Median and spread of some samples.
#[derive(Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(samples: &[f64]) -> Option<Spread> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Spread {
            least,
            median: f64::midpoint(low, high),
            most,
        })
    }

    fn text(self) -> String {
        if self.least.to_bits() == self.most.to_bits() {
            return short(self.median);
        }
        let [least, median, most] = [self.least, self.median, self.most].map(short);
        format!("{median} ({least} to {most})")
    }
}

/// Three digits that count, and no fewer before the point than there are.
fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 1_000.0 => thousands(number.round()),
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Report {
    pub(crate) fn new(name: &str, form: &Form, postgresql: String) -> Report {
        Report {
            name: name.to_owned(),
            full: form.full,
            runs: form.runs(),
            postgresql,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A sample of a row: the figure, and the reference's of the same run.
    pub(crate) fn sample(
        &mut self,
        what: &str,
        unit: &'static str,
        figure: f64,
        reference: Option<(&str, f64)>,
        budget: Option<Budget>,
    ) {
        let index = match self.rows.iter().position(|row| row.what == what) {
            Some(index) => index,
            None => {
                let reference = reference.map(|(name, _)| name.to_owned());
                self.rows.push(Row::new(what, unit, reference, budget));
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index];
        row.figures.push(figure);
        if let Some((_, reference)) = reference {
            row.references.push(reference);
            row.ratios.push(figure / reference);
        }
        row.met = row.budget.and_then(|budget| row.meets(budget));
        eprintln!("{}: {what}: {} {unit}", self.name, short(figure));
    }

    /// A row of the ratios' medians of all rows that are held against this reference.
    pub(crate) fn across(&mut self, what: &str, reference: &str, budget: Option<Budget>) {
        let against = |row: &&Row| row.reference.as_deref() == Some(reference);
        let spreads = self.rows.iter().filter(against);
        let spreads = spreads.filter_map(|row| Spread::of(&row.ratios));
        let mut row = Row::new(what, "", None, budget);
        row.ratios = spreads.map(|spread| spread.median).collect();
        row.met = row.budget.and_then(|budget| row.meets(budget));
        if !row.ratios.is_empty() {
            self.rows.push(row);
        }
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints the table, and writes the JSON.
    pub(crate) fn publish(&self, json: bool) -> Result<()> {
        println!("{}", self.table());
        for note in &self.notes {
            println!("{note}");
        }
        let text = serde_json::to_string_pretty(self).map_err(failed)?;
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&directory).map_err(failed)?;
        let file = directory.join(format!("{}.json", self.name));
        fs::write(file, &text).map_err(failed)?;
        if json {
            println!("{text}");
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_content_arrangement(ContentArrangement::Disabled);
        let form = if self.full { "full" } else { "short" };
        let first = format!(
            "{}, {form} form, runs: {}, PostgreSQL {}",
            self.name, self.runs, self.postgresql
        );
        table.set_header(vec![&first, "figure", "reference", "ratio", "budget"]);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        table
    }
}

impl Row {
    fn new(
        what: &str,
        unit: &'static str,
        reference: Option<String>,
        budget: Option<Budget>,
    ) -> Row {
        Row {
            what: what.to_owned(),
            unit,
            figures: Vec::new(),
            reference,
            references: Vec::new(),
            ratios: Vec::new(),
            budget,
            met: None,
        }
    }

    fn meets(&self, budget: Budget) -> Option<bool> {
        let ratio = Spread::of(&self.ratios).map(|s| s.median);
        let figure = Spread::of(&self.figures).map(|s| s.median);
        Some(match budget {
            Budget::RatioAtLeast(least) => ratio? >= least,
            Budget::EachRatioAtLeast(least) => Spread::of(&self.ratios)?.least >= least,
            Budget::RatioAtMost(most) => ratio? <= most,
            Budget::FigureAtMost(most) => figure? <= most,
        })
    }

    fn cells(&self) -> Vec<String> {
        let figure = Spread::of(&self.figures).map_or_else(String::new, Spread::text);
        let reference = match (&self.reference, Spread::of(&self.references)) {
            (Some(name), Some(spread)) => format!("{name}: {}", spread.text()),
            _ => String::new(),
        };
        let ratio = Spread::of(&self.ratios).map_or_else(String::new, Spread::text);
        let budget = match self.budget {
            Some(Budget::RatioAtLeast(least)) => format!("at least {least}"),
            Some(Budget::EachRatioAtLeast(least)) => format!("each at least {least}"),
            Some(Budget::RatioAtMost(most)) => format!("at most {most} times"),
            Some(Budget::FigureAtMost(most)) => format!("at most {} {}", short(most), self.unit),
            None => String::new(),
        };
        let met = match self.met {
            Some(true) => ": met",
            Some(false) => ": NOT MET",
            None => "",
        };
        let figure = format!("{figure} {}", self.unit);
        vec![
            self.what.clone(),
            figure,
            reference,
            ratio,
            format!("{budget}{met}"),
        ]
    }
}
