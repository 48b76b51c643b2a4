//! Where the server's programs are on this machine.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, ErrorKind, Result};

/// The oldest server the schema and the engine are written for.
const OLDEST: u32 = 14;

/// The variable that names the directory and ends the search.
const VARIABLE: &str = "HIGHWATER_PG_BINDIR";

/// Where packages put a server: the directory that holds one entry per version, what such an
/// entry's name begins with, and the way from there to the programs.
const INSTALLATIONS: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// The programs of one PostgreSQL server: the directory with `initdb` and `postgres`.
#[derive(Clone, Debug)]
pub struct Binaries {
    bin_dir: PathBuf,
    major: u32,
    full: String,
}

impl Binaries {
    /// Finds them: `HIGHWATER_PG_BINDIR`, `pg_config --bindir`, the newest installation in the
    /// usual places, `PATH`; the first directory with both programs, of version 14 or later.
    pub fn locate() -> Result<Binaries> {
        Binaries::locate_where(|_| true)?.ok_or_else(nothing_found)
    }

    /// Finds those of one major version, for a data directory that only they can open.
    pub(crate) fn locate_major(major: u32) -> Result<Option<Binaries>> {
        let found = Binaries::locate_where(|found| found.major == major)?;
        Ok(found.filter(|found| found.major == major))
    }

    fn locate_where(wanted: impl Fn(&Binaries) -> bool) -> Result<Option<Binaries>> {
        if let Some(named) = env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            return Binaries::named(Path::new(&named)).map(Some);
        }
        Binaries::first_of(candidates(), wanted)
    }

    /// The directory that the user named: a mistake in it is reported, not ignored.
    fn named(bin_dir: &Path) -> Result<Binaries> {
        let hint = format!("set {VARIABLE} to the directory that holds initdb and postgres");
        if !is_complete(bin_dir) {
            return Err(
                Error::new(ErrorKind::Setup, "there is no initdb and postgres here")
                    .with_location(format!("{VARIABLE}={}", bin_dir.display()))
                    .with_hint(hint),
            );
        }
        let found = Binaries::read(bin_dir)?;
        if found.major < OLDEST {
            return Err(too_old(&found));
        }
        Ok(found)
    }

    /// `None` if there are servers, but none that is wanted.
    fn first_of(
        candidates: Vec<PathBuf>,
        wanted: impl Fn(&Binaries) -> bool,
    ) -> Result<Option<Binaries>> {
        let mut old = None;
        let mut other = false;
        for bin_dir in candidates {
            if !is_complete(&bin_dir) {
                continue;
            }
            let Ok(found) = Binaries::read(&bin_dir) else {
                continue;
            };
            if found.major < OLDEST {
                old.get_or_insert(found);
            } else if wanted(&found) {
                return Ok(Some(found));
            } else {
                other = true;
            }
        }
        match old {
            _ if other => Ok(None),
            Some(found) => Err(too_old(&found)),
            None => Err(nothing_found()),
        }
    }

    /// Asks the server program for its version.
    fn read(bin_dir: &Path) -> Result<Binaries> {
        let program = bin_dir.join("postgres");
        let said = output_of(&program, "--version");
        let version = said.as_deref().and_then(parse_version);
        let Some((major, full)) = version else {
            return Err(Error::new(
                ErrorKind::Setup,
                "postgres --version does not answer with a version",
            )
            .with_location(program.display().to_string())
            .with_hint("reinstall PostgreSQL, or set DATABASE_URL"));
        };
        Ok(Binaries {
            bin_dir: bin_dir.to_owned(),
            major,
            full,
        })
    }

    /// Those of a running server, which said where they are and what it is.
    pub(crate) fn of_running(bin_dir: PathBuf, server_version: &str) -> Binaries {
        let (major, full) = parse_number(server_version).unwrap_or_default();
        Binaries {
            bin_dir,
            major,
            full,
        }
    }

    /// The directory that holds `initdb`, `postgres`, and mostly `psql` and `pg_dump`.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The major version and the full one: `(15, "15.18")`.
    pub fn version(&self) -> (u32, String) {
        (self.major, self.full.clone())
    }

    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    pub(crate) fn full(&self) -> &str {
        &self.full
    }
}

/// The candidate directories, best first.
fn candidates() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = output_of(Path::new("pg_config"), "--bindir")
        .map(|said| PathBuf::from(said.trim()))
        .into_iter()
        .collect();
    all.extend(installations(&INSTALLATIONS));
    all.extend(on_path(env::var_os("PATH")));
    all
}

fn on_path(path: Option<OsString>) -> Vec<PathBuf> {
    path.map(|path| env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// The directories of all installations, the newest version first.
fn installations(places: &[(&str, &str, &str)]) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = places
        .iter()
        .flat_map(|(parent, prefix, below)| versions_in(Path::new(parent), prefix, below))
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, bin_dir)| bin_dir).collect()
}

fn versions_in(parent: &Path, prefix: &str, below: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?;
            let major = version.split('.').next()?.parse().ok()?;
            Some((major, entry.path().join(below)))
        })
        .collect()
}

fn is_complete(bin_dir: &Path) -> bool {
    bin_dir.is_absolute()
        && ["initdb", "postgres"]
            .iter()
            .all(|program| bin_dir.join(program).is_file())
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(said: &str) -> Option<(u32, String)> {
    let (_, version) = said.split_once("(PostgreSQL) ")?;
    parse_number(version)
}

/// Reads `15.18 (Debian 15.18-0+deb12u1)`, `18beta1`.
fn parse_number(version: &str) -> Option<(u32, String)> {
    let full = version.split_whitespace().next()?;
    let digits: String = full.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, full.to_owned()))
}

fn too_old(found: &Binaries) -> Error {
    Error::new(
        ErrorKind::Setup,
        format!(
            "PostgreSQL {} is too old; highwater needs {OLDEST} or later",
            found.full
        ),
    )
    .with_location(found.bin_dir.display().to_string())
    .with_hint(WAYS_OUT)
}

fn nothing_found() -> Error {
    Error::new(
        ErrorKind::Setup,
        "no database is named, and there is no PostgreSQL server on this machine to start a private one",
    )
    .with_hint(WAYS_OUT)
}

const WAYS_OUT: &str = "set DATABASE_URL to a database, install a server \
     (apt install postgresql, brew install postgresql@17), or set HIGHWATER_PG_BINDIR to the \
     directory that holds initdb and postgres";

#[cfg(test)]
mod tests;
