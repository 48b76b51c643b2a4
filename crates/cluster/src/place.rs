//! Where a cluster keeps its files, and checks of these places.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, Xdg};
use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use crate::account::{Account, Right};
use crate::error::{Error, ErrorKind, Result};

/// The longest socket path that the kernel takes, without its final NUL.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The socket's file name: the port is only a name here.
pub(crate) const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The hint for a full disk.
pub(crate) const NO_SPACE: &str = "free some space, choose a larger disk (HIGHWATER_HOME, or TMPDIR \
     for a temporary cluster), or set DATABASE_URL";

/// The directories of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Holds the data directory, the log and the lock.
    pub(crate) root: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket_dir: PathBuf,
}

impl Place {
    pub(crate) fn new(root: PathBuf, data: &str, account: &Account) -> Result<Place> {
        let data_dir = root.join(data);
        let runtime_dir = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let socket_dir = socket_dir(&data_dir, account, runtime_dir.as_deref())?;
        Ok(Place {
            root,
            data_dir,
            socket_dir,
        })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// Makes what the server needs to start, all of it the server's own.
    pub(crate) fn prepare(&self, account: &Account) -> Result<()> {
        account.reaches(&self.data_dir)?;
        make_private(&self.root, account)?;
        check_data_dir(&self.data_dir, account)?;
        make_private(&self.socket_dir, account)
    }

    /// Removes what a killed server left: its process id may be anybody's by now, and the server
    /// would take that one for itself. The caller holds the lock and found no server that answers.
    /// Returns whether there was such a file.
    pub(crate) fn clear_stale(&self) -> Result<bool> {
        let stale = remove(&self.data_dir.join("postmaster.pid"))?;
        remove(&self.socket_dir.join(SOCKET_NAME))?;
        remove(&self.socket_dir.join(format!("{SOCKET_NAME}.lock")))?;
        Ok(stale)
    }
}

/// The directory that holds the clusters of this user's projects.
pub(crate) fn home_of(account: &Account) -> Result<PathBuf> {
    if account.is_substitute {
        // Root's own home is closed to the account that the server runs as.
        return Ok(PathBuf::from("/var/lib/highwater"));
    }
    let xdg = Xdg::new().map_err(|error| {
        Error::new(
            ErrorKind::Setup,
            format!("there is no home directory: {error}"),
        )
        .with_hint("set HOME or XDG_DATA_HOME, or set DATABASE_URL")
    })?;
    Ok(xdg.data_dir().join("highwater"))
}

/// The directory of one project's cluster: readable by its name, unique by its path.
pub(crate) fn project_root(home: &Path, project_dir: &Path) -> Result<PathBuf> {
    let project = project_dir
        .canonicalize()
        .map_err(|error| io_error("cannot find the project directory", project_dir, error))?;
    let name = project.file_name().unwrap_or(OsStr::new("root"));
    Ok(home.join(format!("{}-{}", plain(name), short_hash(&project))))
}

/// A name that is valid in every file that contains it.
fn plain(name: &OsStr) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.to_string_lossy()
        .chars()
        .take(64)
        .map(|c| if keep(c) { c } else { '_' })
        .collect()
}

fn short_hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A new directory under the system's one for temporary files, the server's own.
pub(crate) fn temporary_root(account: &Account) -> Result<tempfile::TempDir> {
    let base = temporary_base(account, env::temp_dir());
    let made = tempfile::Builder::new()
        .prefix("highwater-")
        .tempdir_in(&base)
        .map_err(|error| io_error("cannot make a temporary directory", &base, error))?;
    hand_over(made.path(), account)?;
    Ok(made)
}

/// The account that removes the directory in the end must be able to.
fn temporary_base(account: &Account, usual: PathBuf) -> PathBuf {
    let open = usual
        .metadata()
        .is_ok_and(|found| account.has(Right::Write, &found));
    if !account.is_substitute || (open && account.reaches(&usual.join("x")).is_ok()) {
        usual
    } else {
        PathBuf::from("/tmp")
    }
}

/// A short directory for the socket: never the data directory, whose path may be long.
fn socket_dir(data_dir: &Path, account: &Account, runtime_dir: Option<&Path>) -> Result<PathBuf> {
    let hash = short_hash(data_dir);
    let own = runtime_dir.filter(|dir| !account.is_substitute && dir.is_absolute() && dir.is_dir());
    let dir = match own {
        Some(runtime_dir) => runtime_dir.join(format!("highwater-{hash}")),
        None => PathBuf::from(format!("/tmp/highwater-{}-{hash}", account.uid)),
    };
    check_socket_path(&dir)?;
    Ok(dir)
}

fn check_socket_path(dir: &Path) -> Result<()> {
    let socket = dir.join(SOCKET_NAME);
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_LIMIT {
        return Err(Error::new(
            ErrorKind::Setup,
            format!(
                "a socket path of {length} bytes is too long; the limit is {SOCKET_PATH_LIMIT}"
            ),
        )
        .with_location(socket.display().to_string())
        .with_hint(
            "set XDG_RUNTIME_DIR to a directory with a shorter path, or unset it to use /tmp",
        ));
    }
    if dir.to_str().is_none() {
        return Err(Error::new(
            ErrorKind::Setup,
            "the path of the socket is not UTF-8, so no database URL can name it",
        )
        .with_location(dir.display().to_string())
        .with_hint("set XDG_RUNTIME_DIR to another directory, or unset it to use /tmp"));
    }
    Ok(())
}

/// Creates a directory that only the server's account (and root) can open, or checks an existing
/// one: in a directory for everybody, somebody else may have created it first.
pub(crate) fn make_private(dir: &Path, account: &Account) -> Result<()> {
    if let Some(parent) = dir.parent() {
        make_parent(parent, account)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => hand_over(dir, account),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            take_over(dir, account)?;
            check_own(dir, account)
        }
        Err(error) => Err(io_error("cannot make the directory", dir, error)),
    }
}

fn make_parent(parent: &Path, account: &Account) -> Result<()> {
    if parent.is_dir() {
        return Ok(());
    }
    let made = fs::create_dir_all(parent).and_then(|()| {
        if account.is_substitute {
            // Root's umask may be strict, and the server must pass.
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    });
    made.map_err(|error| io_error("cannot make the directory", parent, error))
}

/// Another process of root's may be between making a directory and handing it over, or was killed
/// there; only root can have made one that is root's.
fn take_over(dir: &Path, account: &Account) -> Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() && found.uid() == 0 => hand_over(dir, account),
        _ => Ok(()),
    }
}

fn hand_over(dir: &Path, account: &Account) -> Result<()> {
    if !account.is_substitute {
        return Ok(());
    }
    lchown(dir, Some(account.uid), Some(account.gid))
        .map_err(|error| io_error("cannot hand the directory to its account", dir, error))
}

fn check_own(dir: &Path, account: &Account) -> Result<()> {
    let found = fs::symlink_metadata(dir)
        .map_err(|error| io_error("cannot inspect the directory", dir, error))?;
    if !found.is_dir() {
        return Err(Error::new(ErrorKind::Setup, "this is not a directory")
            .with_location(dir.display().to_string())
            .with_hint("move it away"));
    }
    if found.uid() != account.uid {
        return Err(Error::new(
            ErrorKind::Setup,
            format!(
                "the directory belongs to user id {}, but PostgreSQL runs as {} ({})",
                found.uid(),
                account.name,
                account.uid
            ),
        )
        .with_location(dir.display().to_string())
        .with_hint("run as its owner, move it away, or set DATABASE_URL"));
    }
    if !account.has(Right::Write, &found) {
        return Err(read_only(dir, account));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|error| io_error("cannot restrict the directory to its owner", dir, error))?;
    }
    Ok(())
}

/// A missing data directory will be created; an existing one must be a server's, and writable.
fn check_data_dir(data_dir: &Path, account: &Account) -> Result<()> {
    if fs::symlink_metadata(data_dir).is_err() {
        return Ok(());
    }
    check_own(data_dir, account)?;
    if data_dir.join("PG_VERSION").is_file() {
        return Ok(());
    }
    // Succeeds only on an empty one.
    fs::remove_dir(data_dir).map_err(|_| {
        Error::new(
            ErrorKind::Setup,
            "this is not a PostgreSQL data directory: it has files but no PG_VERSION",
        )
        .with_location(data_dir.display().to_string())
        .with_hint("move it away, and a new one is created")
    })
}

fn read_only(dir: &Path, account: &Account) -> Error {
    Error::new(
        ErrorKind::Setup,
        format!("the directory is read-only for {}", account.name),
    )
    .with_location(dir.display().to_string())
    .with_hint("give its owner the right to write (chmod u+w), or set DATABASE_URL")
}

/// The project's lock: its holder may start the server, and the server's supervisor keeps it until
/// the server is down.
pub(crate) fn open_lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    open(&path, OpenOptions::new().create(true).truncate(false))
        .map_err(|error| io_error("cannot open the lock", &path, error))
}

/// The server's log, from the beginning: each start has its own.
pub(crate) fn open_log(place: &Place) -> Result<File> {
    let path = place.log();
    open(&path, OpenOptions::new().create(true).truncate(true))
        .map_err(|error| io_error("cannot open the server's log", &path, error))
}

/// As root this opens a file in a directory of another account, so it follows no link laid there.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path)
}

fn remove(file: &Path) -> Result<bool> {
    match fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("cannot remove a stale file", file, error)),
    }
}

/// A failed file operation as a sentence: the operation, the file, the system's message, a hint.
pub(crate) fn io_error(doing: &str, path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_SPACE,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "make it writable, set HIGHWATER_HOME (TMPDIR for a temporary cluster) to a directory \
             that is, or set DATABASE_URL"
        }
        _ => "check the path, or set DATABASE_URL",
    };
    Error::new(ErrorKind::Io, format!("{doing}: {error}"))
        .with_location(path.display().to_string())
        .with_hint(hint)
        .with_source(error)
}

#[cfg(test)]
mod tests;
