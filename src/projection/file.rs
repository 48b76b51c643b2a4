//! A projection as one SQL file: a TOML header in a comment, then the sections `up` and `apply`.
//!
//! ```sql
//! /* highwater
//! events = ["FileAdded", "FileDeleted"]
//! */
//!
//! -- highwater: up
//! create table files (path text primary key);
//!
//! -- highwater: apply
//! insert into files select data->>'path' from batch on conflict do nothing;
//! ```
//!
//! A file is read once, as a whole; line ends, comments and blanks do not change its meaning.

mod directory;
mod header;
mod sections;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::sql_text::{self, BatchPlace, Fault, Lines};

pub use directory::{load_directory, refuse_taken_names};
pub(crate) use directory::{load_sound, read_text};
pub use header::{Header, OnError};

/// The largest file that is read, in bytes.
pub const FILE_SIZE_MAX: usize = 1024 * 1024;

/// A projection that is one SQL file, parsed and checked.
#[derive(Clone, Debug)]
pub struct ProjectionFile {
    /// The file's name without `.sql`.
    pub name: ProjectionName,
    /// Where the file is, as it was given.
    pub path: PathBuf,
    /// The settings in the file's first comment.
    pub header: Header,
    /// The whole text, as it was read.
    pub text: String,
    /// What creates the read model; no statements if the file has no such section.
    pub up: Section,
    /// What applies a batch to the read model: at least one statement.
    pub apply: Section,
}

/// One section of a projection's file.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The text of the section, from the line after its marker, line ends as `\n`.
    pub text: String,
    /// The line of the file on which `text` begins.
    pub first_line: usize,
    /// The statements, without what separates them.
    pub statements: Vec<Statement>,
}

/// One SQL statement of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The statement from its first token to its last, without the semicolon.
    pub text: String,
    /// The line of the file on which it begins.
    pub line: usize,
    /// The byte of the section's text at which it begins.
    pub offset: usize,
    /// Where in the section's text `batch` is defined for it.
    pub(super) batch: Option<BatchPlace>,
    /// The statement as the hash sees it.
    normal: String,
}

impl Statement {
    /// The line of the file that holds the character at `offset` (from 0) of this statement, as
    /// the server counts when it says where an error is.
    pub fn line_at(&self, offset: usize) -> usize {
        self.line + newlines_before(&self.text, offset)
    }
}

impl Section {
    /// The line of the file that holds the character at `offset` (from 0) of this section.
    pub fn line_at(&self, offset: usize) -> usize {
        self.first_line + newlines_before(&self.text, offset)
    }
}

fn newlines_before(text: &str, characters: usize) -> usize {
    text.chars().take(characters).filter(|c| *c == '\n').count()
}

/// The fingerprint of a projection's definition, as lower case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(String);

impl Hash {
    /// The digits, as they are stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ProjectionFile {
    /// Parses the text of the file at `path`, which is not read.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the file and the line, for every fault of the file.
    pub fn parse(path: &Path, text: &str) -> Result<ProjectionFile> {
        let source = SourceText::new(path, text)?;
        let name = source.name()?;
        let pieces = sql_text::lex(&source.text).map_err(|fault| source.fault(&fault))?;
        let parts = sections::cut(&source, &pieces)?;
        let header = match parts.header {
            Some(comment) => Header::parse(&source, comment)?,
            None => Header::default(),
        };
        Ok(ProjectionFile {
            text: source.text.clone(),
            name,
            path: path.to_owned(),
            header,
            up: parts.up,
            apply: parts.apply,
        })
    }

    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// As [`ProjectionFile::parse`], and [`ErrorKind::Io`] or [`ErrorKind::NotFound`] if the
    /// file cannot be read.
    pub fn load(path: &Path) -> Result<ProjectionFile> {
        ProjectionFile::parse(path, &read_text(path)?)
    }

    /// The fingerprint of everything that decides the read model: events, source, key, `up` and
    /// `apply`, without comments and blanks. `partitions` and `on_error` are settings and not part
    /// of it.
    pub fn hash(&self) -> Hash {
        let mut fields = Fields(Sha256::new());
        fields.text("highwater projection 1");
        match self.header.events_sorted() {
            None => fields.text("all types"),
            Some(events) => {
                fields.text("types");
                fields.list(&events);
            }
        }
        fields.text(&self.header.source);
        fields.text(&self.header.key_normal());
        for section in [&self.up, &self.apply] {
            let statements = section.statements.iter();
            fields.list(&statements.map(|s| s.normal.as_str()).collect::<Vec<_>>());
        }
        Hash(format!("{:x}", HexBytes(&fields.0.finalize())))
    }

    /// A location in the file as errors name it: `projections/files.sql: line 12`.
    pub fn location(&self, line: usize) -> String {
        location(&self.path, line)
    }
}

/// Fields one after the other, each preceded by its length, so that no two lists of fields give the
/// same bytes.
struct Fields(Sha256);

impl Fields {
    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn list(&mut self, texts: &[&str]) {
        self.count(texts.len());
        for text in texts {
            self.text(text);
        }
    }
}

struct HexBytes<'a>(&'a [u8]);

impl fmt::LowerHex for HexBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn location(path: &Path, line: usize) -> String {
    format!("{}: line {line}", path.display())
}

/// The text of a file, with line ends as `\n` and without a byte order mark.
struct SourceText<'a> {
    path: &'a Path,
    text: String,
    lines: Lines,
}

impl<'a> SourceText<'a> {
    fn new(path: &'a Path, text: &str) -> Result<SourceText<'a>> {
        check_size(path, text.len())?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Otherwise a string over two lines would depend on the machine that checked out the file.
        let text = text.replace("\r\n", "\n");
        let lines = Lines::of(&text);
        let source = SourceText { path, text, lines };
        match source.text.find('\0') {
            Some(offset) => Err(source
                .error(offset, "the character NUL, which PostgreSQL cannot store")
                .with_hint("remove it")),
            None => Ok(source),
        }
    }

    fn name(&self) -> Result<ProjectionName> {
        let stem = self.path.file_stem().unwrap_or_default();
        let name = stem.to_string_lossy().parse::<ProjectionName>();
        name.map_err(|error| {
            error
                .with_location(self.path.display().to_string())
                .with_hint("rename the file")
        })
    }

    fn line_at(&self, offset: usize) -> usize {
        self.lines.line_at(offset)
    }

    fn error(&self, offset: usize, what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Config, what).with_location(location(self.path, self.line_at(offset)))
    }

    fn fault(&self, fault: &Fault) -> Error {
        self.error(fault.offset, fault.what.as_str())
            .with_hint(fault.hint.as_str())
    }
}

fn check_size(path: &Path, size: usize) -> Result<()> {
    if size <= FILE_SIZE_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("the file is larger than {} KiB", FILE_SIZE_MAX / 1024),
    )
    .with_location(path.display().to_string())
    .with_hint("a projection is one small file; move data into a table"))
}
