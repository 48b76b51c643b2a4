//! `highwater.toml`: every key with its unit, its default and the reason for it.
//!
//! `docs/highwater.toml` is the same as a commented file; a test holds the two together.

mod duration;
mod file;
mod with;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

pub use duration::{format_duration, parse_duration};
pub use file::FILE_NAME;

/// The whole file. Every key is optional, an unknown one is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// `[database]`: where the events and the read models are.
    pub database: Database,
    /// `[engine]`: how the runners of a process behave.
    pub engine: Engine,
    /// `[projections]`: where the projections' files are.
    pub projections: Projections,
}

/// `[database]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Database {
    /// A URL or `key=value` text, as [`crate::pg::connect::Connector::parse`] reads it. Default:
    /// none, because a password belongs in the environment: `--database-url` and `DATABASE_URL`
    /// override it, the PG* variables fill what it leaves out.
    pub url: Option<DatabaseUrl>,
    /// The same database without the pooler in between, for LISTEN. Default: none, which is
    /// `url`. Without it behind a pooler new events are found by polling.
    pub direct_url: Option<DatabaseUrl>,
}

/// `[engine]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Engine {
    /// How long an instance owns a runner without a sign of life. A duration, 1 s to 1 h, default
    /// 5 s: another instance takes over within this time after a kill, and an instance writes one
    /// renewal in each third of it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease: Duration,
    /// How long stop and pause wait for the batch in flight before it is rolled back. A duration,
    /// 0 s to 10 m, default 1 s: a live batch takes milliseconds, and one of a catch-up is
    /// cheap to do again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stop_grace: Duration,
    /// The longest pause between two polls of an idle source. A duration, 2 ms to 1 m, default 200
    /// ms: at most 5 queries a second for an idle source, and no event waits longer than this when
    /// its wake is lost.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_slowest: Duration,
    /// Whether the engine listens for wakes. Default true: events are visible sooner. It takes one
    /// session that does not go through a pooler in transaction mode.
    pub listen: bool,
    /// The most events one transaction applies. 1 to 10,000,000, default 1,000,000: batches grow as
    /// far as time and memory allow; this only bounds the cost of one rollback.
    pub batch_events_max: u32,
    /// The longest that a batch may take. A duration, 1 s to 1 day, default 5 m: the server ends
    /// one that takes longer, and the engine retries it smaller; a shorter `statement_timeout` of
    /// the role or the database still holds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub batch_timeout: Duration,
    /// For how long a transaction of a projection in Rust takes further batches while it is behind.
    /// A duration, 100 ms to 1 day, default 3 s: long enough that loading and writing rows costs
    /// little, short enough that others see progress. A projection that keeps nothing from one
    /// batch to the next has a sixth of it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub transaction_time: Duration,
    /// Whether each batch of a run that follows the log waits for disk and replicas as the server
    /// is set to (`synchronous_commit`). Default false: a crash of the server may undo the last 0.6
    /// s of read models (three times `wal_writer_delay`), together with their checkpoints, and they
    /// are applied again. A run that ends by itself waits in any case.
    pub await_disk: bool,
    /// The longest that a server may take over a short statement: a poll of the source, the
    /// checkpoint, the lease. A duration, 1 s to 10 m, default 10 s: a session that does not answer
    /// in that time is closed, and the statement is retried on another.
    #[serde(deserialize_with = "duration::deserialize")]
    pub answer_timeout: Duration,
    /// The most sessions a process holds, besides the two that listen. 1 to 1,000, default 8:
    /// runners take turns, and more of them would only wait for the server's cores.
    pub pool_size: u32,
    /// The longest pause before a retry after a transient error. A duration, 100 ms to 1 h, default
    /// 30 s: the pauses grow up to it, so that a server that comes back is found soon and not
    /// overloaded.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_delay_max: Duration,
    /// The most keys that a projection parks. 1 to 100,000, default 1,000: with more than that the
    /// projection is wrong, not some events: it stops at the next one.
    pub parked_keys_max: u32,
    /// The most dead letters that a projection keeps. 1 to 10,000,000, default 10,000: they are
    /// copies, and a retry applies each in a transaction of its own.
    pub dead_letters_max: u32,
}

/// The default of `[engine] answer_timeout`.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Engine {
    fn default() -> Engine {
        Engine {
            lease: Duration::from_secs(5),
            stop_grace: Duration::from_secs(1),
            poll_slowest: Duration::from_millis(200),
            listen: true,
            batch_events_max: 1_000_000,
            batch_timeout: Duration::from_secs(300),
            transaction_time: Duration::from_secs(3),
            await_disk: false,
            answer_timeout: ANSWER_TIMEOUT,
            pool_size: 8,
            retry_delay_max: Duration::from_secs(30),
            parked_keys_max: 1_000,
            dead_letters_max: 10_000,
        }
    }
}

/// `[projections]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Projections {
    /// The directory of the `NAME.sql` files, relative to `highwater.toml`. Default
    /// `projections`.
    pub directory: PathBuf,
}

impl Default for Projections {
    fn default() -> Projections {
        Projections {
            directory: PathBuf::from("projections"),
        }
    }
}

/// A connection string, which may hold a password: only [`DatabaseUrl::expose`] shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Wraps a connection string without reading it.
    pub fn new(text: impl Into<String>) -> DatabaseUrl {
        DatabaseUrl(text.into())
    }

    /// The text with its password, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(***)")
    }
}

impl Config {
    /// Refuses values out of their limits, all of them in one error.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming every key that is wrong.
    pub fn validate(&self) -> Result<()> {
        let mut faults = self.engine.faults();
        if self.projections.directory.as_os_str().is_empty() {
            faults.push("projections.directory is empty".to_owned());
        }
        if self.database.direct_url.is_some() && self.database.url.is_none() {
            faults.push("database.direct_url is given without database.url".to_owned());
        }
        refused(&faults)
    }

    /// The directory of the projections' files, for a configuration that was read from `file`.
    pub fn projections_directory(&self, file: &Path) -> PathBuf {
        let base = file.parent().unwrap_or_else(|| Path::new(""));
        base.join(&self.projections.directory)
    }
}

fn refused(faults: &[String]) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, faults.join(", and "))
        .with_hint("fix it, or remove the key to get its default"))
}

impl Engine {
    /// Refuses values out of their limits, all of them in one error.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming every setting that is wrong.
    pub fn validate(&self) -> Result<()> {
        refused(&self.faults())
    }

    fn faults(&self) -> Vec<String> {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = Duration::from_secs(3600);
        let durations = [
            ("lease", self.lease, SECOND, HOUR),
            ("stop_grace", self.stop_grace, Duration::ZERO, 10 * MINUTE),
            ("poll_slowest", self.poll_slowest, SECOND / 500, MINUTE),
            ("retry_delay_max", self.retry_delay_max, SECOND / 10, HOUR),
            ("batch_timeout", self.batch_timeout, SECOND, 24 * HOUR),
            (
                "transaction_time",
                self.transaction_time,
                SECOND / 10,
                24 * HOUR,
            ),
            ("answer_timeout", self.answer_timeout, SECOND, 10 * MINUTE),
        ];
        let numbers = [
            ("batch_events_max", self.batch_events_max, 10_000_000),
            ("pool_size", self.pool_size, 1_000),
            ("parked_keys_max", self.parked_keys_max, 100_000),
            ("dead_letters_max", self.dead_letters_max, 10_000_000),
        ];
        let durations = durations.into_iter().filter_map(|(key, value, from, to)| {
            let [shown, low, high] = [value, from, to].map(format_duration);
            let is_wrong = value < from || value > to;
            is_wrong.then(|| format!("engine.{key} is {shown}, but must be from {low} to {high}"))
        });
        let numbers = numbers.into_iter().filter_map(|(key, value, to)| {
            let is_wrong = value < 1 || value > to;
            is_wrong.then(|| format!("engine.{key} is {value}, but must be from 1 to {to}"))
        });
        durations.chain(numbers).collect()
    }
}

#[cfg(test)]
mod tests;
