//! Statements, counted in the server by pg_stat_statements.

use std::collections::BTreeMap;

use highwater::Result;
use tokio_postgres::Client;

use super::{Db, failed};

/// Settings of a server that counts. What it keeps of a statement tells the statements apart.
pub(crate) const COUNTING: &[(&str, &str)] = &[("shared_preload_libraries", "pg_stat_statements")];

/// Counts what a server is asked.
pub(crate) struct Statements(Client);

/// What it was asked, by kind.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) kinds: BTreeMap<String, f64>,
}

impl Statements {
    pub(crate) async fn of(db: &Db) -> Result<Statements> {
        let client = db.client().await?;
        let sql = "create extension if not exists pg_stat_statements";
        client.batch_execute(sql).await.map_err(failed)?;
        Ok(Statements(client))
    }

    pub(crate) async fn begin(&self) -> Result<()> {
        let done = self.0.batch_execute("select pg_stat_statements_reset()");
        done.await.map_err(failed)
    }

    /// What was asked in this database since [`Statements::begin`], without these questions.
    pub(crate) async fn asked(&self) -> Result<Asked> {
        let sql = "select query, calls::float8 from pg_stat_statements
                    where dbid = (select oid from pg_database where datname = current_database())
                      and query !~ 'pg_stat'";
        let rows = self.0.query(sql, &[]).await.map_err(failed)?;
        let mut asked = Asked::default();
        for row in &rows {
            *asked.kinds.entry(kind(row.get(0))).or_default() += row.get::<_, f64>(1);
        }
        Ok(asked)
    }
}

impl Asked {
    pub(crate) fn all(&self) -> f64 {
        self.kinds.values().sum()
    }

    /// How often what begins so was asked.
    pub(crate) fn of_kind(&self, begins: &str) -> f64 {
        let kinds = self
            .kinds
            .iter()
            .filter(|(kind, _)| kind.starts_with(begins));
        kinds.map(|(_, n)| n).sum()
    }

    /// So many of each kind for each of `per`, the most frequent first.
    pub(crate) fn listing(&self, per: f64) -> String {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by(|a, b| b.1.total_cmp(a.1));
        let listed = kinds
            .iter()
            .map(|(kind, n)| format!("{kind} {:.2}", *n / per));
        listed.collect::<Vec<_>>().join(", ")
    }
}

/// What a statement is for, in a few words: its purpose if it says one.
fn kind(query: &str) -> String {
    let text = match query.split_once("-- Purpose: ") {
        Some(("", purpose)) => purpose.lines().next().unwrap_or_default(),
        _ => query,
    };
    let words: Vec<_> = text.split_whitespace().take(5).collect();
    words.join(" ")
}
