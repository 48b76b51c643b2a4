//! `init`: a schema, a configuration and a first projection; what exists already stays.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind as IoKind, Write};
use std::path::Path;

use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use super::text::{count, seen_from_here};
use crate::config::FILE_NAME;
use crate::error::{Error, ErrorKind, Result};

const CONFIG: &str = include_str!("init/highwater.toml");
/// The first projection and its test, by their file names.
const FIRST: [(&str, &str); 2] = [
    ("streams.sql", include_str!("init/streams.sql")),
    ("streams.test.toml", include_str!("init/streams.test.toml")),
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// The outcome for each file.
#[derive(Default)]
struct Files {
    created: Vec<String>,
    kept: Vec<String>,
}

pub(super) async fn run(_args: Args, ctx: &Context) -> Done {
    let mut files = Files::default();
    configuration(ctx, &mut files)?;
    projections(ctx, &mut files)?;
    let applied = ctx.migrated().await?;
    let database = ctx.describe_database().await?;
    if ctx.wants_json() {
        let migrations: Vec<i32> = applied.iter().map(|migration| migration.number).collect();
        ctx.json(&json!({
            "created": files.created,
            "kept": files.kept,
            "migrations": migrations,
            "database": database,
        }))?;
        return Ok(Exit::Done);
    }
    match applied.as_slice() {
        [] => ctx.line(&format!(
            "kept schema highwater of database {database}: it is up to date"
        ))?,
        [first, ..] if first.number == 1 => {
            ctx.line(&format!("created schema highwater in database {database}"))?;
        }
        [..] => ctx.line(&format!("updated schema highwater of database {database}"))?,
    }
    let program = ctx.program();
    ctx.ui().say(&format!(
        "next: {program} append FILE (one event as JSON a line), then {program} run"
    ));
    Ok(Exit::Done)
}

fn configuration(ctx: &Context, files: &mut Files) -> Result<()> {
    match ctx.config_file()? {
        Some(file) => files.keep(ctx, file, ""),
        None => files.create(ctx, Path::new(FILE_NAME), CONFIG),
    }
}

/// If there is a projection already, a first one is not needed.
fn projections(ctx: &Context, files: &mut Files) -> Result<()> {
    let directory = ctx.projections_dir()?;
    let there = match fs::read_dir(&directory) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "sql"))
            .count(),
        Err(error) if error.kind() == IoKind::NotFound => {
            fs::create_dir_all(&directory)
                .map_err(|error| failed("cannot create the directory", &directory, error))?;
            0
        }
        Err(error) => return Err(failed("cannot read the directory", &directory, error)),
    };
    if there > 0 {
        let projections = count(there as u64, "projection");
        return files.keep(ctx, &directory, &format!(" with its {projections}"));
    }
    for (name, content) in FIRST {
        files.create(ctx, &directory.join(name), content)?;
    }
    Ok(())
}

impl Files {
    fn keep(&mut self, ctx: &Context, path: &Path, what: &str) -> Result<()> {
        let path = seen_from_here(path).display().to_string();
        self.kept.push(path.clone());
        if ctx.wants_json() {
            return Ok(());
        }
        ctx.line(&format!("kept {path}{what}"))
    }

    /// Creates a file; an existing one is kept.
    fn create(&mut self, ctx: &Context, path: &Path, content: &str) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        match file.and_then(|mut file| file.write_all(content.as_bytes())) {
            Ok(()) => {}
            Err(error) if error.kind() == IoKind::AlreadyExists => return self.keep(ctx, path, ""),
            Err(error) => return Err(failed("cannot create the file", path, error)),
        }
        let path = seen_from_here(path).display().to_string();
        self.created.push(path.clone());
        if ctx.wants_json() {
            return Ok(());
        }
        ctx.line(&format!("created {path}"))
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        IoKind::PermissionDenied | IoKind::ReadOnlyFilesystem => {
            "change into a directory that you may write to"
        }
        _ => "fix that, and run init again",
    };
    Error::new(ErrorKind::Io, format!("{doing}: {error}"))
        .with_location(path.display().to_string())
        .with_hint(hint)
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_that_is_created_has_every_key_at_its_default() {
        let given = Config::parse(CONFIG, FILE_NAME).unwrap();
        assert_eq!(given, Config::default());
        let is_key = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let uncommented: String = CONFIG
            .lines()
            .filter(|line| !line.contains("_url = ") && !line.contains("# url = "))
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split(" = ").next().is_some_and(is_key) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert!(uncommented.contains("\nlease = \"5s\"\n"));
        assert_eq!(
            Config::parse(&uncommented, FILE_NAME).unwrap(),
            Config::default()
        );
    }
}
