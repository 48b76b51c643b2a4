use super::*;

const REFERENCE: &str = include_str!("../../docs/highwater.toml");

fn fault(text: &str) -> String {
    Config::parse(text, "highwater.toml")
        .expect_err(text)
        .to_string()
}

#[test]
fn the_reference_file_holds_the_defaults() {
    let parsed = Config::parse(REFERENCE, "docs/highwater.toml").expect("parses");
    assert_eq!(parsed, Config::default());
}

#[test]
fn the_reference_file_shows_every_key() {
    for section in ["database", "engine", "projections"] {
        assert!(REFERENCE.contains(&format!("\n[{section}]\n")), "{section}");
        let error = fault(&format!("[{section}]\nno_such_key = 1"));
        let (_, known) = error.split_once("known here are ").expect("lists the keys");
        for key in known.split(", ") {
            let shown = REFERENCE.lines().any(|line| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.split_once(" = ").is_some_and(|(name, _)| name == key)
            });
            assert!(shown, "docs/highwater.toml does not show {section}.{key}");
        }
    }
}

#[test]
fn the_reference_file_works_with_its_examples_uncommented() {
    let text = REFERENCE
        .replace("# url = ", "url = ")
        .replace("# direct_url = ", "direct_url = ");
    let config = Config::parse(&text, "docs/highwater.toml").expect("parses");
    assert!(config.database.url.is_some() && config.database.direct_url.is_some());
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        fault("[engine]\nlease = \"5s\"\n\n[database]\nurll = \"x\"\n"),
        "highwater.toml: line 5: unknown key \"urll\"; did you mean \"url\"? known here are url, \
         direct_url"
    );
    assert_eq!(
        fault("[motor]\n"),
        "highwater.toml: line 1: unknown key \"motor\"; known here are database, engine, \
         projections"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_reported_with_its_line() {
    assert_eq!(
        fault("[engine]\nlease = \"5 parsecs\"\n"),
        "highwater.toml: line 2: \"5 parsecs\" is not a duration; write it like 200ms, 5s, 1m30s \
         or 2h"
    );
    let error = fault("[engine]\nlisten = 1\n");
    assert!(
        error.starts_with("highwater.toml: line 2: invalid type"),
        "{error}"
    );
    let error = fault("[engine\n");
    assert!(error.starts_with("highwater.toml: line 1: "), "{error}");
}

#[test]
fn all_values_out_of_limits_are_reported_at_once() {
    assert_eq!(
        fault("[engine]\nlease = 0\npool_size = 0\nretry_delay_max = \"2h\"\n"),
        "highwater.toml: engine.lease is 0s, but must be from 1s to 1h, and \
         engine.retry_delay_max is 2h, but must be from 100ms to 1h, and engine.pool_size is 0, \
         but must be from 1 to 1000; fix it, or remove the key to get its default"
    );
}

#[test]
fn the_password_in_a_url_is_never_shown() {
    let config = Config::parse("[database]\nurl = \"postgresql://a:hunter2@h/d\"", "f");
    let config = config.expect("parses");
    assert!(!format!("{config:?}").contains("hunter2"));
    for text in [
        "[database]\nurl = \"postgresql://a:hunter2@h/d\" x\n",
        "[database]\nurl = [\"postgresql://a:hunter2@h/d\"]\n",
        "[database]\nurl = \"postgresql://a:hunter2@h/d\n",
    ] {
        let error = Config::parse(text, "f").expect_err(text);
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(std::error::Error::source(&error).is_none());
    }
}

#[test]
fn the_file_is_found_upwards() {
    let top = tempfile::tempdir().expect("directory");
    let below = top.path().join("a/b");
    std::fs::create_dir_all(&below).expect("directories");
    let file = top.path().join(FILE_NAME);
    std::fs::write(&file, "[projections]\ndirectory = \"views\"\n").expect("write");

    let (found, config) = Config::find(&below).expect("loads").expect("is there");

    assert_eq!(found, file);
    assert_eq!(
        config.projections_directory(&found),
        top.path().join("views")
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("no/such/highwater.toml")).expect_err("missing");
    assert!(
        error
            .to_string()
            .starts_with("no/such/highwater.toml: cannot read the file: ")
    );
}
