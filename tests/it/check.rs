//! What check finds, and that it leaves nothing behind.

use std::path::Path;
use std::sync::Arc;

use highwater::ErrorKind;
use highwater::internal::check::{Check, Finding, Level, has_errors, render, run};
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::Source;
use highwater::testing::TestDatabase;

use crate::support::{COUNTS, one, run_to_head, sql_projection, table_source};

/// Files that go with the directory.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

async fn check_in(
    database: &Database,
    sources: &[Arc<dyn Source>],
    directory: &Path,
) -> Vec<Finding> {
    run(Check {
        config: None,
        directory: Some(directory),
        compiled: &[],
        database: Some(database),
        sources,
    })
    .await
}

async fn check(database: &TestDatabase, directory: &Path) -> Vec<Finding> {
    let sources: [Arc<dyn Source>; 1] = [table_source(database)];
    check_in(&database.pooled(), &sources, directory).await
}

fn only(findings: &[Finding]) -> &Finding {
    let [finding] = findings else {
        panic!("{}", render(findings))
    };
    finding
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_projections_have_no_findings_and_leave_nothing_behind() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let directory = files(&[("counts.sql", COUNTS)]);
    let things = "select (select count(*) from pg_class) + (select count(*) from pg_namespace)";
    let before: i64 = one(&client, things).await;
    assert_eq!(render(&check(&database, directory.path()).await), "");
    let keyed = files(&[(
        "counts.sql",
        &format!("/* highwater\nkey = \"data->>'a'\"\n*/\n{COUNTS}"),
    )]);
    assert_eq!(render(&check(&database, keyed.path()).await), "");
    assert_eq!(one::<i64>(&client, things).await, before);
    assert_eq!(
        one::<i64>(&client, "select count(*) from highwater.projection").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_faulty_statement_is_found_with_its_line() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let apply = "/* highwater
key = \"strem\"
*/
-- highwater: up
create table t (n int);
-- highwater: apply
insert into t select 1 from batch;
insert into u
select 1 from batch;
insert into t select missing from batch;
";
    let up = "-- highwater: up\ncreate table a (n int);\ncreate table b (n intt);\n-- highwater: apply\nselect 1;\n";
    let aggregate = "/* highwater\nkey = \"max(stream)\"\n*/\n-- highwater: apply\nselect 1;\n";
    let directory = files(&[("a.sql", apply), ("b.sql", up), ("c.sql", aggregate)]);
    let findings = check(&database, directory.path()).await;
    let text = render(&findings);
    for part in [
        "a.sql: the key is not an expression over the columns of a batch: column \"strem\" does not exist",
        "the columns are position, stream, version,",
        "a.sql: line 8: apply failed on an empty batch: relation \"u\" does not exist",
        "a.sql: line 10: apply failed on an empty batch: column \"missing\" does not exist",
        "b.sql: line 3: up failed: type \"intt\" does not exist",
        "c.sql: the key is not an expression",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(findings.len(), 5, "{text}");
    assert!(has_errors(&findings));
    let left = "select count(*) from pg_namespace where nspname like 'highwater_check_%'";
    assert_eq!(one::<i64>(&client, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_without_a_database_and_all_faults_are_reported_at_once() {
    let directory = files(&[
        ("counts.sql", COUNTS),
        ("counts.test.toml", "[[test]]\nnme = 1\n"),
        (
            "gone.test.toml",
            "[[test]]\nname = \"x\"\n[test.expect]\nt = []\n",
        ),
        ("no_apply.sql", "-- highwater: up\n"),
        ("Bad.sql", COUNTS),
        ("highwater.toml", "[engine]\nlese = \"1s\"\n"),
    ]);
    let compiled = [sql_projection("counts", COUNTS)];
    let findings = run(Check {
        config: Some(&directory.path().join("highwater.toml")),
        directory: Some(directory.path()),
        compiled: &compiled,
        database: None,
        sources: &[],
    })
    .await;
    let text = render(&findings);
    for part in [
        "error: ",
        "highwater.toml: line 2: unknown key \"lese\"; did you mean \"lease\"?",
        "counts.sql: there is another projection named counts",
        "counts.test.toml: line 2: ",
        "no_apply.sql",
        "Bad.sql",
        "gone.test.toml: these tests are for projection gone.sql, which does not exist",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(findings.len(), 6, "{text}");
    let last = findings.last().unwrap();
    assert_eq!(last.level, Level::Warning, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_compared() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let projections = vec![
        sql_projection("counts", COUNTS),
        sql_projection("gone", COUNTS),
    ];
    run_to_head(&database, database.source(), projections)
        .await
        .unwrap();
    client.batch_execute("create schema taken").await.unwrap();
    let changed = COUNTS.replace("count(*)", "count(*) + 0");
    let directory = files(&[("counts.sql", &changed), ("taken.sql", COUNTS)]);
    let findings = check(&database, directory.path()).await;
    let text = render(&findings);
    assert_eq!(findings.len(), 3, "{text}");
    assert_eq!(findings[0].level, Level::Error);
    assert!(
        text.contains("taken.sql: schema \"taken\" exists and does not belong to highwater"),
        "{text}"
    );
    let changed = findings
        .iter()
        .find(|f| f.error.kind() == ErrorKind::Changed);
    assert_eq!(changed.unwrap().level, Level::Warning);
    assert!(
        text.contains("counts.sql: projection \"counts\" was changed"),
        "{text}"
    );
    assert!(
        text.contains("warning: projection \"gone\" has a read model, but no valid file here"),
        "{text}"
    );
    // A check of a running projection touches neither its read model nor its checkpoint.
    assert_eq!(
        one::<i64>(&client, "select count(*) from highwater.checkpoint").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_checked_and_unknown_ones_are_reported() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    client
        .batch_execute("alter table highwater.event alter position set cache 10")
        .await
        .unwrap();
    let elsewhere = format!("/* highwater\nsource = \"defalt\"\n*/\n{COUNTS}");
    let directory = files(&[("counts.sql", &elsewhere)]);
    let findings = check(&database, directory.path()).await;
    let text = render(&findings);
    assert_eq!(findings.len(), 2, "{text}");
    assert!(text.contains("counts.sql: reads the source \"defalt\", which is not configured; did you mean default?"), "{text}");
    assert!(text.contains("source default: the sequence"), "{text}");
    assert!(
        findings
            .iter()
            .any(|f| f.error.kind() == ErrorKind::Precondition)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_an_error_and_one_out_of_reach_a_warning() {
    let directory = files(&[("counts.sql", COUNTS)]);
    let database = TestDatabase::empty().await;
    let findings = check(&database, directory.path()).await;
    assert_eq!(only(&findings).error.hint(), Some("run highwater init"));
    let connector = Connector::parse("postgres://nobody@127.0.0.1:1/none?sslmode=disable").unwrap();
    let unreachable = Database::new(connector, 1).unwrap();
    let findings = check_in(&unreachable, &[], directory.path()).await;
    let finding = only(&findings);
    assert_eq!(finding.level, Level::Warning);
    assert!(
        finding
            .error
            .message()
            .starts_with("only files were checked"),
        "{finding}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_waits_for_no_lock_for_long() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    for sql in [
        "create table public.parent (id int primary key)",
        "begin; lock table public.parent",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let text = COUNTS.replace("n bigint not null", "n int references public.parent");
    let directory = files(&[("counts.sql", &text)]);
    let findings = check(&database, directory.path()).await;
    let finding = only(&findings);
    assert_eq!(finding.level, Level::Warning, "{finding}");
    assert_eq!(finding.error.sqlstate(), Some("55P03"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tests_of_a_projection_that_is_compiled_in_are_somebodys() {
    let directory = files(&[("counts.test.toml", "")]);
    let findings = highwater::internal::check::run(Check {
        config: None,
        directory: Some(directory.path()),
        compiled: &[sql_projection("counts", COUNTS)],
        database: None,
        sources: &[],
    })
    .await;
    let text = render(&findings);
    assert!(!text.contains("these tests never run"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_proposed_for_rare_types_of_a_large_log_until_it_is_there() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let log = "insert into highwater.event (stream, version, type, data)
               select 's' || n % 1000, n / 1000 + 1, case when n % 1000 = 0 then 'Rare' else 'Often' end, '{}'
                 from generate_series(0, 119999) n;
               analyze highwater.event";
    client.batch_execute(log).await.unwrap();
    let of = |name: &str| {
        files(&[(
            "counts.sql",
            &format!("/* highwater\nevents = [\"{name}\"]\n*/\n{COUNTS}"),
        )])
    };
    assert_eq!(render(&check(&database, of("Often").path()).await), "");
    let rare = of("Rare");
    let findings = check(&database, rare.path()).await;
    let finding = only(&findings);
    assert_eq!(finding.level, Level::Warning);
    let statement = "create index concurrently on highwater.event (type, position)";
    assert!(
        finding.error.to_string().contains(statement),
        "{}",
        finding.error
    );
    client.batch_execute(statement).await.unwrap();
    assert_eq!(render(&check(&database, rare.path()).await), "");
}
