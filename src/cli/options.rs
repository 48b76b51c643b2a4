//! The options of every command.

use std::path::PathBuf;

use clap::ValueEnum;

/// The options of every command.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database, as a URL or key=value text [env: DATABASE_URL]
    // Not clap's own `env`: an empty variable counts as none, and errors name the place.
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub(super) database_url: Option<String>,
    /// The configuration, instead of the nearest highwater.toml above
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(super) config: Option<PathBuf>,
    /// The directory of the projections' files, instead of the configured one
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(super) projections: Option<PathBuf>,
    /// Print the result as JSON, and errors too
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(super) json: bool,
    /// How the log is written to stderr
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", help_heading = GLOBAL)]
    pub(super) log_format: LogFormat,
    /// Print only warnings and errors to stderr
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    pub(super) quiet: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub(super) verbose: u8,
}

const GLOBAL: &str = "Options of every command";

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
