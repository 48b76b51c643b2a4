//! Ordinary read models, each as a projection's file and as the statements that a person would write:
//! `benches/models/NAME.sql` and `NAME.by_hand.sql`.

use std::path::Path;
use std::time::Duration;

use futures_util::future::try_join_all;
use highwater::internal::projection::file::ProjectionFile;
use highwater::{Error, ErrorKind, Result};

use super::psql::{self, Timing};
use super::{Db, Project, failed};

/// The schema of what is written by hand.
const BY_HAND: &str = "by_hand";

pub(crate) struct Model {
    pub(crate) name: &'static str,
    text: &'static str,
}

macro_rules! model {
    ($name:literal) => {
        Model {
            name: $name,
            text: include_str!(concat!("../models/", $name, ".sql")),
        }
    };
}

/// What most read models are like.
pub(crate) const ORDINARY: [Model; 5] = [
    model!("sums"),
    model!("last_state"),
    model!("two_tables"),
    model!("counts_per_day"),
    model!("row_per_event"),
];

/// Of two types that are few of the events.
pub(crate) const DISPUTES: Model = model!("disputes");

impl Model {
    /// The projection's file with a number of partitions in its header.
    pub(crate) fn text(&self, partitions: u32) -> String {
        let header = format!("/* highwater\npartitions = {partitions}\n");
        match self.text.strip_prefix("/* highwater\n") {
            Some(rest) => format!("{header}{rest}"),
            None => format!("{header}*/\n{}", self.text),
        }
    }

    fn file(&self) -> Result<ProjectionFile> {
        ProjectionFile::parse(
            Path::new(&format!("projections/{}.sql", self.name)),
            self.text,
        )
    }

    /// Caught up by `highwater run`, from its start to its end.
    pub(crate) async fn catch_up(&self, db: &Db, partitions: u32) -> Result<Duration> {
        let project = Project::with(&[(self.name, &self.text(partitions))])?;
        project.catch_up(db).await
    }

    /// Drops what [`Model::catch_up`] made.
    pub(crate) async fn forget(&self, db: &Db) -> Result<()> {
        let project = Project::with(&[])?;
        let dropped = db.highwater(project.path(), &["drop", self.name]).await;
        dropped.map(drop)
    }

    /// Written by hand into new tables: by one `psql`, or by one for each partition, side by side.
    /// The number of partitions is a power of two.
    pub(crate) async fn by_hand(&self, db: &Db, partitions: u32) -> Result<Timing> {
        let file = self.file()?;
        let key = file.header.key.as_deref().unwrap_or("stream");
        let up = &file.up.text;
        db.time(&format!(
            "drop schema if exists {BY_HAND} cascade; create schema {BY_HAND};
             set search_path = {BY_HAND}; {up}"
        ))
        .await?;
        let file = format!("{}.by_hand.sql", self.name);
        let halves = (0..partitions).map(|number| {
            let mine = mine(key, number, partitions);
            let file = &file;
            async move { psql::run(db, BY_HAND, file, &[("mine", &mine)]).await }
        });
        let timings = try_join_all(halves).await?;
        let longest =
            |of: fn(&Timing) -> Duration| timings.iter().map(of).max().unwrap_or_default();
        Ok(Timing {
            process: longest(|timing| timing.process),
            statements: longest(|timing| timing.statements),
        })
    }

    /// An error unless highwater's read model in `db` has the rows of that by hand in `reference`.
    pub(crate) async fn verify(&self, db: &Db, reference: &Db) -> Result<()> {
        for table in tables(reference).await? {
            let found = content(db, &format!("{}.{table}", self.name)).await?;
            let expected = content(reference, &format!("{BY_HAND}.{table}")).await?;
            if found != expected {
                let what = format!(
                    "{}: {table} is {found}; by hand it is {expected}",
                    self.name
                );
                return Err(Error::new(ErrorKind::Internal, what));
            }
        }
        Ok(())
    }
}

/// Which events one of so many statements side by side takes, those of a partition of highwater.
fn mine(key: &str, number: u32, of: u32) -> String {
    match of {
        1 => "true".to_owned(),
        _ => format!("hashtextextended(({key})::text, 0) & {} = {number}", of - 1),
    }
}

/// The tables that are written by hand.
async fn tables(db: &Db) -> Result<Vec<String>> {
    let sql = "select tablename::text from pg_tables where schemaname = $1";
    let rows = db.client().await?.query(sql, &[&BY_HAND]).await;
    Ok(rows.map_err(failed)?.iter().map(|row| row.get(0)).collect())
}

/// The number of a table's rows and a checksum of them.
async fn content(db: &Db, table: &str) -> Result<String> {
    let sql = format!(
        "select count(*) || ' rows, sum ' || coalesce(sum(hashtextextended(t::text, 0)), 0) from {table} t"
    );
    let row = db.client().await?.query_one(&sql, &[]).await;
    Ok(row.map_err(failed)?.get(0))
}
