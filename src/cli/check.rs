//! `check`: finds faults before anything runs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Done, Exit, to_json};
use crate::check::{self, Check, Finding, Level};
use crate::error::ErrorKind;
use crate::pg::database::Database;
use crate::source::Source;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks the configuration, every projection's file, the order that the event table guarantees, and \
the SQL of each projection in a transaction that it rolls back. Nothing is left behind. Exits with \
0 if there are only warnings.")]
pub(super) struct Args {}

pub(super) async fn run(_: Args, ctx: &Context) -> Done {
    let config = ctx.config_file()?;
    let directory = ctx.projections_dir()?;
    let is_needed = ctx.compiled().is_empty() || directory.exists();
    let reached = reach(ctx).await?;
    let sources: Vec<Arc<dyn Source>> = match &reached {
        Some((_, source)) => vec![source.clone()],
        None => Vec::new(),
    };
    let findings = check::run(Check {
        config,
        directory: is_needed.then_some(directory.as_path()),
        compiled: ctx.compiled(),
        database: reached.as_ref().map(|(database, _)| database),
        sources: &sources,
    })
    .await;
    if ctx.wants_json() {
        ctx.json(&json!({ "findings": findings.iter().map(finding).collect::<Vec<_>>() }))?;
    } else {
        ctx.write(check::render(&findings).as_bytes())?;
        if findings.is_empty() {
            ctx.ui().say("no problems found");
        }
    }
    let first = findings.iter().find(|found| found.level == Level::Error);
    Ok(first.map_or(Exit::Done, |found| Exit::of(found.error.kind())))
}

/// The database and its source; `None`, and a warning, if it does not answer.
async fn reach(ctx: &Context) -> crate::Result<Option<(Database, Arc<dyn Source>)>> {
    match ctx.target().await {
        Ok(database) => Ok(Some((database, ctx.source().await?))),
        Err(error) if error.kind() == ErrorKind::ConnectionLost => {
            ctx.ui().warn(&error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn finding(found: &Finding) -> Value {
    let level = match found.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    json!({ "level": level, "error": to_json(&found.error) })
}
