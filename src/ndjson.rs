//! Events as lines of JSON: the format of `highwater append` and `highwater events`.
//!
//! One event a line, plain or gz, and each error names the file, the line and what to do. A line is
//! never buffered beyond the limit.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{ExpectedVersion, NewEvent};

mod line;
mod parse;

pub use line::to_line;

/// The default limit of a line: 16 MiB.
pub const LINE_LIMIT: usize = 16 * 1024 * 1024;

/// The name that errors give to standard input.
const STANDARD_INPUT: &str = "standard input";

/// One long line must not hold its memory for the rest of the file.
const KEPT_BUFFER: usize = 1024 * 1024;

const GZ_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// An event of a file.
#[derive(Clone, Debug)]
pub struct NdjsonEvent {
    /// Its line, from 1.
    pub line: u64,
    /// How many bytes its line has.
    pub bytes: usize,
    /// The stream it is for.
    pub stream: String,
    /// The version that it expects of the stream.
    pub expected: ExpectedVersion,
    /// The event; `occurred_at` is in its metadata.
    pub event: NewEvent,
}

/// Reads events from a file, standard input or anything else. It ends after its first error.
pub struct NdjsonReader {
    name: String,
    input: Input,
    limit: usize,
    line: u64,
    buffer: Vec<u8>,
    bytes_read: Arc<AtomicU64>,
}

/// Nothing is read before the first event is asked for: standard input may block.
enum Input {
    Unopened(Box<dyn Read + Send>),
    Open {
        lines: Box<dyn BufRead + Send>,
        compressed: bool,
    },
    Ended,
}

impl NdjsonReader {
    /// Reads from `input`; errors call it `name`.
    pub fn new(name: impl Into<String>, input: impl Read + Send + 'static) -> NdjsonReader {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counted = CountingReader {
            input,
            bytes: Arc::clone(&bytes_read),
        };
        NdjsonReader {
            name: name.into(),
            input: Input::Unopened(Box::new(counted)),
            limit: LINE_LIMIT,
            line: 0,
            buffer: Vec::new(),
            bytes_read,
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or [`ErrorKind::Io`] if it cannot be opened.
    pub fn open(path: &Path) -> Result<NdjsonReader> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(NdjsonReader::new(name, file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotFound, "there is no such file")
                    .with_location(name)
                    .with_hint("give the path of a file of events, or - for standard input"))
            }
            Err(e) => Err(Error::new(ErrorKind::Io, format!("cannot open it: {e}"))
                .with_location(name)
                .with_hint("check that it is a file that you may read")
                .with_source(e)),
        }
    }

    /// Reads standard input.
    pub fn stdin() -> NdjsonReader {
        NdjsonReader::new(STANDARD_INPUT, std::io::stdin())
    }

    /// With another limit for the length of a line, in bytes.
    #[must_use]
    pub fn with_line_limit(mut self, bytes: usize) -> NdjsonReader {
        self.limit = bytes;
        self
    }

    /// The name that errors give to the input.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts what was read of the input, before decompression: for a progress bar.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }

    /// The next event, or `None` at the end. Blocks while the input blocks.
    ///
    /// # Errors
    /// [`ErrorKind::BadEvent`] for a line that is no event, [`ErrorKind::Io`] if reading failed.
    pub fn next_event(&mut self) -> Result<Option<NdjsonEvent>> {
        let next = self.next_line_event();
        if !matches!(next, Ok(Some(_))) {
            self.input = Input::Ended;
        }
        next
    }

    fn next_line_event(&mut self) -> Result<Option<NdjsonEvent>> {
        while self.read_line()? {
            let mut text = self.buffer.as_slice();
            if self.line == 1 {
                text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
            }
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return match parse::event(text) {
                Ok(mut event) => {
                    event.line = self.line;
                    Ok(Some(event))
                }
                Err(error) => Err(error.with_location(location(&self.name, self.line))),
            };
        }
        Ok(None)
    }

    /// Reads the next line into the buffer; false at the end.
    fn read_line(&mut self) -> Result<bool> {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER);
        let most = (self.limit as u64).saturating_add(1);
        let read = match self.input.open() {
            Ok(Some(input)) => input.take(most).read_until(b'\n', &mut self.buffer),
            Ok(None) => Ok(0),
            Err(error) => Err(error),
        };
        match read {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.line += 1;
                self.check_length().map(|()| true)
            }
            Err(error) => Err(self.explain_read(error)),
        }
    }

    fn check_length(&self) -> Result<()> {
        if self.buffer.len() <= self.limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::BadEvent,
            format!("the line is longer than {} bytes", self.limit),
        )
        .with_location(location(&self.name, self.line))
        .with_hint("write one event a line, and keep large contents elsewhere"))
    }

    fn explain_read(&self, error: std::io::Error) -> Error {
        let compressed = matches!(
            self.input,
            Input::Open {
                compressed: true,
                ..
            }
        );
        let (what, hint) = match error.kind() {
            std::io::ErrorKind::UnexpectedEof if compressed => (
                "the gz data ends too early".to_owned(),
                "copy or download the file again",
            ),
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput if compressed => (
                format!("the gz data is damaged: {error}"),
                "copy or download the file again",
            ),
            _ => (
                format!("cannot read further: {error}"),
                "check that it is a file that you may read",
            ),
        };
        Error::new(ErrorKind::Io, what)
            .with_location(location(&self.name, self.line + 1))
            .with_hint(hint)
            .with_source(error)
    }
}

impl Iterator for NdjsonReader {
    type Item = Result<NdjsonEvent>;

    fn next(&mut self) -> Option<Result<NdjsonEvent>> {
        self.next_event().transpose()
    }
}

impl Input {
    /// The lines, opened at the first call; `None` once ended.
    fn open(&mut self) -> std::io::Result<Option<&mut (dyn BufRead + Send)>> {
        if let Input::Unopened(raw) = self {
            let raw = std::mem::replace(raw, Box::new(std::io::empty()));
            *self = detect(raw)?;
        }
        match self {
            Input::Open { lines, .. } => Ok(Some(lines.as_mut())),
            Input::Unopened(_) | Input::Ended => Ok(None),
        }
    }
}

/// Plain or gz, by the first two bytes: a name may say anything.
fn detect(mut raw: Box<dyn Read + Send>) -> std::io::Result<Input> {
    let mut head = Vec::with_capacity(GZ_MAGIC.len());
    raw.by_ref()
        .take(GZ_MAGIC.len() as u64)
        .read_to_end(&mut head)?;
    let compressed = head == GZ_MAGIC;
    let whole = BufReader::with_capacity(64 * 1024, Cursor::new(head).chain(raw));
    let lines = if compressed {
        unzipped(whole)?
    } else {
        Box::new(whole)
    };
    Ok(Input::Open { lines, compressed })
}

#[cfg(feature = "gz")]
fn unzipped(input: impl BufRead + Send + 'static) -> std::io::Result<Box<dyn BufRead + Send>> {
    let plain = flate2::bufread::MultiGzDecoder::new(input);
    Ok(Box::new(BufReader::with_capacity(64 * 1024, plain)))
}

#[cfg(not(feature = "gz"))]
fn unzipped(_: impl BufRead + Send + 'static) -> std::io::Result<Box<dyn BufRead + Send>> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "it is compressed, and this program was built without the feature gz",
    ))
}

/// Counts the bytes that are read.
struct CountingReader<R> {
    input: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A line as errors name it.
pub(crate) fn location(name: &str, line: u64) -> String {
    format!("{name}: line {line}")
}

#[cfg(test)]
mod tests;
