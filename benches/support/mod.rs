//! What all benchmarks share: how they are called, where they run, how they say what they found.
//!
//! `cargo bench` runs each in its short form; `cargo bench --bench NAME -- --full` in the form the
//! budgets are written for. Figure and reference are always taken in the same run, on a server of
//! the benchmark's own with PostgreSQL's default settings (fsync is on).

#![allow(
    dead_code,
    unused_imports,
    reason = "each benchmark is a crate of its own and uses a part of this"
)]

pub(crate) mod breakdown;
pub(crate) mod chart;
pub(crate) mod events;
pub(crate) mod live;
pub(crate) mod model;
pub(crate) mod orders;
pub(crate) mod paired;
pub(crate) mod processor;
pub(crate) mod project;
pub(crate) mod psql;
pub(crate) mod reference;
pub(crate) mod report;
pub(crate) mod server;
pub(crate) mod statements;
pub(crate) mod sums;

use std::process::ExitCode;

use clap::Parser;
use highwater::{Error, ErrorKind, Result};

pub(crate) use project::Project;
pub(crate) use report::{Budget, Report};
pub(crate) use server::{Bench, Db};

/// How a benchmark was called.
#[derive(Clone, Debug, Parser)]
#[command(disable_version_flag = true)]
pub(crate) struct Form {
    /// The form that the budgets are written for, instead of a short one.
    #[arg(long)]
    pub(crate) full: bool,
    /// How often everything is measured; 1, or 3 in the full form.
    #[arg(long)]
    runs: Option<usize>,
    /// Results as JSON on stdout too; they are always written to target/bench/NAME.json.
    #[arg(long)]
    json: bool,
    /// Only what has this in its name.
    pub(crate) only: Option<String>,
    /// Cargo says this.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Form {
    pub(crate) fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.full { 3 } else { 1 }).max(1)
    }

    /// The size for the form.
    pub(crate) fn size<T>(&self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }
}

/// Runs a benchmark: starts its server, measures, reports. It fails only if it could not run.
pub(crate) fn run(
    name: &str,
    measure: impl AsyncFnOnce(&Bench, &mut Report) -> Result<()>,
) -> ExitCode {
    run_with(name, &[], measure)
}

/// The same on a server with settings of its own, which only count.
pub(crate) fn run_with(
    name: &str,
    settings: &[(&str, &str)],
    measure: impl AsyncFnOnce(&Bench, &mut Report) -> Result<()>,
) -> ExitCode {
    let form = Form::parse();
    let done = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let bench = Bench::start_with(form.clone(), settings).await?;
            let mut report = Report::new(name, &form, bench.version());
            let measured = measure(&bench, &mut report).await;
            bench.stop().await;
            measured?;
            report.publish(form.json)
        })
    };
    match done() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn failed(error: impl std::error::Error) -> Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Error::new(ErrorKind::Internal, text)
}
