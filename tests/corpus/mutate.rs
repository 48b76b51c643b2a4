//! Nasty inputs and what can be made of them: cut, changed and grafted onto each other.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

const PIECES: [&[u8]; 58] = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"\x1b[31m",
    b"\r\n",
    b"\n",
    b" ",
    b"'",
    b"\"",
    b"'''",
    b"\"\"\"",
    b"$$",
    b"$a$",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"(",
    b")",
    b",",
    b":",
    b";",
    b"=",
    b"@",
    b"%",
    b"%zz",
    b"/",
    b"?",
    b"#",
    b"/*",
    b"*/",
    b"--",
    b"/* highwater\n",
    b"-- highwater: up\n",
    b"-- highwater: apply\n",
    b"events = [\"A\"]\n",
    b"partitions = 9",
    b"begin atomic",
    b"copy t from stdin",
    b"[[test]]\n",
    b"[test.expect]\n",
    b"given = ",
    b"version = ",
    b"2024-05-01",
    b"null = true",
    b"inf",
    b"-1",
    b"99999999999999999999",
    b"1e999",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
];

/// The least number of cases; the environment may set more.
pub(crate) fn cases(least: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: config.cases.max(least),
        ..config
    }
}

/// The corpus of a parser: the inputs by their file's name.
pub(crate) fn corpus(parser: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let directory = directory.join(parser);
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("a corpus") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, std::fs::read(entry.path()).expect("an input")));
    }
    inputs.sort();
    assert!(inputs.len() > 9, "{}", directory.display());
    inputs
}

#[derive(Clone, Debug)]
enum Change {
    Cut(Index, Index),
    Set(Index, u8),
    Put(Index, Vec<u8>),
    Again(Index, Index),
    /// The rest of another input.
    Graft(Index, Vec<u8>, Index),
}

/// What syntaxes are made of, or anything.
pub(crate) fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..20),
        1 => any::<String>().prop_map(String::into_bytes),
    ]
}

fn change(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        6 => (at(), piece()).prop_map(|(at, piece)| Change::Put(at, piece)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Again(from, to)),
        1 => (at(), prop::sample::select(seeds), at())
            .prop_map(|(at, other, from)| Change::Graft(at, other, from)),
    ]
}

fn changed(mut input: Vec<u8>, change: &Change) -> Vec<u8> {
    let span = |from: &Index, to: &Index, len: usize| {
        let (from, to) = (from.index(len + 1), to.index(len + 1));
        from.min(to)..from.max(to)
    };
    match change {
        Change::Cut(from, to) => {
            input.drain(span(from, to, input.len()));
        }
        Change::Set(at, byte) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] = *byte;
        }
        Change::Set(..) => {}
        Change::Put(at, piece) => {
            let at = at.index(input.len() + 1);
            input.splice(at..at, piece.iter().copied());
        }
        Change::Again(from, to) => {
            let again = input[span(from, to, input.len())].to_vec();
            input.extend(again);
        }
        Change::Graft(at, other, from) => {
            input.truncate(at.index(input.len() + 1));
            input.extend(&other[from.index(other.len() + 1)..]);
        }
    }
    input
}

/// An input of the corpus after up to six changes; or anything.
pub(crate) fn mutated(parser: &str, more: &[&str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let mut seeds: Vec<Vec<u8>> = corpus(parser).into_iter().map(|(_, input)| input).collect();
    seeds.extend(more.iter().map(|text| text.as_bytes().to_vec()));
    let changes = prop::collection::vec(change(seeds.clone()), 0..6);
    let grown = (prop::sample::select(seeds), changes)
        .prop_map(|(seed, changes)| changes.iter().fold(seed, changed));
    prop_oneof![9 => grown, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}
