//! A peer: a directory with a program `peer`, whose verbs the kit's `program.rs` tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use peer_kit::writers::Report;
use serde::Deserialize;
use tokio::process::Command;

use crate::measure::Test;
use crate::options::Home;
use crate::process::{Background, output};

pub struct Peer {
    pub name: String,
    pub about: About,
    program: Program,
}

/// What a peer says of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub version: String,
    /// Its table of events.
    pub events: String,
    pub tests: Vec<Test>,
    /// Whether a process of its own keeps the read model.
    pub projects: bool,
    /// The ways in which it appends; the first one is used wherever one is enough.
    pub ways: Vec<String>,
    /// The way that loads a log, where the first one would take minutes.
    #[serde(default)]
    pub loads: Option<String>,
    /// How it is set, for the table.
    pub settings: String,
}

struct Program {
    path: PathBuf,
    environment: [(&'static str, PathBuf); 4],
}

impl Program {
    fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(verb).envs(self.environment.clone());
        command
    }
}

impl Peer {
    /// Installs and builds what it needs and asks what it is.
    pub async fn build(home: &Home, name: &str) -> Result<Peer> {
        let program = Program {
            path: home.peers.join(name).join("peer"),
            environment: [
                ("PEER_HOME", home.peers.clone()),
                ("PEER_TARGET", home.target.clone()),
                ("PEER_HIGHWATER", home.highwater.clone()),
                ("CARGO_TARGET_DIR", home.target.clone()),
            ],
        };
        output(&mut program.verb("build"))
            .await
            .with_context(|| format!("cannot build {name}"))?;
        let about = output(&mut program.verb("about")).await?;
        Ok(Peer {
            name: name.to_owned(),
            about: serde_json::from_str(&about).with_context(|| format!("{name} about"))?,
            program,
        })
    }

    /// Its tests, or those of them that were asked for.
    pub fn tests(&self, only: &[Test]) -> Vec<Test> {
        let asked = |test: &Test| only.is_empty() || only.contains(test);
        self.about.tests.iter().copied().filter(asked).collect()
    }

    /// The peer at work on one database, with an empty directory for its own files.
    pub fn on(&self, url: &str, dir: &Path) -> Result<AtWork<'_>> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        Ok(AtWork {
            program: &self.program,
            projects: self.about.projects,
            url: url.to_owned(),
            dir: dir.to_owned(),
        })
    }
}

pub struct AtWork<'a> {
    program: &'a Program,
    projects: bool,
    pub url: String,
    dir: PathBuf,
}

/// What `write` is told besides the file.
#[derive(Debug, Default)]
pub struct Writing<'a> {
    pub way: Option<&'a str>,
    pub rate: Option<usize>,
    pub limit: Option<Duration>,
    pub log: Option<&'a Path>,
}

impl<'a> AtWork<'a> {
    /// The same peer and files, on a copy of its database.
    pub fn moved_to(&self, url: &str) -> AtWork<'a> {
        AtWork {
            program: self.program,
            projects: self.projects,
            url: url.to_owned(),
            dir: self.dir.clone(),
        }
    }

    pub async fn setup(&self) -> Result<()> {
        output(&mut self.verb("setup")).await?;
        Ok(())
    }

    /// Starts its projection, if a process of its own keeps the read model.
    pub fn project(&self) -> Result<Option<Background>> {
        if !self.projects {
            return Ok(None);
        }
        Background::start(&mut self.verb("project")).map(Some)
    }

    pub async fn write(&self, file: &Path, how: &Writing<'_>) -> Result<Report> {
        let mut command = self.verb("write");
        command.arg(file);
        if let Some(way) = how.way {
            command.args(["--way", way]);
        }
        if let Some(rate) = how.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if let Some(log) = how.log {
            command.arg("--log").arg(log);
        }
        report(command, how.limit).await
    }

    pub async fn plain(&self, file: &Path, limit: Duration) -> Result<Report> {
        let mut command = self.verb("plain");
        command.arg(file);
        report(command, Some(limit)).await
    }

    fn verb(&self, verb: &str) -> Command {
        let mut command = self.program.verb(verb);
        command
            .env("PEER_DATABASE_URL", &self.url)
            .env("PEER_WORK", &self.dir);
        command
    }
}

async fn report(mut command: Command, limit: Option<Duration>) -> Result<Report> {
    if let Some(limit) = limit {
        command.args(["--seconds", &limit.as_secs_f64().to_string()]);
    }
    let printed = output(&mut command).await?;
    let last = printed.lines().last().context("no report")?;
    serde_json::from_str(last).with_context(|| format!("not a report: {last}"))
}
