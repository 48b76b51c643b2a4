//! Cuts a file into header, `up` and `apply`.

use super::{Section, SourceText, Statement};
use crate::error::{Error, ErrorKind, Result};
use crate::projection::toml_text::quoted;
use crate::sql_text::{self, BatchPlace, Kind, Piece};
use crate::suggest;

const UP: &str = "up";
const APPLY: &str = "apply";
const SECTIONS: [&str; 2] = [UP, APPLY];

/// The parts of a file.
pub(super) struct FileParts<'p, 'a> {
    pub(super) header: Option<&'p Piece<'a>>,
    pub(super) up: Section,
    pub(super) apply: Section,
}

/// Cuts the file, whose pieces are `pieces`.
pub(super) fn cut<'p, 'a>(
    source: &SourceText<'_>,
    pieces: &'p [Piece<'a>],
) -> Result<FileParts<'p, 'a>> {
    let markers = markers(source, pieces)?;
    let first = markers.first().map_or(pieces.len(), |marker| marker.at);
    let (before, after) = pieces.split_at_checked(first).unwrap_or((pieces, &[]));
    let header = header(source, before, after)?;
    refuse_text_before(source, before)?;
    let mut parts = FileParts {
        header,
        up: Section::default(),
        apply: Section::default(),
    };
    for (i, marker) in markers.iter().enumerate() {
        let end = markers.get(i + 1).map_or(pieces.len(), |next| next.at);
        let inside = pieces.get(marker.at + 1..end).unwrap_or_default();
        let section = section(source, inside)?;
        match marker.section {
            UP => parts.up = section,
            _ => parts.apply = section,
        }
    }
    require_apply(source, &markers, &parts.apply)?;
    Ok(parts)
}

struct SectionMarker {
    at: usize,
    offset: usize,
    section: &'static str,
}

fn markers(source: &SourceText<'_>, pieces: &[Piece<'_>]) -> Result<Vec<SectionMarker>> {
    let mut markers: Vec<SectionMarker> = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let Some(word) = marker_word(piece) else {
            continue;
        };
        let offset = piece.offset;
        let known = SECTIONS.into_iter().find(|s| s.eq_ignore_ascii_case(word));
        let section = known.ok_or_else(|| {
            source
                .error(offset, format!("there is no section {}", quoted(word)))
                .with_hint(suggest::suggestion(word, &SECTIONS))
        })?;
        if !starts_its_line(pieces, at) {
            return Err(source
                .error(
                    offset,
                    format!("-- highwater: {section} follows other text on its line"),
                )
                .with_hint("put it on a line of its own"));
        }
        if let Some(first) = markers.iter().find(|m| m.section == section) {
            let line = source.line_at(first.offset);
            return Err(source
                .error(
                    offset,
                    format!("a second section {section}; the first is on line {line}"),
                )
                .with_hint("join the two"));
        }
        markers.push(SectionMarker {
            at,
            offset,
            section,
        });
    }
    Ok(markers)
}

/// What follows `-- highwater:`, if the piece is such a comment.
fn marker_word<'a>(piece: &Piece<'a>) -> Option<&'a str> {
    if piece.kind != Kind::LineComment {
        return None;
    }
    let content = piece.text.trim_start_matches('-').trim_start();
    let (word, rest) = content.split_at_checked("highwater".len())?;
    let rest = rest.trim_start().strip_prefix(':')?;
    word.eq_ignore_ascii_case("highwater").then(|| rest.trim())
}

fn starts_its_line(pieces: &[Piece<'_>], at: usize) -> bool {
    match at.checked_sub(1).and_then(|before| pieces.get(before)) {
        None => true,
        Some(before) if before.kind == Kind::Blank => {
            before.offset == 0 || before.text.contains('\n')
        }
        Some(_) => false,
    }
}

/// The one comment `/* highwater … */`, which must be before the first section.
fn header<'p, 'a>(
    source: &SourceText<'_>,
    before: &'p [Piece<'a>],
    after: &[Piece<'_>],
) -> Result<Option<&'p Piece<'a>>> {
    let mut headers = before.iter().filter(|piece| is_header(piece));
    let header = headers.next();
    if let Some(second) = headers.next() {
        return Err(source
            .error(second.offset, "a second comment /* highwater */")
            .with_hint("keep one"));
    }
    match after.iter().find(|piece| is_header(piece)) {
        Some(late) => Err(source
            .error(
                late.offset,
                "the comment /* highwater */ comes after the first section",
            )
            .with_hint("move it to the top of the file")),
        None => Ok(header),
    }
}

/// The word `highwater` alone on the first line, or the whole comment on one line.
fn is_header(piece: &Piece<'_>) -> bool {
    let content = piece
        .text
        .trim_start_matches("/*")
        .trim_start_matches([' ', '\t']);
    let Some((word, rest)) = content.split_at_checked("highwater".len()) else {
        return false;
    };
    let line = rest.lines().next().unwrap_or_default().trim();
    piece.kind == Kind::BlockComment
        && word.eq_ignore_ascii_case("highwater")
        && (line.is_empty() || line.starts_with(['#', '*']) || line.contains('='))
}

fn refuse_text_before(source: &SourceText<'_>, before: &[Piece<'_>]) -> Result<()> {
    match before.iter().find(|piece| piece.is_token()) {
        None => Ok(()),
        Some(token) => Err(source
            .error(token.offset, "SQL before the first section")
            .with_hint("put -- highwater: up or -- highwater: apply above it")),
    }
}

fn require_apply(
    source: &SourceText<'_>,
    markers: &[SectionMarker],
    apply: &Section,
) -> Result<()> {
    let Some(marker) = markers.iter().find(|m| m.section == APPLY) else {
        return Err(Error::new(ErrorKind::Config, "there is no section apply")
            .with_location(source.path.display().to_string())
            .with_hint(
                "write -- highwater: apply on a line of its own, and below it what a batch does",
            ));
    };
    if apply.statements.is_empty() {
        return Err(source
            .error(marker.offset, "the section apply has no statement")
            .with_hint("write what a batch does to the read model"));
    }
    Ok(())
}

fn section(source: &SourceText<'_>, pieces: &[Piece<'_>]) -> Result<Section> {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return Ok(Section::default());
    };
    // The marker's own line ends first.
    let start = first.offset + usize::from(first.text.starts_with('\n'));
    let mut statements = Vec::new();
    for statement in sql_text::split(pieces) {
        if let Some(fault) = sql_text::refusal(statement) {
            return Err(source.fault(&fault));
        }
        statements.extend(to_statement(source, statement, start));
    }
    let text = source.text.get(start..last.end());
    Ok(Section {
        text: text.unwrap_or_default().to_owned(),
        first_line: source.line_at(start),
        statements,
    })
}

fn to_statement(
    source: &SourceText<'_>,
    pieces: &[Piece<'_>],
    section: usize,
) -> Option<Statement> {
    let (first, last) = (pieces.first()?, pieces.last()?);
    Some(Statement {
        text: source.text.get(first.offset..last.end())?.to_owned(),
        line: source.line_at(first.offset),
        offset: first.offset - section,
        batch: sql_text::batch_place(pieces).map(|location| BatchPlace {
            at: location.at - section,
            ..location
        }),
        normal: sql_text::join(pieces),
    })
}
