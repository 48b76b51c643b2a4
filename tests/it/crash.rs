//! What is taken from a running engine: its process, its sessions, its server, its checkpoint.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::cluster::Cluster;
use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::internal::source::{BoxFuture, Follower, Source, Step};
use highwater::testing::TestDatabase;
use highwater::{Error, ErrorKind, Outcome, Position, Result, Until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use crate::exactness::{
    Running, Storm, assert_exact, caught_up, ledger_in_rust, ledger_in_sql, ledger_of_type,
    positions,
};
use crate::support::meddled::{Meddled, Meddling};
use crate::support::{Random, crash, eventually, one};

const LIMIT: Duration = crate::support::PATIENCE;

/// The variable that makes this test binary an engine on the database of that URL.
const CHILD_URL: &str = "HIGHWATER_TEST_ENGINE_URL";

/// Ends every session of the engines on a database.
const TERMINATE: &str = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
    where application_name like 'highwater%' and datname = current_database()";

/// Small batches, so that a catch-up has many commits to be killed between.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.batch_events_max = 25;
    settings.lease = Duration::from_secs(1);
    settings.retry_delay_max = Duration::from_millis(100);
    settings
}

fn pool(url: &str) -> Database {
    Database::new(Connector::parse(url).unwrap(), 8).unwrap()
}

fn own_events(url: &str) -> Arc<dyn Source> {
    let pool = pool(url);
    let direct = Some(pool.connector().clone());
    Arc::new(TableSource::new("default", pool, direct, EventTable::own()))
}

fn engine(url: &str) -> Engine {
    engine_with(url, settings())
}

fn engine_with(url: &str, settings: Settings) -> Engine {
    Engine::new(pool(url), settings)
        .source(own_events(url))
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Rolled back numbers and filled ones, in streams whose versions rise.
async fn fill(client: &Client, events: i64) {
    let sql = format!(
        "do $$ begin
             for i in 1..{events} loop
                 if i % 97 = 0 then perform nextval('highwater.event_position_seq'); end if;
                 insert into highwater.event (stream, version, type, data)
                 values ('stream-' || i % 50, i / 50 + 1, 'T', '{{}}');
             end loop;
         end $$"
    );
    client.batch_execute(&sql).await.unwrap();
}

async fn fill_one(client: &Client) {
    let sql = "insert into highwater.event (stream, version, type, data)
               values ('stream-1', 1000, 'T', '{}')";
    client.batch_execute(sql).await.unwrap();
}

async fn log(client: &Client) -> Vec<i64> {
    positions(client, "select position from highwater.event order by 1").await
}

async fn one_ran(client: &Client) {
    eventually("a projection has begun", LIMIT, async || {
        let sql = "select count(*) from highwater.checkpoint where position > 0";
        positions(client, sql).await[0] > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_at_fifty_moments_of_a_catch_up_leaves_what_an_undisturbed_run_leaves() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 20_000).await;
    let mut random = Random::new(Random::seed());
    let sum = "select coalesce(sum(position), 0)::bigint from highwater.checkpoint";
    let mut kills = 0;
    while kills < 50 {
        let mut child = Killed::start(database.url());
        let before = positions(&client, sum).await[0];
        // Between its first commit and some hundred later: 0 is in the middle of the claim.
        let wanted = before + i64::try_from(random.below(700)).unwrap();
        eventually("the engine gets further", LIMIT, async || {
            positions(&client, sum).await[0] >= wanted || child.has_ended()
        })
        .await;
        assert!(!child.has_ended(), "it was to be killed in the catch-up");
        child.kill();
        kills += 1;
    }
    let done = positions(&client, "select min(position) from highwater.checkpoint").await[0];
    assert!(
        done < 20_000,
        "killed in the catch-up, not after it: {done}"
    );
    let report = engine(database.url())
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    for (name, outcome) in &report.outcomes {
        assert!(matches!(outcome, Outcome::CaughtUp), "{name}: {outcome:?}");
    }
    let committed = log(&client).await;
    assert_eq!(committed.len(), 20_000);
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
}

/// An engine in a process of its own.
struct Killed(Child);

impl Killed {
    fn start(url: &str) -> Killed {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "crash::an_engine_for_the_other_tests",
                "--ignored",
            ])
            .env(CHILD_URL, url)
            .stdout(Stdio::null());
        Killed(command.spawn().unwrap())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// SIGKILL.
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that other tests start and kill"]
async fn an_engine_for_the_other_tests() {
    let url = std::env::var(CHILD_URL).unwrap();
    let running = engine(&url).run(Until::Stopped, CancellationToken::new());
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_share_the_projections_and_never_commit_to_one_that_they_handed_over() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let storm = Storm::start(database.url(), 5).await;
    // No lease ends here, however busy the machine is: a lease that ends hands over too.
    let mut settings = settings();
    settings.lease = Duration::from_secs(60);
    let first = Running::start(engine_with(database.url(), settings.clone()));
    one_ran(&client).await;
    let epochs = "select epoch from highwater.checkpoint where epoch > 0 order by projection";
    eventually("both projections are claimed", LIMIT, async || {
        positions(&client, epochs).await.len() == 2
    })
    .await;
    let before = positions(&client, epochs).await;
    let second = Running::start(engine_with(database.url(), settings));
    let owners = "select count(distinct owner) from highwater.checkpoint";
    eventually("each has one", LIMIT, async || {
        positions(&client, owners).await[0] == 2
    })
    .await;
    let after = positions(&client, epochs).await;
    let raised: Vec<i64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    // The second becomes able to run them one after the other, so both may change hands.
    assert!(
        raised.iter().all(|claims| *claims <= 1) && raised.contains(&1),
        "handed over, and never fought over: {before:?}, {after:?}"
    );
    // Where the checkpoint is, but under the old epoch.
    let sql = "select highwater.begin_batch(row(projection, generation, partition, epoch - 1, parking)::highwater.fence,
                      position, position, null, null)
                 from highwater.checkpoint where projection = 'in_sql'";
    let refused = client.batch_execute(sql).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "HW101");
    first.stop().await;
    let committed = storm.stop().await;
    caught_up(&client).await;
    second.stop().await;
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
}

async fn caught_up_both(client: &Client, head: i64) {
    eventually("both are at the head", LIMIT, async || {
        let sql = format!("select count(*) from highwater.checkpoint where position >= {head}");
        positions(client, &sql).await[0] == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_terminated_in_a_storm_lose_nothing() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let running = Running::start(engine(database.url()));
    let storm = Storm::start(database.url(), 20).await;
    let sum = "select coalesce(sum(position), 0)::bigint from highwater.checkpoint";
    for _ in 0..8 {
        let before = positions(&client, sum).await[0];
        eventually("the engine goes on", LIMIT, async || {
            positions(&client, sum).await[0] > before + 50
        })
        .await;
        client.batch_execute(TERMINATE).await.unwrap();
    }
    let committed = storm.stop().await;
    caught_up(&client).await;
    for (name, outcome) in &running.stop().await.outcomes {
        assert!(matches!(outcome, Outcome::Drained), "{name}: {outcome:?}");
    }
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
}

/// Appends until `stop`, again after each crash. Returns the number of acknowledged commits; a
/// crash undoes what was not flushed.
async fn careless_writer(url: String, number: usize, stop: Arc<AtomicBool>) -> usize {
    // It sleeps so that transactions overlap and leave gaps.
    let sql = format!(
        "begin; insert into highwater.event (stream, version, type, data)
         select 'writer-{number}', coalesce(max(version), 0) + 1, 'T', '{{}}'
           from highwater.event where stream = 'writer-{number}';
         select pg_sleep(0.002); commit"
    );
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        // A server that is starting again refuses connections.
        let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let driving = tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) && client.batch_execute(&sql).await.is_ok() {
            acknowledged += 1;
        }
        drop(client);
        let _ = driving.await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_the_server_lose_nothing_and_double_nothing_of_what_they_leave() {
    // fsync is on; what is committed asynchronously stays in memory as long as it can.
    let settings = [
        ("wal_writer_delay", "10s"),
        ("wal_writer_flush_after", "1GB"),
    ];
    let cluster = Cluster::temporary_with(&settings).await.unwrap();
    let url = cluster.url("highwater");
    let mut client = connect(&url).await;
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    fill(&client, 10).await;
    let running = Running::start(engine(&url));
    caught_up_both(&client, 10).await;
    // For every session to come: the writers' at once, the engine's after the first crash.
    client
        .batch_execute("alter database highwater set synchronous_commit = off")
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6)
        .map(|number| tokio::spawn(careless_writer(url.clone(), number, stop.clone())))
        .collect();
    for _ in 0..3 {
        let client = reconnected(&url).await;
        let least = "select min(position) from highwater.checkpoint";
        let before = positions(&client, least).await[0];
        eventually("the projections go on", LIMIT, async || {
            positions(&client, least).await[0] > before + 100
        })
        .await;
        crash(&url).await;
    }
    let client = reconnected(&url).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 10;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    caught_up(&client).await;
    for (name, outcome) in &running.stop().await.outcomes {
        assert!(matches!(outcome, Outcome::Drained), "{name}: {outcome:?}");
    }
    let committed = log(&client).await;
    assert!(
        committed.len() < acknowledged,
        "no crash undid anything: {acknowledged}"
    );
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
    cluster.stop().await.unwrap();
}

/// A live engine applies one more event, and the server crashes before anything else makes it write to
/// its disk. Returns the checkpoints that are left of the two projections, in the order of names.
async fn left_by_a_crash_right_after_a_live_batch(await_disk: bool) -> Vec<i64> {
    let cluster = Cluster::temporary().await.unwrap();
    let url = cluster.url("highwater");
    let mut client = connect(&url).await;
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    fill(&client, 10).await;
    let mut settings = settings();
    settings.await_disk = await_disk;
    // A renewal would wait for the disk, and take the batch with it.
    settings.lease = Duration::from_secs(3600);
    let live = Engine::new(pool(&url), settings)
        .source(own_events(&url))
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let running = Running::start(live);
    caught_up_both(&client, 10).await;
    // The instance renews once when its runners are live.
    eventually("both are reported live", LIMIT, async || {
        let live = "select count(*) from highwater.checkpoint where state = 'live'";
        positions(&client, live).await[0] == 2
    })
    .await;
    let writer = "select pid::bigint from pg_stat_activity where backend_type = 'walwriter'";
    let writer = i32::try_from(positions(&client, writer).await[0]).unwrap();
    let writer = Pid::from_raw(writer);
    kill(writer, Signal::SIGSTOP).unwrap();
    fill_one(&client).await;
    caught_up_both(&client, 11).await;
    running.abort();
    crash(&url).await;
    // So that it ends with the others, and not only after the server's patience.
    kill(writer, Signal::SIGCONT).unwrap();
    let client = reconnected(&url).await;
    let left = "select position from highwater.checkpoint order by projection";
    let left = positions(&client, left).await;
    // The engine is gone, and its lease would hold for an hour.
    client
        .batch_execute("delete from highwater.instance")
        .await
        .unwrap();
    let again = engine(&url).run(Until::CaughtUp, CancellationToken::new());
    for (name, outcome) in &again.await.unwrap().outcomes {
        assert!(matches!(outcome, Outcome::CaughtUp), "{name}: {outcome:?}");
    }
    let committed = log(&client).await;
    assert_eq!(committed.len(), 11);
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
    cluster.stop().await.unwrap();
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_batch_that_a_crash_undoes_is_undone_with_its_checkpoint_and_applied_again() {
    assert_eq!(
        left_by_a_crash_right_after_a_live_batch(false).await,
        [10, 10]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_batch_outlives_a_crash_where_batches_await_the_disk() {
    assert_eq!(
        left_by_a_crash_right_after_a_live_batch(true).await,
        [11, 11]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immediate_stop_of_the_server_in_live_traffic_loses_nothing_and_doubles_nothing() {
    let top = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (home, dir) = (top.path().join("home"), top.path().join("shop"));
    std::fs::create_dir(&dir).unwrap();
    let mut cluster = Cluster::for_project_in(&home, &dir).await.unwrap();
    let url = cluster.url("highwater");
    let mut client = connect(&url).await;
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    fill(&client, 10).await;
    let running = Running::start(engine(&url));
    caught_up_both(&client, 10).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|number| tokio::spawn(careless_writer(url.clone(), number, stop.clone())))
        .collect();
    for _ in 0..2 {
        let client = reconnected(&url).await;
        let least = "select min(position) from highwater.checkpoint";
        let before = positions(&client, least).await[0];
        eventually("the projections go on", LIMIT, async || {
            positions(&client, least).await[0] > before + 50
        })
        .await;
        let file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
        let pid = Pid::from_raw(file.lines().next().unwrap().parse().unwrap());
        kill(pid, Signal::SIGQUIT).unwrap();
        cluster.ended().await;
        cluster = Cluster::for_project_in(&home, &dir).await.unwrap();
        assert_eq!(cluster.url("highwater"), url);
    }
    let client = reconnected(&url).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    caught_up(&client).await;
    for (name, outcome) in &running.stop().await.outcomes {
        assert!(matches!(outcome, Outcome::Drained), "{name}: {outcome:?}");
    }
    let committed = log(&client).await;
    assert_exact(&client, "in_sql", &committed).await;
    assert_exact(&client, "in_rust", &committed).await;
    cluster.stop().await.unwrap();
}

async fn reconnected(url: &str) -> Client {
    let mut client = None;
    eventually("the server is back", LIMIT, async || {
        let Ok((opened, connection)) = tokio_postgres::connect(url, NoTls).await else {
            return false;
        };
        tokio::spawn(connection);
        client = Some(opened);
        true
    })
    .await;
    client.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_the_batch_in_flight_and_stores_the_position() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 5_000).await;
    let running = Running::start(engine(database.url()));
    one_ran(&client).await;
    let report = running.stop().await;
    for (name, outcome) in &report.outcomes {
        assert!(matches!(outcome, Outcome::Drained), "{name}: {outcome:?}");
    }
    for ledger in ["in_sql", "in_rust"] {
        let sql = format!(
            "select coalesce(max(position), 0)::bigint from {ledger}.ledger
              union all
             select position from highwater.checkpoint where projection = '{ledger}'"
        );
        let [applied, stored] = positions(&client, &sql).await[..] else {
            panic!()
        };
        assert_eq!(applied, stored, "{ledger}");
    }
    let states = "select count(*) from highwater.checkpoint where state = 'idle' and owner is null";
    assert_eq!(positions(&client, states).await[0], 2, "it signed off");
}

/// Our own table, with something happening when it is followed, or instead of a step.
struct Crashing {
    source: Arc<dyn Source>,
    kind: Fault,
}

enum Fault {
    /// The first follow: the server crashes between the floor and the follower's session.
    CrashOnce(String, AtomicBool),
    /// Told to, the next follow: the server has crashed, and the runner's first two reads of its
    /// checkpoint after it fail, and some more.
    HardToReadAgain(String, Arc<AtomicBool>),
    /// The first step is answered; the second fails for good.
    FailsAfterOneStep(String),
}

struct OneStep {
    follower: Box<dyn Follower>,
    url: String,
    stepped: bool,
}

impl Follower for OneStep {
    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(async move {
            let client = connect(&self.url).await;
            if self.stepped {
                // Until a runner has opened another session.
                let sql = "select count(*) from pg_stat_activity
                    where application_name like 'highwater%' and datname = current_database()";
                while positions(&client, sql).await[0] == 0 {}
                return Err(Error::new(ErrorKind::Precondition, "something has changed"));
            }
            let step = self.follower.step().await?;
            if !step.passed.is_empty() {
                self.stepped = true;
                // A runner has to open one that is younger than this step, and no later step
                // will ever prove that the mark holds there.
                client.batch_execute(TERMINATE).await.unwrap();
            }
            Ok(step)
        })
    }
}

impl Meddling for Crashing {
    fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn follow(&self, floor: Position) -> BoxFuture<'_, Result<Box<dyn Follower>>> {
        Box::pin(async move {
            match &self.kind {
                Fault::CrashOnce(url, done) => {
                    if !done.swap(true, Ordering::Relaxed) {
                        taken_back(url).await;
                    }
                    self.source.follow(floor).await
                }
                Fault::HardToReadAgain(url, wanted) => {
                    if wanted.swap(false, Ordering::Relaxed) {
                        hard_to_read_again(url).await;
                    }
                    self.source.follow(floor).await
                }
                Fault::FailsAfterOneStep(url) => {
                    let follower = OneStep {
                        follower: self.source.follow(floor).await?,
                        url: url.clone(),
                        stepped: false,
                    };
                    Ok(Box::new(follower) as Box<dyn Follower>)
                }
            }
        })
    }
}

/// What a crash does to a log whose last two commits were not flushed: every session ends, and
/// events, checkpoints and sequence are back where they were at position 1.
async fn taken_back(url: &str) {
    let client = connect(url).await;
    client.batch_execute(TERMINATE).await.unwrap();
    client
        .batch_execute(
            "delete from highwater.event where position > 1;
             delete from in_sql.ledger where position > 1;
             update in_sql.highwater_position set position = 1;
             update highwater.checkpoint
                set (position, event_position, event_id) =
                    (select position, position, id from highwater.event);
             select setval('highwater.event_position_seq', 1)",
        )
        .await
        .unwrap();
    // Then others come and use the numbers again: 2 is still open when 3 and 4 are there.
    let open = connect(url).await;
    let append = "insert into highwater.event (stream, version, type, data)
                  values (gen_random_uuid()::text, 1, 'T', '{}')";
    open.batch_execute("begin").await.unwrap();
    open.batch_execute(append).await.unwrap();
    client.batch_execute(append).await.unwrap();
    client.batch_execute(append).await.unwrap();
    tokio::spawn(async move {
        // A projection that trusts what was proven before the crash passes it; any other reads who may
        // fill the gap.
        let has_decided = "select exists (select from highwater.checkpoint where position >= 3)
                               or exists (select from pg_stat_activity
                                           where datname = current_database()
                                             and pid <> pg_backend_pid()
                                             and query like '%may still bring a lower position%')";
        let decided = async {
            while !one::<bool>(&client, has_decided).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let decided = tokio::time::timeout(LIMIT, decided).await;
        decided.expect("the projection decides");
        open.batch_execute("commit").await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_position_that_a_crash_undid_is_not_followed() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 3).await;
    let report = Engine::new(database.pooled(), settings())
        .source(database.source())
        .projection(ledger_in_sql("in_sql"))
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    assert!(matches!(report.outcomes[0].1, Outcome::CaughtUp));
    let url = database.url().to_owned();
    let crashing = Crashing {
        source: database.source(),
        kind: Fault::CrashOnce(url, AtomicBool::new(false)),
    };
    let engine = Engine::new(database.pooled(), settings())
        .source(Arc::new(Meddled(crashing)))
        .projection(ledger_in_sql("in_sql"));
    let running = Running::start(engine);
    eventually("the projection is at 4", LIMIT, async || {
        let sql = "select min(position) from highwater.checkpoint";
        positions(&client, sql).await[0] >= 4 || running.is_finished()
    })
    .await;
    running.stop().await;
    assert_exact(&client, "in_sql", &[1, 2, 3, 4]).await;
}

/// A crash that undid the events 4 and 5, which nobody wanted; others, which are wanted, have their
/// numbers now. And the table that a runner reads again is locked for a while.
async fn hard_to_read_again(url: &str) {
    let client = connect(url).await;
    let locking = connect(url).await;
    client
        .batch_execute(
            "do $$ begin
                 execute format('alter database %I set statement_timeout = 200', current_database());
             end $$",
        )
        .await
        .unwrap();
    let lock = "begin; lock table highwater.projection in access exclusive mode";
    locking.batch_execute(lock).await.unwrap();
    client.batch_execute(TERMINATE).await.unwrap();
    client
        .batch_execute(
            "delete from highwater.event where position > 3;
             update in_sql.highwater_position set position = 3;
             update highwater.checkpoint
                set (position, event_position, event_id) =
                    (select position, position, id from highwater.event
                      order by position desc limit 1);
             select setval('highwater.event_position_seq', 3);
             insert into highwater.event (stream, version, type, data)
             values ('new', 1, 'Wanted', '{}'), ('new', 2, 'Wanted', '{}')",
        )
        .await
        .unwrap();
    tokio::spawn(async move {
        let waiting = "select (extract(epoch from query_start) * 1000000)::bigint
            from pg_stat_activity where application_name like 'highwater%'
             and datname = current_database() and wait_event_type = 'Lock'";
        let mut seen = std::collections::HashSet::new();
        loop {
            let now = positions(&client, waiting).await;
            let is_over = now.is_empty();
            seen.extend(now);
            // Or it went on without.
            let stored = positions(&client, "select position from highwater.checkpoint").await[0];
            if seen.len() >= 4 && is_over || stored > 3 {
                break;
            }
        }
        locking.batch_execute("rollback").await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_passed_over_in_memory_is_void_after_a_crash_until_the_checkpoint_is_read_again() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 3).await;
    let wanted = Arc::new(AtomicBool::new(false));
    let crashing = Crashing {
        source: database.source(),
        kind: Fault::HardToReadAgain(database.url().to_owned(), wanted.clone()),
    };
    let engine = Engine::new(database.pooled(), settings())
        .source(Arc::new(Meddled(crashing)))
        .projection(ledger_of_type("in_sql", "Wanted"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    let is_at = |position| monitor.projections()[0].position == Position::new(position);
    eventually("it passes over the first", LIMIT, async || is_at(3)).await;
    client
        .batch_execute(
            "insert into highwater.event (stream, version, type, data)
             values ('old', 1, 'T', '{}'), ('old', 2, 'T', '{}')",
        )
        .await
        .unwrap();
    eventually("it passes over the others", LIMIT, async || is_at(5)).await;
    wanted.store(true, Ordering::Relaxed);
    client.batch_execute(TERMINATE).await.unwrap();
    eventually("the checkpoint is at 5", LIMIT, async || {
        let sql = "select position from highwater.checkpoint";
        !wanted.load(Ordering::Relaxed) && positions(&client, sql).await[0] == 5 && is_at(5)
    })
    .await;
    running.stop().await;
    let applied = positions(
        &client,
        "select position from in_sql.ledger order by applied",
    )
    .await;
    assert_eq!(applied, [4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_for_good_stops_its_projections_and_leaves_none_waiting() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    fill(&client, 500).await;
    let crashing = Crashing {
        source: database.source(),
        kind: Fault::FailsAfterOneStep(database.url().to_owned()),
    };
    let engine = Engine::new(database.pooled(), settings())
        .source(Arc::new(Meddled(crashing)))
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let ended = Running::start(engine).ended();
    let limit = crate::support::PATIENCE;
    let report = tokio::time::timeout(limit, ended).await.expect("it ends");
    for (name, outcome) in &report.outcomes {
        let error = outcome.error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Precondition, "{name}: {error}");
    }
}
