//! The log: tracing to stderr, between the progress bars.

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::options::{LogFormat, Options};
use super::ui::Ui;
use crate::error::{Error, ErrorKind, Result};

/// Sends the log of this process to stderr. RUST_LOG selects its content, else `-v` and `-q`.
///
/// # Errors
/// [`ErrorKind::Config`] if RUST_LOG cannot be understood.
pub(super) fn start(options: &Options, observed: bool, ui: &Ui) -> Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(options, observed)?)
        .with_writer(Writer(ui.clone()));
    let has_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // It fails if the program has a subscriber of its own already, which then stays.
    let _ = match options.log_format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(has_color && std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

fn filter(options: &Options, observed: bool) -> Result<EnvFilter> {
    let variable = std::env::var("RUST_LOG").unwrap_or_default();
    // Silences the pool's messages about lost sessions: the task that needed one reports it, with
    // the reason.
    let text = match (options.quiet, options.verbose) {
        _ if !variable.is_empty() => variable.as_str(),
        (true, _) => "warn,deadpool=error",
        (false, 0) if observed => "warn,deadpool=error,highwater=info",
        (false, 0) => "warn,deadpool=error",
        (false, 1) => "warn,deadpool=error,highwater=debug",
        (false, _) => "debug,highwater=trace",
    };
    EnvFilter::builder().parse(text).map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("it cannot be understood: {error}"),
        )
        .with_location("RUST_LOG")
        .with_hint("write it as in RUST_LOG=highwater=debug, or unset it")
    })
}

/// stderr, by way of the bars.
struct Writer(Ui);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// One event of the log: it comes in one piece.
struct Line<'a>(&'a Ui);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
