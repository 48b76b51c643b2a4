//! The private PostgreSQL: who owns it, who shares it, and that it goes when its owner goes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater_cluster::{Cluster, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// No machine is that busy.
const LIMIT: Duration = Duration::from_secs(300);

/// Waits until `condition` holds; after `limit` it panics and says what did not come.
async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The variables that make this test binary the owner of a cluster in a process of its own.
const OWNER_REPORT: &str = "HIGHWATER_TEST_OWNER_REPORT";
const OWNER_PROJECT: &str = "HIGHWATER_TEST_OWNER_PROJECT";

/// A home for clusters and a project, both temporary and open to the account that serves root.
struct Project {
    top: TempDir,
}

impl Project {
    fn new() -> Project {
        let top = tempfile::tempdir_in("/tmp").unwrap();
        set_mode(top.path(), 0o755);
        let project = Project { top };
        fs::create_dir(project.dir()).unwrap();
        project
    }

    fn home(&self) -> PathBuf {
        self.top.path().join("home")
    }

    fn dir(&self) -> PathBuf {
        self.top.path().join("shop")
    }

    async fn start(&self) -> Result<Cluster> {
        Cluster::for_project_in(&self.home(), &self.dir()).await
    }

    async fn running(&self) -> Option<Cluster> {
        let found = Cluster::running_for_project_in(&self.home(), &self.dir()).await;
        found.unwrap()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn try_connect(cluster_url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(cluster_url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect(cluster: &Cluster) -> Client {
    try_connect(&cluster.url("highwater")).await.unwrap()
}

async fn setting(client: &Client, name: &str) -> String {
    let row = client
        .query_one("select current_setting($1)", &[&name])
        .await;
    row.unwrap().get(0)
}

fn server_pid(cluster: &Cluster) -> Pid {
    let file = fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
    Pid::from_raw(file.lines().next().unwrap().parse().unwrap())
}

/// This binary again, as the owner of a cluster: it reports a line and then waits to be killed.
struct Owner {
    process: Child,
    report: PathBuf,
    /// Its directory for temporary files.
    top: TempDir,
}

impl Owner {
    fn start(project: Option<&Project>) -> Owner {
        let top = tempfile::tempdir_in("/tmp").unwrap();
        set_mode(top.path(), 0o1777);
        let report = top.path().join("report");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "an_owner_for_the_other_tests", "--ignored"])
            .env(OWNER_REPORT, &report)
            .env("TMPDIR", top.path())
            .stdout(Stdio::null());
        if let Some(project) = project {
            command.env(OWNER_PROJECT, project.top.path());
        }
        Owner {
            process: command.spawn().unwrap(),
            report,
            top,
        }
    }

    /// The URL and the data directory of its cluster.
    async fn cluster(&self) -> (String, PathBuf) {
        eventually("the owner reports its cluster", LIMIT, async || {
            fs::read_to_string(&self.report).is_ok_and(|text| text.ends_with('\n'))
        })
        .await;
        let text = fs::read_to_string(&self.report).unwrap();
        let (url, data_dir) = text.trim().split_once(' ').unwrap();
        (url.to_owned(), PathBuf::from(data_dir))
    }

    fn temporary_roots(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.top.path()).unwrap().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
    }

    /// SIGKILL: it gets no chance to clean up.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
#[ignore = "a process that other tests start and kill"]
async fn an_owner_for_the_other_tests() {
    let report = std::env::var_os(OWNER_REPORT).unwrap();
    let cluster = match std::env::var_os(OWNER_PROJECT) {
        Some(top) => {
            let top = PathBuf::from(top);
            Cluster::for_project_in(&top.join("home"), &top.join("shop")).await
        }
        None => Cluster::temporary().await,
    };
    let cluster = cluster.unwrap();
    let line = format!(
        "{} {}\n",
        cluster.url("highwater"),
        cluster.data_dir().display()
    );
    fs::write(report, line).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_temporary_cluster_serves_the_default_database_and_leaves_nothing() {
    let cluster = Cluster::temporary_with(&[("max_connections", "17")])
        .await
        .unwrap();
    assert!(cluster.is_owner());
    let client = connect(&cluster).await;
    assert_eq!(setting(&client, "max_connections").await, "17");
    assert_eq!(setting(&client, "listen_addresses").await, "");
    assert_eq!(setting(&client, "fsync").await, "on");
    assert_eq!(setting(&client, "server_encoding").await, "UTF8");
    assert!(
        setting(&client, "server_version")
            .await
            .starts_with(&cluster.version().1)
    );
    let (data_dir, socket_dir) = (
        cluster.data_dir().to_owned(),
        cluster.socket_dir().to_owned(),
    );
    cluster.stop().await.unwrap();
    assert!(!data_dir.parent().unwrap().exists());
    assert!(!socket_dir.exists());
    assert!(client.simple_query("select 1").await.is_err());
}

#[tokio::test]
async fn nobody_else_can_open_the_sockets_directory() {
    let cluster = Cluster::temporary().await.unwrap();
    let mode = cluster
        .socket_dir()
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn dropping_the_owner_brings_the_server_down() {
    let cluster = Cluster::temporary().await.unwrap();
    let url = cluster.url("highwater");
    let root = cluster.data_dir().parent().unwrap().to_owned();
    drop(cluster);
    eventually("the directory goes", LIMIT, async || !root.exists()).await;
    assert!(try_connect(&url).await.is_err());
}

#[tokio::test]
async fn kill_9_of_the_owner_brings_the_server_down_and_its_directory_away() {
    let mut owner = Owner::start(None);
    let (url, data_dir) = owner.cluster().await;
    let client = try_connect(&url).await.unwrap();
    let root = data_dir.parent().unwrap();
    owner.kill();
    eventually("the directory goes", LIMIT, async || !root.exists()).await;
    assert!(try_connect(&url).await.is_err());
    assert!(client.simple_query("select 1").await.is_err());
}

#[tokio::test]
async fn kill_9_during_initdb_leaves_no_directory() {
    let mut owner = Owner::start(None);
    eventually("a directory is being initialised", LIMIT, async || {
        owner
            .temporary_roots()
            .any(|root| root.join("data.new").exists())
    })
    .await;
    owner.kill();
    eventually("the directory goes", LIMIT, async || {
        owner.temporary_roots().next().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_supervisor_that_is_terminated_stops_the_server_too() {
    let cluster = Cluster::temporary().await.unwrap();
    kill(parent_of(server_pid(&cluster)), Signal::SIGTERM).unwrap();
    cluster.ended().await;
    assert!(try_connect(&cluster.url("highwater")).await.is_err());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn without_its_supervisor_the_server_still_ends_with_its_owner() {
    let cluster = Cluster::temporary().await.unwrap();
    let root = cluster.data_dir().parent().unwrap().to_owned();
    kill(parent_of(server_pid(&cluster)), Signal::SIGKILL).unwrap();
    cluster.ended().await;
    let url = cluster.url("highwater");
    try_connect(&url).await.unwrap();
    cluster.stop().await.unwrap();
    assert!(try_connect(&url).await.is_err());
    assert!(!root.exists());
}

fn parent_of(process: Pid) -> Pid {
    let output = Command::new("ps")
        .args(["-o", "ppid=", "-p", &process.to_string()])
        .output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    Pid::from_raw(said.trim().parse().unwrap())
}

#[tokio::test]
async fn a_second_process_shares_a_projects_server_and_does_not_stop_it() {
    let project = Project::new();
    let owner = project.start().await.unwrap();
    let guest = project.start().await.unwrap();
    assert!(owner.is_owner() && !guest.is_owner());
    assert_eq!(guest.data_dir(), owner.data_dir());
    assert_eq!(guest.bin_dir(), owner.bin_dir());
    assert_eq!(guest.version(), owner.version());
    guest.stop().await.unwrap();
    connect(&owner).await;
    owner.stop().await.unwrap();
    assert!(project.running().await.is_none());
}

#[tokio::test]
async fn many_processes_that_start_at_once_get_one_server() {
    let project = Project::new();
    let (a, b, c) = tokio::join!(project.start(), project.start(), project.start());
    let all = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert_eq!(all.iter().filter(|cluster| cluster.is_owner()).count(), 1);
    for cluster in &all {
        connect(cluster).await;
    }
    for cluster in all {
        cluster.stop().await.unwrap();
    }
}

#[tokio::test]
async fn who_shares_a_server_hears_that_its_owner_has_taken_it_down() {
    let project = Project::new();
    let owner = project.start().await.unwrap();
    let shares = project.start().await.unwrap();
    assert!(!shares.is_owner());
    owner.stop().await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), shares.ended()).await;
    assert!(heard.is_ok(), "it does not wait for ever");
}

#[tokio::test]
async fn a_projects_data_survives_its_server() {
    let project = Project::new();
    assert!(project.running().await.is_none());
    let first = project.start().await.unwrap();
    connect(&first)
        .await
        .batch_execute("create table kept ()")
        .await
        .unwrap();
    first.stop().await.unwrap();
    let second = project.start().await.unwrap();
    assert!(second.is_owner());
    connect(&second)
        .await
        .batch_execute("table kept")
        .await
        .unwrap();
    second.stop().await.unwrap();
}

#[tokio::test]
async fn who_comes_while_a_killed_owners_server_goes_down_waits_and_takes_over() {
    let project = Project::new();
    let mut owner = Owner::start(Some(&project));
    let (url, _) = owner.cluster().await;
    let client = try_connect(&url).await.unwrap();
    client.batch_execute("create table kept ()").await.unwrap();
    owner.kill();
    // Just after the kill the old server may still answer; then it is shared until it is gone.
    let mut cluster = None;
    eventually("this process is the owner", LIMIT, async || {
        let found = project.start().await.unwrap();
        let is_owner = found.is_owner();
        cluster = Some(found);
        is_owner
    })
    .await;
    let cluster = cluster.unwrap();
    connect(&cluster)
        .await
        .batch_execute("table kept")
        .await
        .unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn stale_files_of_a_killed_server_are_taken_over() {
    let project = Project::new();
    let first = project.start().await.unwrap();
    let client = connect(&first).await;
    client.batch_execute("create table kept ()").await.unwrap();
    let pid_file = first.data_dir().join("postmaster.pid");
    kill(server_pid(&first), Signal::SIGKILL).unwrap();
    first.ended().await;
    // The name of a process that is alive and not ours to take for the server.
    let text = fs::read_to_string(&pid_file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    let second = project.start().await.unwrap();
    assert!(second.is_owner());
    connect(&second)
        .await
        .batch_execute("table kept")
        .await
        .unwrap();
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_another_process_owns_can_be_stopped() {
    let project = Project::new();
    let nothing = Cluster::stop_running_in(&project.home(), &project.dir()).await;
    assert!(!nothing.unwrap());
    let owner = Owner::start(Some(&project));
    let (url, _) = owner.cluster().await;
    let busy = try_connect(&url).await.unwrap();
    let stopped = Cluster::stop_running_in(&project.home(), &project.dir()).await;
    assert!(stopped.unwrap());
    assert!(project.running().await.is_none());
    assert!(busy.simple_query("select 1").await.is_err());
}

#[tokio::test]
async fn an_owner_hears_that_its_server_was_stopped() {
    let project = Project::new();
    let owner = project.start().await.unwrap();
    let (home, dir) = (project.home(), project.dir());
    let (_, stopped) = tokio::join!(owner.ended(), Cluster::stop_running_in(&home, &dir));
    assert!(stopped.unwrap());
    owner.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let result = Cluster::temporary_with(&[("max_connections", "many")]).await;
    let error = result.err().unwrap();
    let said = error.to_string();
    assert!(
        said.contains("did not start; the end of its log:"),
        "{said}"
    );
    assert!(
        said.contains("invalid value for parameter \"max_connections\""),
        "{said}"
    );
}

#[tokio::test]
async fn a_read_only_data_directory_is_named() {
    let project = Project::new();
    let first = project.start().await.unwrap();
    let data_dir = first.data_dir().to_owned();
    first.stop().await.unwrap();
    set_mode(&data_dir, 0o500);
    let error = project.start().await.err().unwrap();
    set_mode(&data_dir, 0o700);
    assert!(
        error.to_string().contains("the directory is read-only for"),
        "{error}"
    );
    assert_eq!(error.location(), data_dir.to_str());
}

#[tokio::test]
async fn data_of_another_major_version_is_not_passed_over() {
    let project = Project::new();
    let first = project.start().await.unwrap();
    let used = first.data_dir().to_owned();
    first.stop().await.unwrap();
    fs::rename(&used, used.with_file_name("pg13")).unwrap();
    let error = project.start().await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("this project's data belongs to PostgreSQL 13"),
        "{error}"
    );
}
