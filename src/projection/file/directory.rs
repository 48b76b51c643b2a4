//! Reading projection files from the disk.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FILE_SIZE_MAX, ProjectionFile, check_size, location};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;

/// Reads every `*.sql` file of a directory, sorted by name.
///
/// # Errors
/// The faults of all files at once, at most one for each file; or that the directory cannot be
/// read.
pub fn load_directory(directory: &Path) -> Result<Vec<ProjectionFile>, Vec<Error>> {
    let (files, faults) = load_sound(directory);
    if faults.is_empty() {
        Ok(files)
    } else {
        Err(faults)
    }
}

/// As [`load_directory`], with the valid files beside the faults of the others.
pub(crate) fn load_sound(directory: &Path) -> (Vec<ProjectionFile>, Vec<Error>) {
    let paths = match sql_files(directory) {
        Ok(paths) => paths,
        Err(error) => return (Vec::new(), vec![directory_error(directory, &error)]),
    };
    let mut files = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        match ProjectionFile::load(&path) {
            Ok(file) => files.push(file),
            Err(fault) => faults.push(fault),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    (files, faults)
}

/// Refuses files with the name of another projection of the program.
///
/// # Errors
/// One [`ErrorKind::Config`] for each file in question.
pub fn refuse_taken_names(
    files: &[ProjectionFile],
    taken: &[ProjectionName],
) -> Result<(), Vec<Error>> {
    let mut seen: Vec<&ProjectionName> = taken.iter().collect();
    let mut faults = Vec::new();
    for file in files {
        if seen.contains(&&file.name) {
            let what = format!("there is another projection named {}", file.name);
            let error = Error::new(ErrorKind::Config, what).with_hint("rename one of them");
            faults.push(error.with_location(file.path.display().to_string()));
        }
        seen.push(&file.name);
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

fn sql_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Editors keep locks and copies under names that begin with a dot.
        if name.ends_with(".sql") && !name.starts_with('.') && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn directory_error(directory: &Path, error: &io::Error) -> Error {
    let location = directory.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(
            ErrorKind::Config,
            "there is no such directory of projections",
        )
        .with_hint("run highwater init, which creates one"),
        _ => Error::new(ErrorKind::Io, format!("cannot read the directory: {error}"))
            .with_hint("check its permissions"),
    }
    .with_location(location)
}

/// The text of a small file, or why it cannot be read.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let limit = FILE_SIZE_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| file_error(path, &error))?;
    check_size(path, bytes.len())?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Error::new(ErrorKind::Config, "the text is not UTF-8")
            .with_location(location(path, line))
            .with_hint("save the file as UTF-8")
    })
}

fn file_error(path: &Path, error: &io::Error) -> Error {
    let (kind, what) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "there is no such file".to_owned()),
        _ => (ErrorKind::Io, format!("cannot read the file: {error}")),
    };
    Error::new(kind, what).with_location(path.display().to_string())
}
