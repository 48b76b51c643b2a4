//! Each command that changes something leaves one row that says who did what; one that fails or
//! changes nothing leaves none.

use std::sync::Arc;
use std::time::Duration;

use highwater::internal::dead_letters::{self, Selection};
use highwater::internal::engine::Settings;
use highwater::internal::engine::operate::{accept, drop_projection};
use highwater::internal::engine::rebuild::Rebuild;
use highwater::internal::pause;
use highwater::internal::pg::database::Database;
use highwater::internal::pg::migrate::migrate;
use highwater::internal::projection::DynProjection;
use highwater::testing::TestDatabase;
use highwater::{ErrorKind, ProjectionName};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::support::{append_rows, one, run_to_head, sql_projection};

/// Command, projection and detail.
type Recorded = (String, String, Value);

const NOTHING: [Recorded; 0] = [];

const LIMIT: Duration = crate::support::PATIENCE;

fn name() -> ProjectionName {
    "counts".parse().unwrap()
}

/// Divides by zero at the first event of a stream, which is poison. `what` makes it another definition.
fn counts(what: &str) -> Arc<dyn DynProjection> {
    counts_in(what, 1)
}

fn counts_in(what: &str, partitions: u16) -> Arc<dyn DynProjection> {
    let text = format!(
        "/* highwater
on_error = \"park\"
partitions = {partitions}
*/
-- highwater: up
create table counts (stream text, n bigint);
-- highwater: apply
insert into counts select stream, 1 / (version - 1) from batch {what};
"
    );
    sql_projection("counts", &text)
}

/// A database with a read model, whose log holds one poison event.
async fn built() -> (TestDatabase, Client, Database) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_rows(&client, "s", 1..=4).await;
    run_to_head(&database, database.source(), vec![counts("")])
        .await
        .unwrap();
    forget(&client).await;
    let target = database.pooled();
    (database, client, target)
}

async fn forget(client: &Client) {
    let sql = "delete from highwater.action";
    client.execute(sql, &[]).await.unwrap();
}

/// What was recorded since the last call.
async fn recorded(client: &Client) -> Vec<Recorded> {
    let strangers = "select count(*) from highwater.action where role <> session_user";
    assert_eq!(one::<i64>(client, strangers).await, 0);
    let sql = "select command, projection, detail from highwater.action order by id";
    let rows = client.query(sql, &[]).await.unwrap();
    forget(client).await;
    let row = |row: &tokio_postgres::Row| (row.get(0), row.get(1), row.get(2));
    rows.iter().map(row).collect()
}

/// One row about the projection.
fn only(command: &str, detail: Value) -> Vec<Recorded> {
    vec![(command.to_owned(), "counts".to_owned(), detail)]
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_are_recorded_once() {
    let (_database, client, target) = built().await;
    for _ in 0..2 {
        pause::pause(&target, &name(), LIMIT).await.unwrap();
    }
    assert_eq!(recorded(&client).await, only("pause", json!({})));
    for _ in 0..2 {
        pause::resume(&target, &name()).await.unwrap();
    }
    assert_eq!(recorded(&client).await, only("resume", json!({})));
    let unknown = "unknown".parse().unwrap();
    let error = pause::pause(&target, &unknown, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(recorded(&client).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_is_recorded_where_the_definition_changed() {
    let (database, client, target) = built().await;
    let changed = counts("where true");
    for _ in 0..2 {
        accept(&target, &*changed, &*database.source())
            .await
            .unwrap();
    }
    let detail = json!({
        "hash": changed.definition().hash,
        "definition_changed": true,
        "log_differed": false,
        "position_differed": false,
    });
    assert_eq!(recorded(&client).await, only("accept", detail));
    let unknown = sql_projection("unknown", "-- highwater: apply\nselect 1");
    let refused = accept(&target, &*unknown, &*database.source()).await;
    assert!(refused.is_err());
    assert_eq!(recorded(&client).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_a_discard_are_recorded_with_what_they_were_about() {
    let (_database, client, target) = built().await;
    let of_s = Selection::Key(Some("s".to_owned()));
    dead_letters::retry(&target, &name(), &of_s).await.unwrap();
    let detail = json!({ "key": "s", "dead_letters": 4 });
    assert_eq!(recorded(&client).await, only("dead-letters retry", detail));
    let all = Selection::All;
    dead_letters::discard(&target, &name(), &all, "of no use")
        .await
        .unwrap();
    let detail = json!({ "all": null, "dead_letters": 4, "reason": "of no use" });
    assert_eq!(
        recorded(&client).await,
        only("dead-letters discard", detail)
    );
    dead_letters::retry(&target, &name(), &all).await.unwrap();
    dead_letters::discard(&target, &name(), &all, "again")
        .await
        .unwrap();
    for found in [
        dead_letters::retry(&target, &name(), &of_s).await.map(drop),
        dead_letters::discard(&target, &name(), &of_s, "again")
            .await
            .map(drop),
    ] {
        assert_eq!(found.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(
        recorded(&client).await,
        NOTHING,
        "nothing was left to change"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_recorded_when_it_begins_and_when_it_swaps() {
    let (database, client, target) = built().await;
    let rebuild = || {
        let (target, source) = (target.clone(), database.source());
        Rebuild::new(target, source, counts(""), Settings::default())
    };
    rebuild().run(CancellationToken::new()).await.unwrap();
    let step = |step| only("rebuild", json!({ "step": step, "generation": 2 }));
    assert_eq!(
        recorded(&client).await,
        [step("begin"), step("swap")].concat()
    );
    let view = "create view public.outside as select * from counts.counts";
    client.batch_execute(view).await.unwrap();
    assert!(rebuild().run(CancellationToken::new()).await.is_err());
    assert_eq!(recorded(&client).await, NOTHING, "it was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_given_up_is_recorded() {
    let (database, client, target) = built().await;
    let stopped = CancellationToken::new();
    stopped.cancel();
    let rebuild = || {
        let (target, source) = (target.clone(), database.source());
        Rebuild::new(target, source, counts(""), Settings::default())
    };
    rebuild().run(stopped).await.unwrap();
    forget(&client).await;
    let oldest = "delete from highwater.event where position <= 2";
    client.batch_execute(oldest).await.unwrap();
    let error = rebuild().run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stranded);
    let detail = json!({ "step": "give up", "generation": 2 });
    assert_eq!(recorded(&client).await, only("rebuild", detail));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_is_recorded_and_outlives_the_projection() {
    let (_database, client, target) = built().await;
    drop_projection(&target, &name()).await.unwrap();
    assert_eq!(recorded(&client).await, only("drop", json!({})));
    assert!(drop_projection(&target, &name()).await.is_err());
    assert_eq!(recorded(&client).await, NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_recorded_where_it_creates_the_read_model_or_sets_its_partitions() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let run = async |projection| {
        run_to_head(&database, database.source(), vec![projection])
            .await
            .unwrap()
    };
    let hash = counts("").definition().hash.clone();
    for _ in 0..2 {
        run(counts("")).await;
    }
    let created = json!({ "step": "create", "hash": hash, "partitions": 1 });
    assert_eq!(recorded(&client).await, only("run", created));
    for _ in 0..2 {
        run(counts_in("", 3)).await;
    }
    let set = json!({ "step": "set partitions", "partitions": 3 });
    assert_eq!(recorded(&client).await, only("run", set));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_migration_is_recorded_with_the_role_that_applied_it() {
    let database = TestDatabase::empty().await;
    let mut client = database.client().await;
    let applied = migrate(&mut client).await.unwrap();
    let ours = "select count(*) from highwater.migration where applied_by = session_user";
    let count = i64::try_from(applied.len()).unwrap();
    assert_eq!(one::<i64>(&client, ours).await, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_it_is_the_role_that_logged_in_with_its_application_and_machine() {
    let (database, client, _) = built().await;
    let role = format!("operator_{}", uuid::Uuid::new_v4().simple());
    let create = format!("create role {role} superuser login");
    client.batch_execute(&create).await.unwrap();
    let url = database.url().parse::<tokio_postgres::Config>().unwrap();
    let host = match &url.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    };
    let theirs = format!(
        "host={host} port={} user={role} dbname={}",
        url.get_ports().first().unwrap_or(&5432),
        url.get_dbname().unwrap()
    );
    let connector = highwater::internal::pg::connect::Connector::parse(&theirs).unwrap();
    let connector = connector.with_application_name("the console");
    let target = Database::new(connector, 2).unwrap();
    pause::pause(&target, &name(), LIMIT).await.unwrap();
    let who = "select role || ', ' || application from highwater.action";
    assert_eq!(
        one::<String>(&client, who).await,
        format!("{role}, the console")
    );
    let host = "select host from highwater.action";
    let own = nix::unistd::gethostname().unwrap();
    assert_eq!(one::<String>(&client, host).await, own.to_string_lossy());
}
