//! What `batch` shows in a partition, in whatever way a projection reads it.

use std::sync::Arc;

use highwater::internal::audit::audit;
use highwater::internal::engine::operate::accept;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{DynProjection, Projection, RustProjection};
use highwater::internal::source::{Batch, Source};
use highwater::testing::{MemorySource, TestDatabase};
use highwater::{BoxError, ErrorKind, NewEvent, Outcome, Result};
use serde_json::json;
use tokio_postgres::Client;

use crate::support::{append_rows, one, run_to_head, sql_projection};

const KEY: &str = "data->>'customer'";

/// 400 events of two types and 30 customers, of which every seventh has none.
async fn append_orders(client: &Client) {
    let sql = "insert into highwater.event (stream, version, type, data)
        select 'order-' || n, 1, case n % 4 when 0 then 'Paid' else 'Placed' end,
               case n % 7 when 0 then '{}' else jsonb_build_object('customer', 'c' || n % 30) end
        from generate_series(1, 400) n";
    client.batch_execute(sql).await.unwrap();
}

fn partitioned(partitions: i32, up: &str, apply: &str) -> Arc<dyn DynProjection> {
    with_key(KEY, partitions, up, apply)
}

fn with_key(key: &str, partitions: i32, up: &str, apply: &str) -> Arc<dyn DynProjection> {
    let text = format!(
        "/* highwater
events = [\"Placed\"]
key = \"{key}\"
partitions = {partitions}
*/
-- highwater: up
create table seen (way text, position bigint, partition text, primary key (way, position));
{up}
-- highwater: apply
{apply}
"
    );
    sql_projection("orders", &text)
}

/// Every way in which a statement can read `batch`; each writes what it saw under its number.
const WAYS: [&str; 9] = [
    "insert into seen select '0', position, mine() from batch;",
    "with b as (select position from batch) insert into seen select '1', position, mine() from b;",
    "with recursive n (i) as (select 0 union all select i + 1 from n where i < 1)
     insert into seen select '2', position, mine() from batch where exists (select from n);",
    "insert into seen with b as (table \"batch\") select '3', b.position, mine() from b
     join batch on batch.position = b.position;",
    "with batch as (select position from orders.batch) insert into seen select '4', position, mine() from batch;",
    "select by_function('5');",
    "do $$ begin insert into seen select '6', position, mine() from batch; end $$;",
    "create temp table taken on commit drop as select position from batch;
     insert into seen select '7', position, mine() from taken;",
    "values ((select count(*) from batch));
     with gone as (delete from seen where way = 'none' returning position)
     insert into seen select '8', b.position, mine() from BATCH as b left join gone using (position);",
];

const UP: &str = "create function mine() returns text language sql stable
    return (highwater.current_batch()).partition::text;
create function by_function(way text) returns void language plpgsql as $$
begin insert into seen select way, position, mine() from batch; end $$;";

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_read_batch_shows_each_event_once_in_the_partition_of_its_key() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_orders(&client).await;
    let orders = partitioned(4, UP, &WAYS.join("\n"));
    let report = run_to_head(&database, database.source(), vec![orders.clone()])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    for (way, text) in WAYS.iter().enumerate() {
        let wrong = format!(
            "select count(*) from
               (select * from orders.seen where way = '{way}') s
               full join (select * from highwater.event where type = 'Placed') e using (position)
             where s.partition is distinct from highwater.partition_of({KEY}, 4)::text"
        );
        assert_eq!(one::<i64>(&client, &wrong).await, 0, "{text}");
    }
    let parts = "select count(distinct partition) from orders.seen";
    assert_eq!(one::<i64>(&client, parts).await, 4);
    agrees(&database).await;
}

async fn agrees(database: &TestDatabase) {
    let sources: [Arc<dyn Source>; 1] = [database.source()];
    let found = audit(&database.pooled(), &sources, None).await.unwrap();
    assert!(found.agrees(), "{}", found.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_the_file_is_named_though_batch_was_defined_before_it() {
    let database = TestDatabase::new().await;
    append_orders(&database.client().await).await;
    let apply = "insert into seen select 'ä', position, null from batch;\n\
                 insert into seen\n\
                 select 'b', position / nothing, null\n\
                 from batch;";
    let orders = partitioned(2, "", apply);
    let report = run_to_head(&database, database.source(), vec![orders])
        .await
        .unwrap();
    let Outcome::Stopped(error) = &report.outcomes[0].1 else {
        panic!("{report:?}")
    };
    assert_eq!(
        error.location(),
        Some("projections/orders.sql: line 12"),
        "{error}"
    );
    assert!(error.to_string().contains("nothing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_to_the_log_through_batch() {
    for statement in [
        "update batch set type = 'Changed'",
        "delete from batch",
        "with x as (delete from batch returning 1) select 1 from x",
        "with x as (select 1) update batch set type = 'Changed' from x",
        "insert into batch (stream, version, type, data) values ('x', 1, 'T', '{}')",
    ] {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        append_orders(&client).await;
        let before: String = one(
            &client,
            "select md5(string_agg(e::text, ',' order by position)) from highwater.event e",
        )
        .await;
        let orders = partitioned(1, "", &format!("{statement};"));
        let report = run_to_head(&database, database.source(), vec![orders])
            .await
            .unwrap();
        let Outcome::Stopped(error) = &report.outcomes[0].1 else {
            panic!("{statement}: {report:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Config, "{statement}: {error}");
        let after: String = one(
            &client,
            "select md5(string_agg(e::text, ',' order by position)) from highwater.event e",
        )
        .await;
        assert_eq!(after, before, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_accepted_only_where_all_partitions_stand_at_one_position() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_orders(&client).await;
    let apply = "insert into seen select 'w', position, null from batch;";
    let by_customer = partitioned(3, "", apply);
    run_to_head(&database, database.source(), vec![by_customer])
        .await
        .unwrap();
    let by_stream = with_key("stream", 3, "", apply);
    let back = "update highwater.checkpoint set position = position - 1 where partition = 2";
    client.batch_execute(back).await.unwrap();
    let refused = accept(&database.pooled(), &*by_stream, &*database.source()).await;
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("different positions"), "{error}");
    // What keeps the key is accepted wherever they stand.
    let same_key = partitioned(3, "", &apply.replace("'w'", "'v'"));
    assert!(
        accept(&database.pooled(), &*same_key, &*database.source())
            .await
            .unwrap()
    );
    let level = "update highwater.checkpoint set position = position + 1 where partition = 2";
    client.batch_execute(level).await.unwrap();
    assert!(
        accept(&database.pooled(), &*by_stream, &*database.source())
            .await
            .unwrap()
    );
    append_rows(&client, "s", 1..=9).await;
    let report = run_to_head(&database, database.source(), vec![by_stream])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
}

/// Takes note of the events that it is handed.
struct Noted(&'static str);

impl Projection for Noted {
    fn name(&self) -> &str {
        "orders"
    }

    fn up(&self) -> &str {
        "create table seen (position bigint primary key)"
    }

    fn events(&self) -> Option<Vec<String>> {
        Some(vec!["Placed".to_owned()])
    }

    fn key_sql(&self) -> &str {
        self.0
    }

    fn partitions(&self) -> u16 {
        3
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let sql = format!("insert into seen values ({})", event.position);
            tx.batch_execute(&sql).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_projection_in_rust_get_each_event_once() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_orders(&client).await;
    let noted: Arc<dyn DynProjection> = Arc::new(RustProjection::new(Noted(KEY)).unwrap());
    let report = run_to_head(&database, database.source(), vec![noted.clone()])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    let seen = "select count(*) from orders.seen join highwater.event using (position)
                where type = 'Placed'";
    assert_eq!(one::<i64>(&client, seen).await, 300);
    agrees(&database).await;

    let database = TestDatabase::new().await;
    let client = database.client().await;
    let memory = MemorySource::new("default");
    for n in 0..100 {
        let event = NewEvent::new("Placed", &json!({})).unwrap();
        memory.append(&format!("s-{n}"), event);
    }
    let noted: Arc<dyn DynProjection> = Arc::new(RustProjection::new(Noted("stream")).unwrap());
    let report = run_to_head(&database, Arc::new(memory), vec![noted])
        .await
        .unwrap();
    assert!(
        matches!(report.outcomes[0].1, Outcome::CaughtUp),
        "{report:?}"
    );
    assert_eq!(
        one::<i64>(&client, "select count(*) from orders.seen").await,
        100
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_would_not_stay_the_same_is_refused() {
    for key in [
        "now()::text",
        "recorded_at::text",
        "random()",
        "max(stream)",
        "missing",
        "e.stream",
    ] {
        let database = TestDatabase::new().await;
        append_rows(&database.client().await, "s", 1..=3).await;
        let noted: Arc<dyn DynProjection> = Arc::new(RustProjection::new(Noted(key)).unwrap());
        let report = run_to_head(&database, database.source(), vec![noted])
            .await
            .unwrap();
        let Outcome::Stopped(error) = &report.outcomes[0].1 else {
            panic!("{key}: {report:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Config, "{key}: {error}");
        assert!(
            error.to_string().contains("the key is not an expression"),
            "{error}"
        );
    }
}
