//! Instances as processes: killed, stopped, woken again.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use highwater::Until;
use highwater::internal::engine::Engine;
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{LIMIT, until_shared};
use crate::exactness::{
    Running, Storm, assert_exact, assert_exact_by_stream, caught_up, ledger_in_rust, positions,
    slow_ledger_in_rust,
};
use crate::support::{append_rows, eventually};

const LEDGER: &str = "/* highwater\npartitions = 4\n*/\n-- highwater: up
create table ledger (applied bigint generated always as identity primary key,
                     position bigint not null, stream text not null, version bigint not null);
-- highwater: apply
insert into ledger (position, stream, version)
select position, stream, version from batch order by position;
";

/// A project whose instances run the ledger.
struct Project {
    top: TempDir,
    url: String,
}

/// A `highwater run`.
struct Instance(Child);

impl Project {
    fn new(url: &str) -> Project {
        let top = tempfile::tempdir().unwrap();
        let project = Project {
            url: url.to_owned(),
            top,
        };
        let directory = project.dir().join("projections");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("ledger.sql"), LEDGER).unwrap();
        fs::write(
            project.dir().join("highwater.toml"),
            "[engine]\nlease = \"1s\"\n",
        )
        .unwrap();
        project
    }

    fn dir(&self) -> PathBuf {
        self.top.path().to_owned()
    }

    fn start(&self) -> Instance {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command
            .args(["run", "--quiet"])
            .current_dir(self.dir())
            .env("DATABASE_URL", &self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Instance(command.spawn().unwrap())
    }
}

impl Instance {
    fn pid(&self) -> i64 {
        i64::from(self.0.id())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, after) = stat.rsplit_once(')').unwrap();
        after.trim_start().starts_with('T')
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_instance_had_is_taken_over_and_nothing_is_lost() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let project = Project::new(database.url());
    let storm = Storm::start(database.url(), 10).await;
    let mut instances = vec![project.start(), project.start(), project.start()];
    until_shared(&client, &[1, 1, 2]).await;
    for _ in 0..3 {
        let killed = instances.remove(0);
        let pid = killed.pid();
        drop(killed);
        let sql = format!(
            "select count(*) from highwater.checkpoint c join highwater.instance i on i.id = c.owner
              where i.pid = {pid}"
        );
        eventually("it owns nothing any more", LIMIT, async || {
            positions(&client, &sql).await == [0]
        })
        .await;
        until_shared(&client, &[2, 2]).await;
        instances.push(project.start());
        until_shared(&client, &[1, 1, 2]).await;
    }
    let committed = storm.stop().await;
    caught_up(&client).await;
    drop(instances);
    assert_exact_by_stream(&client, "ledger", &committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_that_wakes_after_its_lease_never_commits_what_others_did() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let project = Project::new(database.url());
    let storm = Storm::start(database.url(), 10).await;
    let sleeper = project.start();
    let other = project.start();
    for _ in 0..3 {
        until_shared(&client, &[2, 2]).await;
        sleeper.signal(Signal::SIGSTOP);
        eventually("it sleeps", LIMIT, async || sleeper.is_stopped()).await;
        until_shared(&client, &[4]).await;
        sleeper.signal(Signal::SIGCONT);
    }
    until_shared(&client, &[2, 2]).await;
    let committed = storm.stop().await;
    caught_up(&client).await;
    drop((sleeper, other));
    assert_exact_by_stream(&client, "ledger", &committed).await;
}

/// The variable that makes this test binary an engine on the database of that URL.
const CHILD_URL: &str = "HIGHWATER_TEST_SLOW_ENGINE_URL";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that another test starts and stops"]
async fn an_engine_that_is_slow_in_its_transactions() {
    let url = std::env::var(CHILD_URL).unwrap();
    let pool = || Database::new(Connector::parse(&url).unwrap(), 4).unwrap();
    let source = TableSource::new("default", pool(), None, EventTable::own());
    let engine = Engine::new(pool(), super::settings(false))
        .source(Arc::new(source))
        .projection(slow_ledger_in_rust("ledger"));
    let running = engine.run(Until::Stopped, CancellationToken::new());
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_in_its_transaction_blocks_nobody_longer_than_its_lease() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=50).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored"])
        .arg("many_instances::processes::an_engine_that_is_slow_in_its_transactions")
        .env(CHILD_URL, database.url())
        .stdout(Stdio::null());
    let sleeper = Instance(command.spawn().unwrap());
    let sleeping = "select count(*) from pg_stat_activity
                     where query = 'select pg_sleep(0.1)' and datname = current_database()";
    eventually("it is in its transaction", LIMIT, async || {
        positions(&client, sleeping).await == [1]
    })
    .await;
    sleeper.signal(Signal::SIGSTOP);
    eventually("it sleeps", LIMIT, async || sleeper.is_stopped()).await;
    let ledger = [ledger_in_rust("ledger")];
    let other = Running::start(super::engine(&database, false, &ledger));
    caught_up(&client).await;
    sleeper.signal(Signal::SIGCONT);
    append_rows(&client, "s", 51..=100).await;
    caught_up(&client).await;
    drop(sleeper);
    other.stop().await;
    let committed: Vec<i64> =
        positions(&client, "select position from highwater.event order by 1").await;
    assert_exact(&client, "ledger", &committed).await;
}
