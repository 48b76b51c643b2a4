//! Exit codes and messages of what goes wrong before anything is done.

use highwater::testing::TestDatabase;
use nix::sys::signal::Signal;

use super::Shop;

/// Nobody listens there.
const NOBODY: &str = "postgresql://somebody:hunter2@127.0.0.1:1/shop";

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_ends_with_2_and_reaches_no_database() {
    let shop = Shop::new();
    shop.write_counts();
    let url = Some(NOBODY);
    for arguments in [
        &["bogus"][..],
        &["run", "--timeout", "soon"],
        &["events", "--after", "-1"],
        &["--log-format", "xml", "run"],
    ] {
        let ran = shop.run(url, arguments).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    }
    let ran = shop.run(url, &["run", "count"]).await;
    ran.expect_error(2, "unknown projection \"count\"; did you mean counts?");
    let ran = shop.run(url, &["--database-url", "", "run"]).await;
    ran.expect_error(2, "--database-url is empty");
    let ran = shop.run(Some("postgresql://h:x/d"), &["run"]).await;
    ran.expect_error(2, "DATABASE_URL: ");
    let ran = shop.run(url, &["--config", "no.toml", "run"]).await;
    ran.expect_error(2, "no.toml: ");
    assert!(ran.stderr.contains("a file that is there"), "{ran:?}");
    let ran = shop.run(url, &["--projections", "nowhere", "run"]).await;
    ran.expect_error(2, "nowhere: there is no such directory of projections");
    let ran = shop.run(url, &["--json", "run", "--bogus"]).await;
    assert_eq!((ran.code, &ran.error()["kind"]), (2, &"usage".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_reported_with_its_file_and_line() {
    let shop = Shop::new();
    shop.write("highwater.toml", "[engine]\nlease = \"5s\"\nleese = 1\n");
    shop.write("deep/er/x", "");
    let mut command = shop.command(Some(NOBODY), &["run"]);
    command.current_dir(shop.dir().join("deep/er"));
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("highwater.toml: line 3: unknown key \"leese\""),
        "{stderr}"
    );
    assert!(stderr.contains("did you mean \"lease\"?"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_of_the_projections_files_are_reported_at_once() {
    let shop = Shop::new();
    shop.write_counts();
    shop.write(
        "projections/one.sql",
        "-- highwater: up\ncreate table a (b int);\n",
    );
    shop.write("projections/Two.sql", "-- highwater: apply\nselect 1;\n");
    let ran = shop.run(Some(NOBODY), &["run"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("one.sql"), "{ran:?}");
    assert!(
        ran.stderr.contains("\"Two\" cannot name a projection"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.matches("error: ").count(), 2, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_given_up_after_ten_seconds() {
    let shop = Shop::new();
    shop.write_counts();
    let (run, append) = tokio::join!(
        shop.run(Some(NOBODY), &["run"]),
        shop.run(Some(NOBODY), &["append", "--json", "/dev/null"]),
    );
    run.expect_error(1, "127.0.0.1:1: cannot connect to shop: ");
    assert!(
        run.stderr
            .contains("waiting up to 10 s for shop on 127.0.0.1:1"),
        "{run:?}"
    );
    assert_eq!((append.code, append.stdout.as_str()), (1, ""), "{append:?}");
    assert_eq!(append.error()["kind"], "connection_lost");
    assert!(!format!("{run:?}{append:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_run_until_ctrl_c_exit_with_0_even_before_they_have_a_database() {
    let shop = Shop::new();
    shop.write_counts();
    for arguments in [
        &["run"][..],
        &["append"],
        &["events", "--follow"],
        &["status", "--watch"],
        &["rebuild", "counts"],
    ] {
        let started = shop.start(Some(NOBODY), arguments);
        started.says("waiting up to 10 s").await;
        started.signal(Signal::SIGINT);
        assert_eq!(started.end().await.expect(0).stdout, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_only_reads_says_that_the_schema_is_missing() {
    let shop = Shop::new();
    let database = TestDatabase::empty().await;
    let ran = shop.run(Some(database.url()), &["events"]).await;
    ran.expect_error(1, "has no schema highwater yet; run highwater init");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_version_and_completions_go_to_stdout() {
    let shop = Shop::new();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["completions", "zsh"],
    ] {
        let ran = shop.run(Some(NOBODY), arguments).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
        assert!(ran.stdout.contains("highwater"), "{ran:?}");
        assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_reported_with_what_to_grant() {
    let shop = Shop::new();
    shop.write_counts();
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let role = format!("hw_reader_{}", std::process::id());
    let create = format!(
        "drop role if exists {role}; create role {role} login; \
         grant usage on schema highwater to {role}; \
         grant select on all tables in schema highwater to {role}"
    );
    client.batch_execute(&create).await.unwrap();
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let url = Some(url.as_str());
    let ran = shop.run(url, &["events"]).await;
    ran.expect_error(
        1,
        "grant select on sequence highwater.event_position_seq to",
    );
    let ran = shop.run(url, &["status"]).await;
    assert!(
        ran.expect(0).stdout.contains("may not read the sequence"),
        "{ran:?}"
    );
    let grant = format!("grant select on all sequences in schema highwater to {role}");
    client.batch_execute(&grant).await.unwrap();
    shop.run(url, &["events"]).await.expect(0);
    let line = "{\"stream\":\"a\",\"type\":\"T\",\"data\":1}\n";
    let ran = shop.run_with(url, &["append"], line).await;
    ran.expect_error(1, "insert on event to append");
    let ran = shop.run(url, &["run"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.stderr.contains("insert, update and delete on"),
        "{ran:?}"
    );
    let drop = format!("drop owned by {role}; drop role {role}");
    client.batch_execute(&drop).await.unwrap();
}
