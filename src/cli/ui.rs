//! stderr: messages, errors and progress bars, which never tear each other; and the end.

use std::io::{IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::exit::{Done, Exit, to_json};
use super::options::{LogFormat, Options};
use crate::error::Error;

/// The messages on stderr. Clones share the bars.
#[derive(Clone)]
pub(super) struct Ui {
    bars: MultiProgress,
    shows_bars: bool,
    quiet: bool,
    errors_as_json: bool,
    format: LogFormat,
}

impl Ui {
    pub(super) fn new(options: &Options) -> Ui {
        let shows_bars = std::io::stderr().is_terminal()
            && !options.quiet
            && options.log_format == LogFormat::Text;
        let target = if shows_bars {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Ui {
            bars: MultiProgress::with_draw_target(target),
            shows_bars,
            quiet: options.quiet,
            errors_as_json: options.json || options.log_format == LogFormat::Json,
            format: options.log_format,
        }
    }

    /// Whether bars are visible, so that the log need not report the progress.
    pub(super) fn shows_bars(&self) -> bool {
        self.shows_bars
    }

    /// A bar of its own; it is gone when it is finished.
    pub(super) fn bar(&self, template: &str) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::no_length());
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style.progress_chars("━╸ ")),
            // A plain bar is better than none.
            Err(_) => bar,
        }
    }

    /// Prints a message that the user may like to know; not with `-q`.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            self.message("INFO", text);
        }
    }

    /// Prints a message that the user should know.
    pub(super) fn warn(&self, text: &str) {
        match self.format {
            LogFormat::Text => self.message("WARN", &format!("warning: {text}")),
            LogFormat::Json => self.message("WARN", text),
        }
    }

    fn message(&self, level: &str, text: &str) {
        match self.format {
            LogFormat::Text => self.write(text),
            LogFormat::Json => {
                let timestamp = jiff::Timestamp::now();
                let line = json!({ "timestamp": timestamp, "level": level, "message": text });
                self.write(&line.to_string());
            }
        }
    }

    fn error(&self, error: &Error) {
        if self.errors_as_json {
            self.write(&json!({ "error": to_json(error) }).to_string());
        } else {
            self.write(&format!("error: {error}"));
        }
    }

    fn write(&self, text: &str) {
        self.write_all(format!("{text}\n").as_bytes());
    }

    /// Writes to stderr between two drawings of the bars. A closed stderr is no error.
    pub(super) fn write_all(&self, bytes: &[u8]) {
        self.bars.suspend(|| {
            let _ = std::io::stderr().lock().write_all(bytes);
        });
    }

    /// Removes the bars.
    pub(super) fn clear(&self) {
        let _ = self.bars.clear();
    }

    /// The end of a command: says why it failed, and with which code it ends.
    pub(super) fn finish(&self, done: Done) -> Exit {
        self.clear();
        match done {
            Ok(exit) => exit,
            Err(failure) if failure.is_closed_pipe() => Exit::Done,
            Err(failure) => {
                for error in &failure.0 {
                    self.error(error);
                }
                failure.exit()
            }
        }
    }
}
