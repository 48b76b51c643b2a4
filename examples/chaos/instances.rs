//! The instances: `highwater run` as anybody starts it, and a program with a projection in Rust.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::Projection;
use highwater::internal::source::Batch;
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::time::timeout;

use crate::Outcome;
use crate::leash::{Leashed, Start};
use crate::proxy::Proxy;
use crate::servers::Address;

pub(crate) const INSTANCES: usize = 4;
/// This many of them are programs with a projection in Rust.
const PROGRAMS: usize = 2;
/// The variable that makes this program such an instance.
const PROGRAM: &str = "HIGHWATER_CHAOS_INSTANCE";
/// How long an instance may take to drain.
const DRAIN: Duration = Duration::from_secs(30);

const SETTINGS: &str =
    "[engine]\nlease = \"2s\"\nanswer_timeout = \"3s\"\nretry_delay_max = \"1s\"\n";

const TABLE: &str = "create table ledger (
    applied bigint generated always as identity, position bigint not null,
    stream text not null, version bigint not null";
const APPLY: &str = "insert into ledger (position, stream, version)
select position, stream, version from batch order by position;\n";
/// A kind that nobody knows yet cannot be applied.
const APPLY_KIND: &str = "insert into ledger (position, stream, version, kind)
select position, stream, version, data->>'kind' from batch order by position;\n";

/// The directory that all instances share, as a deployment's machines share a release.
pub(crate) struct Project {
    directory: PathBuf,
    binary: PathBuf,
}

impl Project {
    pub(crate) fn make(directory: PathBuf) -> Outcome<Project> {
        let own = std::env::current_exe()?;
        let release = own
            .parent()
            .and_then(Path::parent)
            .ok_or("no directory of programs")?;
        let binary = release.join("highwater");
        if !binary.is_file() {
            return Err(format!(
                "there is no {}: build it with cargo build --release",
                binary.display()
            )
            .into());
        }
        fs::create_dir_all(directory.join("projections"))?;
        fs::write(directory.join("highwater.toml"), SETTINGS)?;
        let project = Project { directory, binary };
        project.write("one", "", "")?;
        project.write("typed", "events = [\"Wanted\"]\n", "")?;
        project.set_partitions("four", 4)?;
        project.set_partitions("parks", 2)?;
        Ok(project)
    }

    fn write(&self, name: &str, header: &str, reference: &str) -> Outcome<()> {
        let apply = if reference.is_empty() {
            APPLY
        } else {
            APPLY_KIND
        };
        let text = format!(
            "/* highwater\n{header}*/\n-- highwater: up\n{TABLE}{reference});\n\
             create index on ledger (position);\n-- highwater: apply\n{apply}"
        );
        let file = self
            .directory
            .join("projections")
            .join(format!("{name}.sql"));
        // Nobody reads half of it.
        let next = file.with_extension("next");
        fs::write(&next, text)?;
        fs::rename(next, file)?;
        Ok(())
    }

    pub(crate) fn set_partitions(&self, name: &str, partitions: u64) -> Outcome<()> {
        let header = format!("partitions = {partitions}\n");
        if name == "parks" {
            let reference = ",\n    kind text references public.known (kind)";
            return self.write(name, &format!("{header}on_error = \"park\"\n"), reference);
        }
        self.write(name, &header, "")
    }

    /// Runs a command as an operator does. Its exit code and what it said.
    pub(crate) async fn command(&self, url: &str, arguments: &[&str]) -> Outcome<(i32, String)> {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("DATABASE_URL", url)
            .process_group(0)
            .kill_on_drop(true);
        let output = timeout(Duration::from_secs(120), command.output()).await;
        let output = output.map_err(|_| format!("highwater {arguments:?}: no end in 120 s"))??;
        let said = [output.stdout, output.stderr].concat();
        let code = output.status.code().unwrap_or(-1);
        Ok((code, String::from_utf8_lossy(&said).into_owned()))
    }
}

/// One instance and its way to the server.
pub(crate) struct Instance {
    pub(crate) number: usize,
    pub(crate) proxy: Proxy,
    process: Option<Leashed>,
    log: PathBuf,
}

impl Instance {
    pub(crate) async fn new(number: usize, address: &Address, logs: &Path) -> Outcome<Instance> {
        Ok(Instance {
            number,
            proxy: Proxy::start(address.socket()).await?,
            process: None,
            log: logs.join(format!("instance-{number}.log")),
        })
    }

    pub(crate) async fn start(&mut self, project: &Project) -> Outcome<()> {
        let is_program = self.number < PROGRAMS;
        let own = std::env::current_exe()?;
        let program = if is_program { &own } else { &project.binary };
        let port = self.proxy.port();
        let url =
            format!("host=127.0.0.1 port={port} user=postgres dbname=highwater sslmode=disable");
        let mut environment = vec![("DATABASE_URL", url)];
        if is_program {
            environment.push((PROGRAM, "1".to_owned()));
        }
        let process = Leashed::start(Start {
            program,
            arguments: ["run", "--quiet"].map(str::to_owned).into(),
            environment,
            directory: &project.directory,
            log: File::options().create(true).append(true).open(&self.log)?,
            account: None,
            signal: Signal::SIGKILL,
            scratch: None,
        });
        self.process = Some(process.await?);
        Ok(())
    }

    /// Its process id while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Leashed::pid)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // One that has just ended by itself is seen by who looks after that.
            let _ = process.signal(signal);
        }
    }

    /// The exit code of one that ended by itself; it is none any more then.
    pub(crate) fn has_ended(&mut self) -> Outcome<Option<i32>> {
        let ended = match &mut self.process {
            Some(process) => process.has_ended()?,
            None => None,
        };
        if ended.is_some() {
            self.process = None;
        }
        Ok(ended)
    }

    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::SIGKILL).await?;
        }
        Ok(())
    }

    /// Asks it to end, and waits for its exit code; none if it did not run or had to be killed.
    pub(crate) async fn drain(&mut self) -> Outcome<Option<i32>> {
        let Some(mut process) = self.process.take() else {
            return Ok(None);
        };
        // One that has just ended by itself says so in its exit code.
        let _ = process.signal(Signal::SIGTERM);
        match timeout(DRAIN, process.ended()).await {
            Ok(code) => code.map(Some),
            Err(_) => {
                process.end(Signal::SIGKILL).await?;
                Ok(None)
            }
        }
    }
}

struct Ledger;

impl Projection for Ledger {
    fn name(&self) -> &str {
        "in_rust"
    }

    fn up(&self) -> &str {
        "create table ledger (applied bigint generated always as identity, position bigint not null,
                              stream text not null, version bigint not null)"
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), highwater::BoxError> {
        let positions: Vec<i64> = batch.events.iter().map(|e| e.position.get()).collect();
        let streams: Vec<&str> = batch.events.iter().map(|e| &*e.stream).collect();
        let versions: Vec<i64> = batch.events.iter().map(|e| e.version).collect();
        let sql = "insert into ledger (position, stream, version)
                   select * from unnest($1::bigint[], $2::text[], $3::bigint[])";
        tx.execute(sql, &[&positions, &streams, &versions]).await?;
        Ok(())
    }
}

/// This program as an instance, if it was started as one.
pub(crate) fn as_program() -> Option<ExitCode> {
    std::env::var_os(PROGRAM)?;
    Some(match highwater::cli::App::new().projection(Ledger) {
        Ok(app) => app.main(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    })
}
