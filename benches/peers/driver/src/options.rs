//! What the command line and `../run` say.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::measure::Test;
use crate::size::Size;

const USAGE: &str = "\
usage: benches/peers/run [OPTIONS] [PEER…]     (no PEER: all of them)
  --quick         a small form, for trials; its results go to files of their own
  --only TEST     catch-up, latency, exactness, slow-commits or append-cost; may be given more than once
  --runs N        how often each test is taken (default 1); results of several calls add up
  --replace       forget what was measured before of the same peers and tests
  --build-only    install and build, measure nothing
  --table-only    write the table anew from the results that are there";

#[derive(Debug)]
pub struct Options {
    pub quick: bool,
    pub only: Vec<Test>,
    pub runs: usize,
    pub replace: bool,
    pub build_only: bool,
    pub table_only: bool,
    named: Vec<String>,
}

impl Options {
    pub fn from_args() -> Result<Options> {
        let mut options = Options {
            quick: false,
            only: Vec::new(),
            runs: 1,
            replace: false,
            build_only: false,
            table_only: false,
            named: Vec::new(),
        };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--replace" => options.replace = true,
                "--build-only" => options.build_only = true,
                "--table-only" => options.table_only = true,
                "--only" => options.only.push(args.next().context(USAGE)?.parse()?),
                "--runs" => options.runs = args.next().context(USAGE)?.parse()?,
                name if !name.starts_with('-') => options.named.push(name.to_owned()),
                _ => bail!("{USAGE}"),
            }
        }
        Ok(options)
    }

    pub fn size(&self) -> Size {
        if self.quick { Size::QUICK } else { Size::FULL }
    }

    /// The peers that were named, or every directory with a program `peer`.
    pub fn peers(&self, home: &Home) -> Result<Vec<String>> {
        if !self.named.is_empty() {
            return Ok(self.named.clone());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&home.peers)? {
            let entry = entry?;
            if entry.path().join("peer").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Where everything is.
#[derive(Debug)]
pub struct Home {
    /// `benches/peers`.
    pub peers: PathBuf,
    /// Where builds and scratch files go.
    pub target: PathBuf,
    /// Where the table and its figures go.
    pub results: PathBuf,
    /// The released binary.
    pub highwater: PathBuf,
}

impl Home {
    pub fn from_env() -> Result<Home> {
        let path = |name| -> Result<PathBuf> {
            Ok(env::var_os(name)
                .with_context(|| format!("{name} is not set; call benches/peers/run"))?
                .into())
        };
        Ok(Home {
            peers: path("PEER_HOME")?,
            target: path("PEER_TARGET")?,
            results: path("PEER_RESULTS")?,
            highwater: path("PEER_HIGHWATER")?,
        })
    }
}
