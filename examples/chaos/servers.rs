//! A primary and its synchronous replica, and what befalls them.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::cluster::Binaries;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use crate::Outcome;
use crate::leash::{Leashed, Start};
use crate::schedule::Shutdown;

const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where everybody finds the server that is the primary now.
#[derive(Clone, Debug)]
pub(crate) struct Address(PathBuf);

impl Address {
    /// The socket itself, for what carries connections to it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(".s.PGSQL.5432")
    }

    /// For clients that are not disturbed.
    pub(crate) fn url(&self) -> String {
        format!("host={} user=postgres dbname=highwater", self.0.display())
    }

    pub(crate) async fn connect(&self) -> Outcome<Client> {
        connect(&self.url()).await
    }

    /// Tries until there is a primary.
    pub(crate) async fn connected(&self) -> Outcome<Client> {
        let limit = Instant::now() + LIMIT;
        loop {
            match self.connect().await {
                Err(error) if Instant::now() > limit => return Err(error),
                Err(_) => sleep(LOOK_AGAIN).await,
                Ok(client) => return Ok(client),
            }
        }
    }
}

async fn connect(url: &str) -> Outcome<Client> {
    let opened = tokio::time::timeout(Duration::from_secs(5), tokio_postgres::connect(url, NoTls));
    let (client, connection) = opened.await??;
    tokio::spawn(connection);
    Ok(client)
}

struct Server {
    home: PathBuf,
    process: Leashed,
}

/// The cluster and its replica.
pub(crate) struct Servers {
    root: TempDir,
    programs: PathBuf,
    account: Option<User>,
    logs: PathBuf,
    made: usize,
    primary: Server,
    replica: Option<Server>,
}

/// What is needed to run a server.
struct Ground<'a> {
    programs: &'a Path,
    account: Option<&'a User>,
    logs: &'a Path,
}

impl Ground<'_> {
    /// Runs one of the server's programs to its end.
    async fn run(&self, program: &str, arguments: &[&str]) -> Outcome<()> {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir("/").kill_on_drop(true);
        if let Some(account) = self.account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        let output = command.output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    /// Starts the server of this home and waits until it answers.
    async fn start(&self, home: &Path) -> Outcome<Server> {
        let socket = home.display().to_string();
        let name = home.file_name().unwrap_or_default().to_string_lossy();
        let log = self.logs.join(format!("server-{name}.log"));
        let settings = [
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={socket}"),
            "max_connections=150".to_owned(),
            "wal_keep_size=1GB".to_owned(),
            "wal_retrieve_retry_interval=200ms".to_owned(),
            "log_min_messages=warning".to_owned(),
            "log_line_prefix=%m [%p] %a ".to_owned(),
        ];
        let data = home.join("data").display().to_string();
        let settings = settings.into_iter().flat_map(|s| ["-c".to_owned(), s]);
        let program = self.programs.join("postgres");
        let process = Leashed::start(Start {
            program: &program,
            arguments: ["-D".to_owned(), data]
                .into_iter()
                .chain(settings)
                .collect(),
            environment: Vec::new(),
            directory: Path::new("/"),
            log: File::options().create(true).append(true).open(&log)?,
            account: self.account,
            signal: Signal::SIGQUIT,
            scratch: Some(home),
        });
        let mut server = Server {
            home: home.to_owned(),
            process: process.await?,
        };
        server.ready(&log).await?;
        Ok(server)
    }
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!(
            "host={} user=postgres dbname={database}",
            self.home.display()
        )
    }

    async fn ready(&mut self, log: &Path) -> Outcome<()> {
        let limit = Instant::now() + LIMIT;
        while connect(&self.url("postgres")).await.is_err() {
            if self.process.has_ended()?.is_some() || Instant::now() > limit {
                return Err(format!("a server does not start; see {}", log.display()).into());
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

impl Servers {
    /// Makes both.
    pub(crate) async fn start(logs: &Path) -> Outcome<Servers> {
        let programs = Binaries::locate()?.bin_dir().to_owned();
        let account = account()?;
        // A socket's path must be short.
        let root = tempfile::Builder::new()
            .prefix("hw-chaos-")
            .tempdir_in("/tmp")?;
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
        let ground = Ground {
            programs: &programs,
            account: account.as_ref(),
            logs,
        };
        let home = new_home(root.path(), 1, account.as_ref())?;
        let data = home.join("data").display().to_string();
        let initdb = [
            "-D",
            &data,
            "-U",
            "postgres",
            "--auth=trust",
            "--encoding=UTF8",
        ];
        let initdb = [
            &initdb[..],
            &["--locale=C", "--no-sync", "--no-instructions"],
        ]
        .concat();
        ground.run("initdb", &initdb).await?;
        let primary = ground.start(&home).await?;
        let client = connect(&primary.url("postgres")).await?;
        client.batch_execute("create database highwater").await?;
        let mut servers = Servers {
            root,
            programs,
            account,
            logs: logs.to_owned(),
            made: 1,
            primary,
            replica: None,
        };
        servers.point()?;
        servers.make_replica().await?;
        Ok(servers)
    }

    pub(crate) fn address(&self) -> Address {
        Address(self.root.path().join("current"))
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            programs: &self.programs,
            account: self.account.as_ref(),
            logs: &self.logs,
        }
    }

    /// From now on everybody who connects comes to the primary.
    fn point(&self) -> Outcome<()> {
        let (current, next) = (self.address().0, self.root.path().join("next"));
        symlink(&self.primary.home, &next)?;
        fs::rename(next, current)?;
        Ok(())
    }

    /// Builds a replica; once it follows, commits wait for it.
    async fn make_replica(&mut self) -> Outcome<()> {
        self.made += 1;
        let home = new_home(self.root.path(), self.made, self.account.as_ref())?;
        let data = home.join("data").display().to_string();
        let from = self.primary.home.display().to_string();
        let backup = ["-D", &data, "-h", &from, "-U", "postgres", "-X", "stream"];
        let backup = [&backup[..], &["-R", "-c", "fast", "--no-sync"]].concat();
        self.ground().run("pg_basebackup", &backup).await?;
        self.replica = Some(self.ground().start(&home).await?);
        let client = connect(&self.primary.url("postgres")).await?;
        follows(&client, "streaming").await?;
        client
            .batch_execute("alter system set synchronous_standby_names = '*'")
            .await?;
        client.batch_execute("select pg_reload_conf()").await?;
        follows(&client, "streaming' and sync_state = 'sync").await
    }

    /// Stops the primary and starts it again.
    pub(crate) async fn restart(&mut self, how: Shutdown, down: Duration) -> Outcome<()> {
        self.stop_primary(match how {
            Shutdown::Fast => Signal::SIGINT,
            Shutdown::Immediate => Signal::SIGQUIT,
        })
        .await?;
        sleep(down).await;
        let home = self.primary.home.clone();
        self.primary = self.ground().start(&home).await?;
        Ok(())
    }

    async fn stop_primary(&mut self, signal: Signal) -> Outcome<()> {
        let ended = tokio::time::timeout(LIMIT, self.primary.process.end(signal)).await;
        ended.map_err(|_| "the primary does not stop")??;
        Ok(())
    }

    /// Kills the process of a session, which the server takes for a crash.
    pub(crate) async fn crash(&mut self, backend: u64) -> Outcome<()> {
        let client = connect(&self.primary.url("postgres")).await?;
        let sql = "select pid from pg_stat_activity
                    where backend_type = 'client backend' and pid <> pg_backend_pid() order by pid";
        let rows = client.query(sql, &[]).await?;
        let chosen = usize::try_from(backend)? % rows.len().max(1);
        let pid: i32 = rows.get(chosen).ok_or("nobody is connected")?.get(0);
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        // It has noticed when it ends the others; then it lets nobody in until it has recovered.
        let noticed = async { while client.simple_query("").await.is_ok() {} };
        tokio::time::timeout(LIMIT, noticed).await?;
        let log = self.logs.clone();
        self.primary.ready(&log).await
    }

    /// The replica takes over, and a new one is built.
    pub(crate) async fn fail_over(&mut self, planned: bool) -> Outcome<()> {
        let client = connect(&self.primary.url("postgres")).await?;
        follows(&client, "streaming' and sync_state = 'sync").await?;
        // The killed one's sessions may continue for a moment, as elsewhere; none can commit.
        self.stop_primary(if planned {
            Signal::SIGINT
        } else {
            Signal::SIGKILL
        })
        .await?;
        let next = self.replica.take().ok_or("there is no replica")?;
        let client = connect(&next.url("postgres")).await?;
        let row = client.query_one("select pg_promote(true, 60)", &[]).await?;
        if !row.get::<_, bool>(0) {
            return Err("the replica is not promoted within 60 s".into());
        }
        let old = std::mem::replace(&mut self.primary, next);
        self.point()?;
        // Its data goes with its home, which nobody needs any more.
        let home = old.home.clone();
        drop(old);
        remove(&home).await;
        self.make_replica().await
    }

    /// Stops both at once; the directories go away with `self`.
    pub(crate) async fn end(&mut self) {
        let _ = self.stop_primary(Signal::SIGQUIT).await;
        if let Some(mut replica) = self.replica.take() {
            let _ = replica.process.end(Signal::SIGQUIT).await;
        }
    }
}

/// A killed server's sessions may write for a moment.
async fn remove(home: &Path) {
    for _ in 0..50 {
        if fs::remove_dir_all(home).is_ok() || !home.exists() {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Waits until a replica is in that state.
async fn follows(client: &Client, state: &str) -> Outcome<()> {
    let sql = format!("select from pg_stat_replication where state = '{state}'");
    let limit = Instant::now() + LIMIT;
    while client.query(&sql, &[]).await?.is_empty() {
        if Instant::now() > limit {
            return Err(format!("no replica is {state} within {LIMIT:?}").into());
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn new_home(root: &Path, number: usize, account: Option<&User>) -> Outcome<PathBuf> {
    let home = root.join(format!("s{number}"));
    fs::create_dir(&home)?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
    if let Some(account) = account {
        let (user, group) = (account.uid.as_raw(), account.gid.as_raw());
        chown(&home, Some(user), Some(group))?;
        chown(root, Some(user), Some(group))?;
    }
    Ok(home)
}

/// PostgreSQL does not run as root: the account that replaces it.
fn account() -> Outcome<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    Err("PostgreSQL does not run as root, and there is no account postgres or nobody".into())
}
