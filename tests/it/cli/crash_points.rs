//! The process ends at each point between two durable acts; run again, it comes to the same.

mod parking;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use highwater::internal::config::Engine as Settings;
use highwater::internal::engine::Engine;
use highwater::internal::failpoint::POINTS;
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::testing::TestDatabase;
use highwater::{Outcome, Until};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{LIMIT, Shop};
use crate::exactness::ledger_in_rust;
use crate::live_view::sums;
use crate::support::{eventually, one};

/// What the projection was given, in the order in which it was given it.
const LEDGER: &str = "
-- highwater: up
create table ledger (
    applied bigint generated always as identity, stream text not null, version bigint not null);
-- highwater: apply
insert into ledger (stream, version) select stream, version from batch order by position;
";

/// Of the events only the wanted ones, so that ranges are passed over.
const SELDOM: &str = "
/* highwater
events = [\"Seldom\"]
*/
-- highwater: up
create table seldom (stream text not null, version bigint not null);
-- highwater: apply
insert into seldom select stream, version from batch;
";

/// Two batches of `append`, and a few events of another type at the end.
const EVENTS: u32 = 2_100;

/// The variable that makes this test binary an engine with a projection in Rust.
const CHILD_URL: &str = "HIGHWATER_TEST_RUST_URL";
/// How many events it may apply in one transaction.
const CHILD_EVENTS: &str = "HIGHWATER_TEST_RUST_EVENTS";
/// Whether it is a keyed view.
const CHILD_VIEW: &str = "HIGHWATER_TEST_RUST_VIEW";

/// A command that dies at the so-manyth pass of a point, and what is done around it.
struct Case {
    point: &'static str,
    pass: u32,
    before: &'static [Arguments],
    dies: Arguments,
    /// While the command runs that is to die.
    meanwhile: &'static [Arguments],
    /// Afterwards, and how it may end.
    again: (Arguments, &'static [i32]),
}

type Arguments = &'static [&'static str];

const APPEND: &[&str] = &["append", "events.ndjson"];
/// But for the last ones, which only one projection wants.
const SOME: &[&str] = &["append", "some.ndjson"];
const RUN: &[&str] = &["run", "--until-caught-up"];
const DONE: &[i32] = &[0];

/// Not a command of the program: an engine with a projection in Rust.
const IN_RUST: &[&str] = &["(an engine with a projection in Rust)", "200"];
/// The same with a keyed view.
const IN_A_VIEW: &[&str] = &["(an engine with a projection in Rust)", "200", "view"];
/// The same as the first with several batches in one transaction.
const IN_RUST_AT_ONCE: &[&str] = &["(an engine with a projection in Rust)", "100000"];

const fn case(
    point: &'static str,
    pass: u32,
    before: &'static [Arguments],
    dies: Arguments,
) -> Case {
    Case {
        point,
        pass,
        before,
        dies,
        meanwhile: &[],
        again: (dies, DONE),
    }
}

impl Case {
    const fn then(self, again: Arguments, codes: &'static [i32]) -> Case {
        let again = (again, codes);
        Case { again, ..self }
    }

    const fn meanwhile(self, meanwhile: &'static [Arguments]) -> Case {
        Case { meanwhile, ..self }
    }
}

const CASES: &[Case] = &[
    case("migrate.applied", 1, &[], &["init"]),
    case("migrate.applied", 2, &[], &["init"]),
    case("migrate.committed", 1, &[], &["init"]),
    case("append.read", 1, &[], APPEND),
    case("append.read", 2, &[], APPEND),
    case("append.committed", 1, &[], APPEND),
    case("append.committed", 2, &[], APPEND),
    case("wake.begun", 1, &[], APPEND),
    case("create.filled", 1, &[APPEND], RUN),
    case("create.committed", 1, &[APPEND], RUN),
    case("claim.done", 1, &[APPEND], RUN),
    case("claim.done", 2, &[APPEND], RUN),
    case("batch.sent", 1, &[APPEND], RUN),
    case("batch.sent", 5, &[APPEND], RUN),
    case("batch.committed", 1, &[APPEND], RUN),
    case("batch.committed", 5, &[APPEND], RUN),
    case("batch.fenced", 3, &[APPEND], IN_RUST),
    case("batch.applied", 3, &[APPEND], IN_RUST),
    case("batch.committed", 3, &[APPEND], IN_RUST),
    case("batch.fenced", 3, &[APPEND], IN_A_VIEW),
    case("batch.applied", 3, &[APPEND], IN_A_VIEW),
    case("batch.committed", 3, &[APPEND], IN_A_VIEW),
    case("batch.fenced", 1, &[APPEND], IN_RUST_AT_ONCE),
    case("batch.applied", 1, &[APPEND], IN_RUST_AT_ONCE),
    case("batch.committed", 1, &[APPEND], IN_RUST_AT_ONCE),
    case("flush.begun", 1, &[SOME, RUN], &["run"])
        .meanwhile(&[APPEND])
        .then(RUN, DONE),
    case("flush.committed", 1, &[SOME, RUN], &["run"])
        .meanwhile(&[APPEND])
        .then(RUN, DONE),
    case("release.begun", 1, &[APPEND], RUN),
    case("repartition.begun", 1, &[SOME, RUN, WIDEN, APPEND], RUN),
    case("repartition.committed", 1, &[SOME, RUN, WIDEN, APPEND], RUN),
    case("leave.begun", 1, &[APPEND], RUN),
    case("rebuild.begun", 1, &[APPEND, RUN], &["rebuild", "ledger"]),
    case(
        "rebuild.committed",
        1,
        &[APPEND, RUN],
        &["rebuild", "ledger"],
    ),
    case("batch.sent", 3, &[APPEND, RUN], &["rebuild", "ledger"]),
    case("batch.committed", 3, &[APPEND, RUN], &["rebuild", "ledger"]),
    case("rebuild.filled", 1, &[APPEND, RUN], &["rebuild", "ledger"]),
    case("swap.renamed", 1, &[APPEND, RUN], &["rebuild", "ledger"]),
    case("swap.committed", 1, &[APPEND, RUN], &["rebuild", "ledger"]),
    case(
        "accept.changed",
        1,
        &[APPEND, RUN, CHANGE],
        &["accept", "ledger"],
    ),
    case(
        "accept.committed",
        1,
        &[APPEND, RUN, CHANGE],
        &["accept", "ledger"],
    ),
    case("drop.deleted", 1, &[APPEND, RUN], &["drop", "ledger"]),
    // It is not there any more.
    case("drop.committed", 1, &[APPEND, RUN], &["drop", "ledger"])
        .then(&["drop", "ledger"], &[1, 2]),
];

/// Not commands of the program: the file of the projection is changed; it gets partitions.
const CHANGE: &[&str] = &["(the file is changed)"];
const WIDEN: &[&str] = &["(the file asks for three partitions)"];

#[test]
fn every_failpoint_is_in_the_code_once_and_has_a_crash_test() {
    let listed: BTreeSet<&str> = POINTS.iter().copied().collect();
    assert_eq!(listed.len(), POINTS.len());
    let cases = CASES.iter().chain(parking::CASES);
    let tested: BTreeSet<&str> = cases.map(|case| case.point).collect();
    assert_eq!(tested, listed);
    let mut found = Vec::new();
    points_in(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    found.sort();
    let listed: Vec<String> = listed.into_iter().map(str::to_owned).collect();
    assert_eq!(found, listed);
}

#[test]
fn only_the_tests_of_highwater_itself_turn_the_points_on() {
    let manifest: toml::Table = include_str!("../../../Cargo.toml").parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    assert!(features.contains_key("faults"));
    for (feature, brings) in features {
        let brings = brings.as_array().unwrap();
        assert!(!brings.contains(&"faults".into()), "{feature}");
    }
}

fn points_in(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            points_in(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let points = text.split("failpoint!(\"").skip(1);
        found.extend(points.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
}

/// A project on a database of its own.
struct Project {
    shop: Shop,
    database: TestDatabase,
}

impl Project {
    async fn new() -> Project {
        let shop = Shop::new();
        shop.write("projections/ledger.sql", LEDGER);
        shop.write("projections/seldom.sql", SELDOM);
        shop.write(
            "highwater.toml",
            "[engine]\nbatch_events_max = 200\nlease = \"1s\"\n",
        );
        let line = |n: u32| {
            let id = uuid::Uuid::from_u128(u128::from(n));
            let kind = if n.is_multiple_of(700) {
                "Seldom"
            } else {
                "Often"
            };
            let (stream, version) = (n % 50, n / 50 + 1);
            format!(
                "{{\"id\":\"{id}\",\"stream\":\"s-{stream}\",\"version\":{version},\
                 \"type\":\"{kind}\",\"data\":{{\"n\":{n}}}}}\n"
            )
        };
        let events: String = (50..50 + EVENTS).map(|n| line(n - 50)).collect();
        shop.write("events.ndjson", &events);
        let some: Vec<&str> = events.split_inclusive('\n').take(2_000).collect();
        shop.write("some.ndjson", &some.concat());
        let database = TestDatabase::empty().await;
        Project { shop, database }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        if arguments[0] != IN_RUST[0] {
            return self.shop.command(Some(self.database.url()), arguments);
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--ignored",
                "--exact",
                "cli::crash_points::an_engine_with_a_projection_in_rust",
            ])
            .env(CHILD_URL, self.database.url())
            .env(CHILD_EVENTS, arguments[1])
            .env(CHILD_VIEW, arguments.get(2).copied().unwrap_or_default())
            .kill_on_drop(true);
        command
    }

    /// Runs it as a user does.
    async fn run(&self, arguments: &[&str], codes: &[i32]) {
        if arguments == CHANGE {
            let changed = LEDGER.replace("version from", "version as v from");
            assert_ne!(changed, LEDGER);
            return self.shop.write("projections/ledger.sql", &changed);
        }
        if arguments == WIDEN {
            let wide = format!(
                "/* highwater
partitions = 3
*/{LEDGER}"
            );
            return self.shop.write("projections/ledger.sql", &wide);
        }
        if self.pretended(arguments).await {
            return;
        }
        let output = self.command(arguments).output().await.unwrap();
        let code = output.status.code().unwrap_or(-1);
        assert!(codes.contains(&code), "{arguments:?}: {output:?}");
    }

    /// Runs it until it dies at the point.
    async fn die(&self, case: &Case) {
        let mut command = self.command(case.dies);
        command.env(
            "HIGHWATER_FAILPOINT",
            format!("{}@{}=abort", case.point, case.pass),
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let dying = command.spawn().unwrap();
        if !case.meanwhile.is_empty() {
            self.is_live().await;
        }
        for arguments in case.meanwhile {
            self.run(arguments, DONE).await;
        }
        let output = tokio::time::timeout(LIMIT, dying.wait_with_output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{} is not passed", case.point))
            .unwrap();
        let signal = output.status.signal();
        assert_eq!(
            signal,
            Some(Signal::SIGABRT as i32),
            "{}: {output:?}",
            case.point
        );
    }

    async fn is_live(&self) {
        let client = self.database.client().await;
        let live = "select count(*) from highwater.checkpoint where state = 'live'";
        eventually("both are live", LIMIT, async || {
            one::<i64>(&client, live).await == 2
        })
        .await;
    }

    /// Everything that a user would call the result.
    async fn results(&self) -> Vec<String> {
        let client = self.database.client().await;
        let mut results = Vec::new();
        for sql in [
            "select coalesce(string_agg(concat_ws(' ', stream, version, type, data, id), '|' order by id), '')
               from highwater.event",
            "select string_agg(stream || ' ' || version, '|' order by stream, applied) from ledger.ledger",
            "select string_agg(stream || ' ' || version, '|' order by stream, version) from seldom.seldom",
            "select string_agg(projection || ' ' || hash, '|' order by projection) from highwater.generation
              where projection not in ('in_rust', 'sums')",
        ] {
            results.push(one::<Option<String>>(&client, sql).await.unwrap_or_default());
        }
        results
    }

    /// Neither anything that blocks nor a number in a ledger that a recount does not find.
    async fn assert_nothing_is_left(&self, point: &str) {
        self.run(&["audit"], DONE).await;
        let client = self.database.client().await;
        for (what, sql) in [
            ("a schema of a rebuild", "select count(*) from pg_namespace where nspname like '%\\_\\_%'"),
            ("a rebuild", "select count(*) from highwater.projection where next_generation is not null"),
            ("a checkpoint of a generation that is gone", "select count(*) from highwater.checkpoint c
                 left join highwater.projection p on p.name = c.projection and p.generation = c.generation
                where p.name is null"),
            ("a dead letter", "select count(*) from highwater.dead_letter"),
            ("a prepared transaction", "select count(*) from pg_prepared_xacts where database = current_database()"),
            ("a lock", "select count(*) from pg_locks l join pg_stat_activity a using (pid)
                where a.datname = current_database() and a.pid <> pg_backend_pid()
                  and a.application_name like 'highwater%'"),
        ] {
            let what = format!("{point}: {what} is left");
            // Sessions of a process that has ended end a little later.
            eventually(&what, LIMIT, async || one::<i64>(&client, sql).await == 0).await;
        }
    }
}

/// What the projection in Rust has made, which is that of `arguments`.
async fn made_in_rust(client: &Client, arguments: Arguments) -> String {
    let sql = match arguments == IN_A_VIEW {
        true => {
            "select string_agg(concat_ws(' ', stream, events, sum), '|' order by stream) from sums.sums"
        }
        false => {
            "select string_agg(stream || ' ' || version, '|' order by stream, applied) from in_rust.ledger"
        }
    };
    one(client, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_point_leaves_what_an_undisturbed_one_leaves() {
    let calm = Project::new().await;
    calm.run(APPEND, DONE).await;
    calm.run(RUN, DONE).await;
    calm.run(IN_RUST, DONE).await;
    calm.run(IN_A_VIEW, DONE).await;
    let results = calm.results().await;
    let client = calm.database.client().await;
    let in_rust = made_in_rust(&client, IN_RUST).await;
    let in_a_view = made_in_rust(&client, IN_A_VIEW).await;
    assert!(results.iter().all(|result| !result.is_empty()));
    let expected = Expected {
        results,
        in_rust,
        in_a_view,
    };
    stream::iter(CASES)
        .for_each_concurrent(3, |case| dies_and_goes_on(case, &expected))
        .await;
}

/// What an undisturbed run leaves.
struct Expected {
    results: Vec<String>,
    in_rust: String,
    in_a_view: String,
}

async fn dies_and_goes_on(case: &Case, expected: &Expected) {
    let project = Project::new().await;
    for arguments in case.before {
        project.run(arguments, DONE).await;
    }
    project.die(case).await;
    let (again, codes) = case.again;
    project.run(again, codes).await;
    let place = format!("{}@{} of {:?}", case.point, case.pass, case.dies);
    project.run(APPEND, DONE).await;
    project.run(RUN, DONE).await;
    let mut found = project.results().await;
    if case.before.contains(&CHANGE) {
        // The hash is that of the changed file.
        found[3].clone_from(&expected.results[3]);
    }
    for (found, expected) in found.iter().zip(&expected.results) {
        assert!(found == expected, "{place}: {found}\nnot {expected}");
    }
    if case.dies[0] == IN_RUST[0] {
        let found = made_in_rust(&project.database.client().await, case.dies).await;
        let expected = match case.dies == IN_A_VIEW {
            true => &expected.in_a_view,
            false => &expected.in_rust,
        };
        assert_eq!(found, *expected, "{place}");
    }
    project.assert_nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that another test starts and that dies"]
async fn an_engine_with_a_projection_in_rust() {
    let url = std::env::var(CHILD_URL).unwrap();
    let database = Database::new(Connector::parse(&url).unwrap(), 8).unwrap();
    let mut settings = Settings::default();
    let events = std::env::var(CHILD_EVENTS).unwrap();
    settings.batch_events_max = events.parse().unwrap();
    let table = EventTable::own();
    let source = TableSource::new("default", database.clone(), None, table);
    let engine = Engine::new(database, settings)
        .source(Arc::new(source))
        .projection(match std::env::var(CHILD_VIEW).as_deref() {
            Ok("view") => sums(),
            _ => ledger_in_rust("in_rust"),
        });
    let report = engine
        .run(Until::CaughtUp, CancellationToken::new())
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
}
