//! The binary as its users see it: exit codes, what goes to stdout and what to stderr, signals.

mod append;
mod audit;
mod corpus;
mod crash_points;
mod dead_letters;
mod events;
mod exit;
mod init;
mod killed;
mod pooler;
mod private;
mod run;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::support::eventually;

const LIMIT: Duration = crate::support::PATIENCE;

/// A directory to work in, and one for the data of its private PostgreSQL.
struct Shop {
    top: TempDir,
}

/// A command that has ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A command that runs; what it prints goes to files.
struct Started {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Shop {
    fn new() -> Shop {
        // Open to the account that runs PostgreSQL for root.
        let top = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let shop = Shop { top };
        fs::create_dir(shop.dir()).unwrap();
        fs::create_dir(shop.temporary()).unwrap();
        fs::set_permissions(shop.temporary(), fs::Permissions::from_mode(0o1777)).unwrap();
        shop
    }

    fn dir(&self) -> PathBuf {
        self.top.path().join("shop")
    }

    fn temporary(&self) -> PathBuf {
        self.top.path().join("tmp")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A projection `counts`: a row for each stream.
    fn write_counts(&self) {
        self.write("projections/counts.sql", COUNTS);
    }

    /// The binary with these arguments, free of this process's settings.
    fn command(&self, url: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        for name in ["DATABASE_URL", "RUST_LOG", "NO_COLOR"] {
            command.env_remove(name);
        }
        if let Some(url) = url {
            command.env("DATABASE_URL", url);
        }
        command
            .args(arguments)
            .current_dir(self.dir())
            .env("HIGHWATER_HOME", self.top.path().join("home"))
            .env("TMPDIR", self.temporary())
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, url: Option<&str>, arguments: &[&str]) -> Ran {
        self.run_with(url, arguments, "").await
    }

    async fn run_with(&self, url: Option<&str>, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(url, arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that takes no input may be gone by now.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn start(&self, url: Option<&str>, arguments: &[&str]) -> Started {
        let name = uuid::Uuid::new_v4();
        let stdout = self.top.path().join(format!("{name}.stdout"));
        let stderr = self.top.path().join(format!("{name}.stderr"));
        let mut command = self.command(url, arguments);
        command
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        Started {
            child: command.spawn().unwrap(),
            stdout,
            stderr,
        }
    }
}

impl Ran {
    /// Exactly one line of JSON, and nothing else on stdout.
    fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The error that `--json` shows: the last line of stderr.
    fn error(&self) -> Value {
        let last = self.stderr.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        error["error"].clone()
    }

    #[track_caller]
    fn expect(&self, code: i32) -> &Ran {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// It failed with this code, said so in one `error:` line that has this in it, and printed
    /// nothing else as a result.
    #[track_caller]
    fn expect_error(&self, code: i32, text: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:?}");
        let errors = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        let errors: Vec<&str> = errors.collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert!(errors[0].contains(text), "{text:?} is not in {self:?}");
    }
}

impl Started {
    async fn prints(&self, file: &Path, text: &str) {
        eventually(text, LIMIT, async || read(file).contains(text)).await;
    }

    async fn says(&self, text: &str) {
        self.prints(&self.stderr.clone(), text).await;
    }

    async fn shows(&self, text: &str) {
        self.prints(&self.stdout.clone(), text).await;
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    async fn end(mut self) -> Ran {
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it goes on: {}", read(&self.stderr)));
        Ran {
            code: status.unwrap().code().unwrap(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

const COUNTS: &str = "
-- highwater: up
create table counts (stream text primary key, n bigint not null);
-- highwater: apply
insert into counts (stream, n) select stream, count(*) from batch group by stream
on conflict (stream) do update set n = counts.n + excluded.n;
";

/// Fails on the event whose `n` is 7.
const PICKY: &str = "
-- highwater: up
create table picky (n bigint not null);
-- highwater: apply
insert into picky select 1 / ((data->>'n')::int - 7) from batch;
";
