use super::*;

const FILES: &str = r#"/* highwater
events = ["FileAdded", "FileDeleted"]  # the two
key = "data->>'path'"
partitions = 4
on_error = "park"
*/

-- highwater: up
create table files (path text primary key);
create index on files (path);

-- highwater: apply
insert into files select data->>'path' from batch
on conflict do nothing;
"#;

fn parse(text: &str) -> Result<ProjectionFile> {
    ProjectionFile::parse(Path::new("projections/files.sql"), text)
}

fn good(text: &str) -> ProjectionFile {
    parse(text).expect(text)
}

/// The error that the text gives, as it is printed.
fn fault(text: &str) -> String {
    let error = parse(text).expect_err(text);
    assert!(error.hint().is_some(), "no hint: {error}");
    error.to_string()
}

#[test]
fn a_file_is_its_header_and_its_sections() {
    let file = good(FILES);
    assert_eq!(file.name.as_str(), "files");
    assert_eq!(
        file.header,
        Header {
            events: Some(vec!["FileAdded".into(), "FileDeleted".into()]),
            source: "default".into(),
            key: Some("data->>'path'".into()),
            partitions: 4,
            on_error: OnError::Park,
        }
    );
    let lines = |s: &Section| s.statements.iter().map(|s| s.line).collect::<Vec<_>>();
    assert_eq!((file.up.first_line, lines(&file.up)), (9, vec![9, 10]));
    assert_eq!((file.apply.first_line, lines(&file.apply)), (13, vec![13]));
    assert_eq!(file.up.statements[1].text, "create index on files (path)");
    assert_eq!(
        &file.up.text[file.up.statements[1].offset..][..12],
        "create index"
    );
}

#[test]
fn the_header_and_the_section_up_may_be_left_out() {
    let file = good("-- highwater: apply\nselect 1");
    assert_eq!(file.header, Header::default());
    assert!(file.up.statements.is_empty());
    assert_eq!(file.apply.statements[0].text, "select 1");
    let file = good("/* highwater */\n-- HighWater :  APPLY  \nselect 1");
    assert_eq!(file.header, Header::default());
}

#[test]
fn the_key_stream_is_the_default() {
    assert_eq!(
        good("/* highwater key = \"stream\" */\n--highwater:apply\nselect 1")
            .header
            .key,
        None
    );
}

#[test]
fn other_comments_are_comments() {
    let file = good(
        "-- Licence: MIT\n/* highwater is what runs this */\n/* highwater\nsource = \"b\" */\n\
         -- highwater: apply\nselect 1 -- the highwater: mark\n/* highwater runs this */",
    );
    assert_eq!(file.header.source, "b");
    let file = good("-- highwater: apply\nselect $$\n-- highwater: up\n$$, '\n-- highwater: x\n'");
    assert_eq!(file.apply.statements.len(), 1);
}

#[test]
fn a_place_in_a_statement_is_a_line_of_the_file() {
    let file = good("-- é\n\n-- highwater: apply\n\nselect 'é',\n  x\nfrom y");
    let statement = &file.apply.statements[0];
    let at = |text: &str| {
        let byte = statement.text.find(text).expect(text);
        statement.line_at(statement.text[..byte].chars().count())
    };
    assert_eq!((at("select"), at("x"), at("from"), at("y")), (5, 6, 7, 7));
    assert_eq!(statement.line_at(usize::MAX), 7);
    assert_eq!(file.apply.line_at(0), 4);
    assert_eq!(file.location(7), "projections/files.sql: line 7");
}

#[test]
fn line_ends_and_byte_order_marks_change_nothing() {
    let dos = format!("\u{feff}{}", FILES.replace('\n', "\r\n"));
    let (unix, dos) = (good(FILES), good(&dos));
    assert_eq!(unix.hash(), dos.hash());
    assert_eq!(unix.apply.statements, dos.apply.statements);
    assert_eq!(unix.apply.text, dos.apply.text);
}

/// Stored read models carry this hash. If this test fails, every existing projection would count as
/// changed: change the code, never the digits.
#[test]
fn the_hash_of_a_definition_stays_the_same_for_ever() {
    assert_eq!(
        good(FILES).hash().as_str(),
        "7e919e76984f3917e6ccc445d87d91459b7af374bc650c69aa6368808703a1c6"
    );
    assert_eq!(
        good("-- highwater: apply\nselect E'a'\n'\\'b', $a$ -- $a$::text from \"Batch\" where 1.5e3>=-x").hash().as_str(),
        "b45b9e2eeebb17b403ac13df1ffbd0435d0bd4575644faa339df036644ae6eba"
    );
}

#[test]
fn comments_blanks_and_settings_are_no_part_of_the_hash() {
    let hash = good(FILES).hash();
    for (from, to) in [
        ("partitions = 4", "partitions = 5"),
        ("on_error = \"park\"", ""),
        (
            "\"FileAdded\", \"FileDeleted\"",
            "\"FileDeleted\", \"FileAdded\"",
        ),
        ("data->>'path'\"", " data ->> 'path'\""),
        ("create index", "/* why */ create\tindex"),
        ("do nothing;", "do nothing; ; -- done"),
        ("do nothing;", "do nothing"),
        ("key =", "source = \"default\"\nkey ="),
    ] {
        assert!(FILES.contains(from), "{from}");
        assert_eq!(good(&FILES.replace(from, to)).hash(), hash, "{to}");
    }
}

#[test]
fn everything_else_is_part_of_the_hash() {
    let hash = good(FILES).hash();
    for (from, to) in [
        ("\"FileAdded\", ", ""),
        ("events = [\"FileAdded\", \"FileDeleted\"]", ""),
        ("key = \"data->>'path'\"", ""),
        ("key =", "source = \"other\"\nkey ="),
        ("create index on files (path);", ""),
        ("-- highwater: apply", ""),
        ("do nothing", "do Nothing"),
        ("'path' from", "'path ' from"),
    ] {
        assert!(FILES.contains(from), "{from}");
        let text = match to {
            "" if from.starts_with("--") => "-- highwater: apply\nselect 1".to_owned(),
            _ => FILES.replace(from, to),
        };
        assert_ne!(good(&text).hash(), hash, "{from} -> {to}");
    }
}

#[test]
fn a_statement_cannot_move_between_sections_unseen() {
    let one = "-- highwater: up\nselect 1;\n-- highwater: apply\nselect 2; select 3";
    let two = "-- highwater: up\nselect 1; select 2;\n-- highwater: apply\nselect 3";
    assert_ne!(good(one).hash(), good(two).hash());
}

#[test]
fn faults_of_sections_name_the_line() {
    for (text, expected) in [
        (
            "-- highwater: aply\nselect 1",
            "projections/files.sql: line 1: there is no section \"aply\"; did you mean apply? \
             (known: up, apply)",
        ),
        (
            "\n-- highwater: apply\nselect 1;\n-- highwater: apply\nselect 2",
            "projections/files.sql: line 4: a second section apply; the first is on line 2; join \
             the two",
        ),
        (
            "-- hi\nselect 1;\n-- highwater: apply\nselect 2",
            "projections/files.sql: line 2: SQL before the first section; put -- highwater: up or \
             -- highwater: apply above it",
        ),
        (
            "-- highwater: up\nselect 1",
            "projections/files.sql: there is no section apply; write -- highwater: apply on a line \
             of its own, and below it what a batch does",
        ),
        (
            "",
            "projections/files.sql: there is no section apply; write -- highwater: apply on a line \
             of its own, and below it what a batch does",
        ),
        (
            "\n-- highwater: apply\n;; -- x\n",
            "projections/files.sql: line 2: the section apply has no statement; write what a batch \
             does to the read model",
        ),
        (
            "-- highwater: up\nselect 1; -- highwater: apply\nselect 2",
            "projections/files.sql: line 2: -- highwater: apply follows other text on its line; \
             put it on a line of its own",
        ),
        (
            "-- highwater: apply\nselect 1;\n/* highwater\n*/",
            "projections/files.sql: line 3: the comment /* highwater */ comes after the first \
             section; move it to the top of the file",
        ),
        (
            "/* highwater */\n/* highwater */",
            "projections/files.sql: line 2: a second comment /* highwater */; keep one",
        ),
        (
            "-- highwater: apply\nselect 1\n'x",
            "projections/files.sql: line 3: the string that begins here never ends; close the \
             quote, and double a quote that is part of the text",
        ),
        (
            "-- highwater: apply\nselect \0",
            "projections/files.sql: line 2: the character NUL, which PostgreSQL cannot store; \
             remove it",
        ),
    ] {
        assert_eq!(fault(text), expected);
    }
}

#[test]
fn a_refused_statement_is_named_with_its_line_and_the_reason() {
    assert_eq!(
        fault("-- highwater: apply\nselect 1;\n\n  COMMIT;"),
        "projections/files.sql: line 4: commit cannot be used in a projection: the engine opens and \
         commits the transaction, so that the read model and its checkpoint are stored together; \
         remove it"
    );
    assert_eq!(
        fault("-- highwater: up\nset local search_path = x;\n-- highwater: apply\nselect 1"),
        "projections/files.sql: line 2: set search_path cannot be used in a projection: the engine \
         sets search_path to the projection's own schema, which a rebuild changes; remove it, or \
         write the schema before the name: public.orders"
    );
}

#[test]
fn faults_of_the_header_name_the_line_of_the_file() {
    for (header, line, expected) in [
        (
            "\nevent = [\"A\"]",
            3,
            "the header has no key \"event\"; did you mean events? (known: events, source, key, \
             partitions, on_error)",
        ),
        (
            "\nevents = \"A\"",
            3,
            "events must be a list of strings, not a string; fix the value",
        ),
        (
            "events = [1]",
            2,
            "an event type must be a string, not a whole number; fix the value",
        ),
        (
            "events = [\n\"A\",\n\"A\"]",
            4,
            "the event type \"A\" is listed twice; remove one",
        ),
        (
            "events = []",
            2,
            "the list of events is empty; name a type, or remove the key to get all types",
        ),
        (
            "events = [\"\"]",
            2,
            "an event type is empty; give it a text, or remove the key",
        ),
        (
            "key = \" \"",
            2,
            "key is empty; give it a text, or remove the key",
        ),
        (
            "key = \"a; b\"",
            2,
            "the key is not a SQL expression: it holds a semicolon; write one expression",
        ),
        (
            "key = \"a) or (b\"",
            2,
            "the key is not a SQL expression: its parentheses do not match; close what you open",
        ),
        (
            "key = \"a -- b\"",
            2,
            "the key is not a SQL expression: it holds a comment; move the comment out of the \
             string",
        ),
        (
            "key = \"'a\"",
            2,
            "the key is not a SQL expression: the string that begins here never ends; close the \
             quote, and double a quote that is part of the text",
        ),
        (
            "source = \"\\u0000x\"",
            2,
            "the character NUL, which PostgreSQL cannot store; remove it",
        ),
        (
            "partitions = 0",
            2,
            "partitions must be a whole number from 1 to 1024, not 0; fix the value",
        ),
        (
            "partitions = 1025",
            2,
            "partitions must be a whole number from 1 to 1024, not 1025; fix the value",
        ),
        (
            "partitions = \"2\"",
            2,
            "partitions must be a whole number from 1 to 1024, not a string; fix the value",
        ),
        (
            "on_error = \"skip\"",
            2,
            "on_error cannot be \"skip\"; write \"stop\" or \"park\"",
        ),
    ] {
        let text = format!("/* highwater\n{header}\n*/\n-- highwater: apply\nselect 1");
        assert_eq!(
            fault(&text),
            format!("projections/files.sql: line {line}: {expected}")
        );
    }
    let broken = fault("/* highwater\n\nevents = \n*/\n-- highwater: apply\nselect 1");
    assert!(
        broken.starts_with("projections/files.sql: line 3: this is not TOML: "),
        "{broken}"
    );
}

#[test]
fn a_name_that_is_none_and_a_file_too_large_are_refused() {
    let path = Path::new("projections/Files.sql");
    let error = ProjectionFile::parse(path, FILES).expect_err("name");
    assert!(error.to_string().ends_with("rename the file"), "{error}");
    let large = format!("{FILES}{}", " ".repeat(FILE_SIZE_MAX));
    assert!(fault(&large).contains("larger than 1024 KiB"));
}

#[test]
fn a_directory_gives_its_files_by_name_or_all_their_faults() {
    let directory = tempfile::tempdir().expect("directory");
    let put = |name: &str, text: &[u8]| {
        std::fs::write(directory.path().join(name), text).expect(name);
    };
    put("b.sql", b"-- highwater: apply\nselect 1");
    put("a.sql", b"-- highwater: apply\nselect 1");
    put("a.test.toml", b"?");
    put(".b.sql", b"?");
    let files = load_directory(directory.path()).expect("files");
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);

    let taken = ["b".parse().expect("name")];
    let faults = refuse_taken_names(&files, &taken).expect_err("taken");
    assert!(
        faults[0]
            .to_string()
            .contains("b.sql: there is another projection named b")
    );
    assert!(refuse_taken_names(&files, &[]).is_ok());

    put("c.sql", b"-- highwater: apply\n\n'\xff");
    put("d.sql", b"");
    let faults = load_directory(directory.path()).expect_err("faults");
    assert_eq!(faults.len(), 2);
    assert!(
        faults[0]
            .to_string()
            .ends_with("c.sql: line 3: the text is not UTF-8; save the file as UTF-8")
    );

    let faults = load_directory(&directory.path().join("none")).expect_err("missing");
    assert!(faults[0].to_string().contains("run highwater init"));
    assert!(ProjectionFile::load(&directory.path().join("e.sql")).is_err());
}
