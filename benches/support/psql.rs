//! A file of SQL by a `psql` of its own: what a person would run instead of highwater.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use highwater::{Error, ErrorKind, Result};
use tokio::process::Command;

use super::{Db, failed};

/// How long a `psql` took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// From its start to its end.
    pub(crate) process: Duration,
    /// Its statements alone, by its own clock.
    pub(crate) statements: Duration,
}

/// Runs a file of `benches/models` with these variables; names without a schema are those of `schema`.
pub(crate) async fn run(
    db: &Db,
    schema: &str,
    file: &str,
    variables: &[(&str, &str)],
) -> Result<Timing> {
    let mut command = Command::new(program(&db.bin_dir));
    command
        .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", &db.url])
        .args(
            variables
                .iter()
                .map(|(name, value)| format!("--set={name}={value}")),
        )
        .args(["--command", "\\timing on", "--file"])
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("benches/models")
                .join(file),
        )
        .env("PGOPTIONS", format!("-c search_path={schema}"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output().await.map_err(failed)?;
    let process = began.elapsed();
    if !output.status.success() {
        let what = format!("psql, {file}: {}", String::from_utf8_lossy(&output.stderr));
        return Err(Error::new(ErrorKind::Internal, what));
    }
    let statements = timed(&String::from_utf8_lossy(&output.stdout));
    Ok(Timing {
        process,
        statements,
    })
}

/// The one beside the server, if there is one.
fn program(bin_dir: &Path) -> PathBuf {
    let beside = bin_dir.join("psql");
    if beside.is_file() {
        beside
    } else {
        "psql".into()
    }
}

/// The sum of lines such as `Time: 1234.567 ms (00:01.235)`.
fn timed(output: &str) -> Duration {
    let times = output.lines().filter_map(|line| {
        let milliseconds = line.strip_prefix("Time: ")?.split(' ').next()?;
        milliseconds.parse::<f64>().ok()
    });
    Duration::from_secs_f64(times.sum::<f64>() / 1e3)
}
