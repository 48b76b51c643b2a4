//! What the demo shows: the first rows of each read model, and how fast it was.

use comfy_table::{CellAlignment, Table as Grid, presets};
use serde_json::{Map, Value, json};
use tokio_postgres::SimpleQueryMessage;

use super::Findings;
use crate::cli::context::Context;
use crate::cli::text::{count, per_second, seconds, thousands};
use crate::error::Result;
use crate::pg;
use crate::pg::database::Database;

/// How a read model is shown: its name, its subject, and the query for its first rows.
const SHOWN: [(&str, &str, &str); 3] = [
    (
        "files",
        "the files that are alive, most changed first",
        include_str!("../../../sql/queries/demo/files.sql"),
    ),
    (
        "authors",
        "who did how much, most commits first",
        include_str!("../../../sql/queries/demo/authors.sql"),
    ),
    (
        "hotspots",
        "what changes together, most often first",
        include_str!("../../../sql/queries/demo/hotspots.sql"),
    ),
];

/// A longer path is cut in the middle.
const CELL_MAX: usize = 48;

/// The first rows of a read model, as the server prints them.
pub(super) struct Table {
    name: &'static str,
    about: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

pub(super) async fn tables(database: &Database) -> Result<Vec<Table>> {
    let client = database.client().await?;
    let mut tables = Vec::new();
    for (name, about, sql) in SHOWN {
        let answer = client.simple_query(sql).await;
        let answer = answer.map_err(|e| pg::error("cannot read a read model", e))?;
        let mut table = Table {
            name,
            about,
            columns: Vec::new(),
            rows: Vec::new(),
        };
        for message in answer {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    table.columns = columns.iter().map(|c| c.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned());
                    table.rows.push(cells.collect());
                }
                _ => {}
            }
        }
        tables.push(table);
    }
    Ok(tables)
}

pub(super) fn show(findings: &Findings, ctx: &Context) -> Result<()> {
    if ctx.wants_json() {
        return ctx.json(&as_json(findings));
    }
    for table in &findings.tables {
        ctx.line(&format!(
            "\n{}: {}\n{}",
            table.name,
            table.about,
            grid(table)
        ))?;
    }
    let applied = findings.events * findings.tables.len() as u64;
    ctx.line(&format!(
        "\n{} appended in {} ({}/s), {} read models built from them in {} ({} events/s)",
        count(findings.events, "event"),
        seconds(findings.append_time),
        thousands(per_second(findings.events, findings.append_time)),
        findings.tables.len(),
        seconds(findings.run_time),
        thousands(per_second(applied, findings.run_time)),
    ))?;
    ctx.line(&format!(
        "{} of {} files in the read model are exactly as git itself has them",
        thousands(findings.files.equal as u64),
        thousands(findings.files.files as u64)
    ))?;
    let program = ctx.program();
    ctx.ui().say(&format!(
        "\nThe temporary PostgreSQL is gone again. Next, in a directory of your own:\n  \
         {program} init          a schema, highwater.toml and a first projection to edit\n  \
         {program} append FILE   your events, one JSON object a line\n  \
         {program} run           the read models, up to date as long as it runs"
    ));
    Ok(())
}

fn grid(table: &Table) -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(presets::UTF8_FULL_CONDENSED);
    grid.set_header(&table.columns);
    for row in &table.rows {
        grid.add_row(row.iter().map(|cell| cut(cell)));
    }
    for (index, column) in grid.column_iter_mut().enumerate() {
        let is_number = |row: &Vec<String>| row.get(index).is_some_and(|c| number(c).is_some());
        if table.rows.iter().all(is_number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid
}

fn number(cell: &str) -> Option<i64> {
    cell.parse().ok()
}

/// A long cell, cut in its middle.
fn cut(cell: &str) -> String {
    let length = cell.chars().count();
    if length <= CELL_MAX {
        return cell.to_owned();
    }
    let half = (CELL_MAX - 1) / 2;
    let begin: String = cell.chars().take(half).collect();
    let end: String = cell.chars().skip(length - half).collect();
    format!("{begin}…{end}")
}

fn as_json(findings: &Findings) -> Value {
    let projections: Vec<Value> = findings
        .tables
        .iter()
        .map(|table| json!({ "name": table.name, "rows": rows_as_json(table) }))
        .collect();
    json!({
        "events": findings.events,
        "append_seconds": findings.append_time.as_secs_f64(),
        "run_seconds": findings.run_time.as_secs_f64(),
        "files": { "all": findings.files.files, "as_in_git": findings.files.equal },
        "projections": projections,
    })
}

fn rows_as_json(table: &Table) -> Vec<Map<String, Value>> {
    let as_object = |row: &Vec<String>| {
        let cells = row.iter().map(|cell| match number(cell) {
            Some(number) => Value::from(number),
            None => Value::from(cell.as_str()),
        });
        table.columns.iter().cloned().zip(cells).collect()
    };
    table.rows.iter().map(as_object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cell_is_cut_in_its_middle() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(100);
        let cut = cut(&long);
        assert!(
            cut.chars().count() <= CELL_MAX && cut.contains('…'),
            "{cut}"
        );
    }
}
