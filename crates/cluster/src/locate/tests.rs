use std::os::unix::fs::PermissionsExt;

use super::*;

/// A directory with an `initdb` and a `postgres` that says this version.
fn installation(parent: &Path, name: &str, version: &str) -> PathBuf {
    let bin_dir = parent.join(name).join("bin");
    fs::create_dir_all(&bin_dir).unwrap();
    let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
    for program in ["initdb", "postgres"] {
        let file = bin_dir.join(program);
        fs::write(&file, &script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        wait_until_it_runs(&file);
    }
    bin_dir
}

/// A child that another test started while the file was open for writing has it open too, until it
/// runs its own program; so long the file is busy.
fn wait_until_it_runs(program: &Path) {
    let started = std::time::Instant::now();
    loop {
        match std::process::Command::new(program).output() {
            Err(busy) if busy.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            done => {
                done.unwrap();
                return;
            }
        }
        assert!(started.elapsed().as_secs() < 10, "{program:?} stays busy");
    }
}

fn first_of(candidates: Vec<PathBuf>) -> Result<Binaries> {
    Binaries::first_of(candidates, |_| true)?.ok_or_else(nothing_found)
}

#[test]
fn versions_are_read_as_every_packager_prints_them() {
    for (said, major, full) in [
        (
            "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
            15,
            "15.18",
        ),
        ("postgres (PostgreSQL) 17.2 (Homebrew)\n", 17, "17.2"),
        ("postgres (PostgreSQL) 19beta1\n", 19, "19beta1"),
    ] {
        assert_eq!(parse_version(said), Some((major, full.to_owned())));
    }
    assert_eq!(parse_version("command not found"), None);
}

#[test]
fn the_newest_installation_comes_first_and_nine_is_not_newer_than_fifteen() {
    let root = tempfile::tempdir().unwrap();
    for name in ["9.6", "15", "18", "contrib"] {
        installation(root.path(), name, "x");
    }
    let parent = root.path().to_str().unwrap();
    let found = installations(&[(parent, "", "bin")]);
    let expected = ["18", "15", "9.6"].map(|name| root.path().join(name).join("bin"));
    assert_eq!(found, expected);
}

#[test]
fn a_directory_without_initdb_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let client_only = installation(root.path(), "client", "17.0");
    fs::remove_file(client_only.join("initdb")).unwrap();
    let whole = installation(root.path(), "server", "16.4");
    let found = first_of(vec![client_only, whole.clone()]).unwrap();
    assert_eq!(found.bin_dir(), whole);
    assert_eq!(found.version(), (16, "16.4".to_owned()));
}

#[test]
fn an_old_server_is_used_by_nobody_and_named_if_it_is_the_only_one() {
    let root = tempfile::tempdir().unwrap();
    let old = installation(root.path(), "13", "13.9");
    let new = installation(root.path(), "14", "14.2");
    let error = first_of(vec![old.clone()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains("PostgreSQL 13.9 is too old"));
    assert_eq!(first_of(vec![old, new]).unwrap().major(), 14);
}

#[test]
fn a_machine_without_postgres_gets_a_hint_with_three_ways_out() {
    let error = first_of(vec![PathBuf::from("/nowhere"), PathBuf::new()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setup);
    let said = error.to_string();
    for way in ["DATABASE_URL", "apt install", "brew install", VARIABLE] {
        assert!(said.contains(way), "{way} is missing in: {said}");
    }
}

#[test]
fn a_wrong_directory_that_the_user_named_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    let error = Binaries::named(empty.path()).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("HIGHWATER_PG_BINDIR="), "{said}");
    assert!(said.contains("no initdb and postgres here"), "{said}");
}

#[test]
fn a_data_directory_of_another_major_version_finds_no_server() {
    let root = tempfile::tempdir().unwrap();
    let bin_dir = installation(root.path(), "17", "17.1");
    let found = Binaries::first_of(vec![bin_dir], |found| found.major == 15);
    assert!(found.unwrap().is_none());
}
