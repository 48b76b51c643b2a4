//! The lexer: every byte of the text belongs to exactly one piece.

use super::Fault;

/// What a piece of SQL text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Spaces and ends of lines.
    Blank,
    /// `-- …`, without the end of its line.
    LineComment,
    /// `/* … */`, with those inside it.
    BlockComment,
    /// A keyword or a name without quotes.
    Word,
    /// A number without a sign.
    Number,
    /// `'…'` with or without a prefix, or `$tag$…$tag$`.
    Text,
    /// A `'…'` on a later line that PostgreSQL joins to the one before it.
    Continuation,
    /// `"…"`.
    Quoted,
    /// Such as `||` or `->>`.
    Operator,
    /// One of `( ) , ; [ ] .`, or `:`, `::`, `:=`.
    Punctuation,
    /// A character that has no meaning in SQL by itself.
    Other,
}

/// One piece of an SQL text.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its own text.
    pub text: &'a str,
    /// Its first byte in the whole text.
    pub offset: usize,
}

impl Piece<'_> {
    /// Whether it is more than a blank or a comment.
    pub fn is_token(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Blank | Kind::LineComment | Kind::BlockComment
        )
    }

    /// The byte after its last one.
    pub fn end(&self) -> usize {
        self.offset + self.text.len()
    }

    /// Whether it is this keyword (given in lower case).
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this punctuation.
    pub fn is(&self, punctuation: &str) -> bool {
        self.kind == Kind::Punctuation && self.text == punctuation
    }
}

/// All pieces of the text, in order and without a hole.
pub fn lex(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut lexer = Lexer {
        text,
        at: 0,
        open: Open::No,
    };
    let mut pieces = Vec::new();
    while lexer.at < text.len() {
        pieces.push(lexer.next()?);
    }
    Ok(pieces)
}

/// Whether a `'…'` has just ended that another may continue: PostgreSQL joins two strings with
/// nothing but blanks, line comments and at least one line break between them, and the second
/// is read by the rules of the first.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    No,
    SameLine { escapes: bool },
    NextLine { escapes: bool },
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    open: Open,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Piece<'a>, Fault> {
        let start = self.at;
        let (kind, end) = self.scan(self.text.get(start..).unwrap_or_default())?;
        self.at = start + end;
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.open = self.open_after(kind, text);
        Ok(Piece {
            kind,
            text,
            offset: start,
        })
    }

    /// The kind of the piece at the beginning of `rest`, and its length: never 0.
    fn scan(&self, rest: &str) -> Result<(Kind, usize), Fault> {
        let first = rest.chars().next().unwrap_or(' ');
        let second = rest.as_bytes().get(1).copied().unwrap_or(0);
        match first {
            c if is_blank(c) => Ok((Kind::Blank, run(rest, is_blank))),
            '-' if second == b'-' => Ok((Kind::LineComment, run(rest, |c| c != '\n' && c != '\r'))),
            '/' if second == b'*' => self.ended(Kind::BlockComment, block_comment(rest)),
            '\'' => match self.open {
                Open::NextLine { escapes } => {
                    self.ended(Kind::Continuation, quoted(rest, 1, '\'', escapes))
                }
                _ => self.ended(Kind::Text, quoted(rest, 1, '\'', false)),
            },
            '"' => self.ended(Kind::Quoted, quoted(rest, 1, '"', false)),
            '$' => self.dollar(rest),
            '.' if second.is_ascii_digit() => Ok((Kind::Number, number(rest))),
            c if c.is_ascii_digit() => Ok((Kind::Number, number(rest))),
            c if is_name_start(c) => self.word(rest),
            '(' | ')' | ',' | ';' | '[' | ']' | '.' => Ok((Kind::Punctuation, 1)),
            ':' if second == b':' || second == b'=' => Ok((Kind::Punctuation, 2)),
            ':' => Ok((Kind::Punctuation, 1)),
            c if is_operator(c) => Ok((Kind::Operator, operator(rest))),
            c => Ok((Kind::Other, c.len_utf8())),
        }
    }

    /// A word, or the string whose prefix it is.
    fn word(&self, rest: &str) -> Result<(Kind, usize), Fault> {
        let end = run(rest, |c| is_name_start(c) || c.is_ascii_digit() || c == '$');
        let next = rest.get(end..).unwrap_or_default();
        match rest.get(..end).unwrap_or_default() {
            "e" | "E" if next.starts_with('\'') => {
                self.ended(Kind::Text, quoted(rest, 2, '\'', true))
            }
            "b" | "B" | "x" | "X" | "n" | "N" if next.starts_with('\'') => {
                self.ended(Kind::Text, quoted(rest, 2, '\'', false))
            }
            "u" | "U" if next.starts_with("&'") => {
                self.ended(Kind::Text, quoted(rest, 3, '\'', false))
            }
            "u" | "U" if next.starts_with("&\"") => {
                self.ended(Kind::Quoted, quoted(rest, 3, '"', false))
            }
            _ => Ok((Kind::Word, end)),
        }
    }

    /// `$tag$…$tag$`, the parameter `$1`, or a `$` alone.
    fn dollar(&self, rest: &str) -> Result<(Kind, usize), Fault> {
        let after = rest.get(1..).unwrap_or_default();
        let digits = run(after, |c| c.is_ascii_digit());
        if digits > 0 {
            return Ok((Kind::Number, 1 + digits));
        }
        let tag = run(after, |c| is_name_start(c) || c.is_ascii_digit());
        if !after.get(tag..).unwrap_or_default().starts_with('$') {
            return Ok((Kind::Other, 1));
        }
        let quote = rest.get(..tag + 2).unwrap_or_default();
        let body = rest.get(tag + 2..).unwrap_or_default();
        let end = body.find(quote).map(|at| at + 2 * quote.len());
        self.ended(Kind::Text, end)
    }

    fn ended(&self, kind: Kind, end: Option<usize>) -> Result<(Kind, usize), Fault> {
        let what = match kind {
            Kind::BlockComment => "the comment that begins here with /* never ends",
            Kind::Quoted => "the quoted name that begins here never ends",
            _ => "the string that begins here never ends",
        };
        end.map(|end| (kind, end)).ok_or_else(|| Fault {
            offset: self.at,
            what: what.to_owned(),
            hint: match kind {
                Kind::BlockComment => "close it with */ (comments nest)",
                _ => "close the quote, and double a quote that is part of the text",
            }
            .to_owned(),
        })
    }

    fn open_after(&self, kind: Kind, text: &str) -> Open {
        match (kind, self.open) {
            (Kind::Text, _) if text.ends_with('\'') => Open::SameLine {
                escapes: text.starts_with(['e', 'E']),
            },
            (Kind::Continuation, Open::NextLine { escapes }) => Open::SameLine { escapes },
            (Kind::Blank, Open::SameLine { escapes }) if text.contains(['\n', '\r']) => {
                Open::NextLine { escapes }
            }
            (Kind::Blank | Kind::LineComment, open) => open,
            _ => Open::No,
        }
    }
}

/// How many bytes at the beginning of `text` are characters that `belongs` accepts.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// PostgreSQL takes every byte above 127 as a letter.
fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_operator(c: char) -> bool {
    "~!@#^&|`?+-*/%<>=".contains(c)
}

/// The length of the quoted text that begins at 0 and whose inside begins at `from`.
fn quoted(rest: &str, from: usize, quote: char, escapes: bool) -> Option<usize> {
    let mut chars = rest.char_indices().skip_while(|(at, _)| *at < from);
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            let doubled = rest.get(at + 1..).is_some_and(|r| r.starts_with(quote));
            if !doubled {
                return Some(at + 1);
            }
            chars.next();
        }
    }
    None
}

fn block_comment(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)?) {
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            (b'*', b'/') => {
                depth -= 1;
                at += 2;
            }
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Digits, a fraction, an exponent; the server refuses letters that follow directly.
fn number(rest: &str) -> usize {
    let digit = |c: char| is_name_start(c) || c.is_ascii_digit();
    let mut end = run(rest, digit);
    let fraction = rest.get(end..).unwrap_or_default();
    if fraction.starts_with('.') && !fraction.starts_with("..") {
        end += 1 + run(fraction.get(1..).unwrap_or_default(), digit);
    }
    let power = rest.get(end..).unwrap_or_default();
    let mantissa = rest.get(..end).unwrap_or_default();
    let hexadecimal = mantissa.starts_with("0x") || mantissa.starts_with("0X");
    if mantissa.ends_with(['e', 'E']) && !hexadecimal && power.starts_with(['+', '-']) {
        let digits = run(power.get(1..).unwrap_or_default(), |c| c.is_ascii_digit());
        if digits > 0 {
            end += 1 + digits;
        }
    }
    end
}

/// A run of operator characters, up to a comment. As in PostgreSQL, a trailing `+` or `-` is an
/// operator of its own unless the run has a character that no operator of standard SQL has.
fn operator(rest: &str) -> usize {
    let mut end = run(rest, is_operator);
    let mut text = rest.get(..end).unwrap_or_default();
    for comment in ["--", "/*"] {
        if let Some(at) = text.find(comment) {
            end = at;
            text = rest.get(..end).unwrap_or_default();
        }
    }
    if !text.contains(['~', '!', '@', '#', '^', '&', '|', '`', '?', '%']) {
        end = text.trim_end_matches(['+', '-']).len().max(1);
    }
    end
}
