//! Statements: the text between semicolons, unless these are in parentheses or a function body.

use super::lexer::{Kind, Piece};

/// The statements among `pieces`, each from its first token to its last; empty ones are dropped.
pub fn split<'p, 'a>(pieces: &'p [Piece<'a>]) -> Vec<&'p [Piece<'a>]> {
    let mut statements = Vec::new();
    let mut nesting = Nesting::default();
    let mut start = 0;
    for (at, piece) in pieces.iter().enumerate() {
        if piece.is(";") && nesting.is_none() {
            statements.extend(pieces.get(start..at).and_then(trim));
            start = at + 1;
            nesting = Nesting::default();
        } else if piece.is_token() {
            nesting.step(piece);
        }
    }
    statements.extend(pieces.get(start..).and_then(trim));
    statements
}

/// Without the blanks and comments at both ends.
fn trim<'p, 'a>(pieces: &'p [Piece<'a>]) -> Option<&'p [Piece<'a>]> {
    let first = pieces.iter().position(Piece::is_token)?;
    let last = pieces.iter().rposition(Piece::is_token)?;
    pieces.get(first..=last)
}

/// How deep in one statement we are.
#[derive(Default)]
struct Nesting<'a> {
    parentheses: usize,
    /// `begin atomic` and, inside, every `case`; each has its `end`.
    blocks: usize,
    creates: bool,
    started: bool,
    before: Option<Piece<'a>>,
}

impl<'a> Nesting<'a> {
    fn is_none(&self) -> bool {
        self.parentheses == 0 && self.blocks == 0
    }

    fn step(&mut self, piece: &Piece<'a>) {
        if !self.started {
            self.started = true;
            self.creates = piece.is_word("create");
        }
        // After `.` and `as` a keyword is a name.
        let is_name = self.before.is_some_and(|p| p.is(".") || p.is_word("as"));
        if piece.is("(") {
            self.parentheses += 1;
        } else if piece.is(")") {
            self.parentheses = self.parentheses.saturating_sub(1);
        } else if piece.kind == Kind::Word && self.creates && !is_name {
            self.step_word(piece);
        }
        self.before = Some(*piece);
    }

    fn step_word(&mut self, word: &Piece<'a>) {
        let begins = self.before.is_some_and(|before| before.is_word("begin"));
        if self.blocks == 0 {
            self.blocks = usize::from(begins && word.is_word("atomic"));
        } else if word.is_word("case") {
            self.blocks += 1;
        } else if word.is_word("end") {
            self.blocks -= 1;
        }
    }
}
