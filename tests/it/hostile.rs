//! Types, keys, streams and columns that look like placeholders, parameters, comments or the end of
//! a text are data like any other: each event is applied exactly once.

use std::fmt::Write;
use std::sync::Arc;

use highwater::internal::dead_letters::{self, Selection};
use highwater::internal::engine::Settings;
use highwater::internal::engine::rebuild::Rebuild;
use highwater::internal::pg::quote_identifier;
use highwater::internal::pg::transaction::Tx;
use highwater::internal::projection::{DynProjection, Projection, RustProjection};
use highwater::internal::source::Batch;
use highwater::testing::TestDatabase;
use highwater::{BoxError, Outcome, RecordedEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::support::hostile::HOSTILE;
use crate::support::keyed_view::ByStream;
use crate::support::{one, run_to_head, sql_projection};

/// The field of `data` that is the key.
const FIELD: &str = "{key} it's /*key:*/ -- $1 $$ \\ */";

/// Versions of each stream.
const VERSIONS: usize = 3;

/// How many events are wanted: those of one more type are not.
const WANTED: i64 = (HOSTILE.len() * VERSIONS) as i64;

fn key_sql() -> String {
    let field = FIELD.replace('\\', "\\\\").replace('\'', "''");
    format!("data->>E'{field}'")
}

/// A string of TOML that is safe within a SQL comment.
fn toml_text(text: &str) -> String {
    let mut toml = String::from("\"");
    for c in text.chars() {
        match c.is_ascii_alphanumeric() {
            true => toml.push(c),
            false => write!(toml, "\\U{:08x}", u32::from(c)).unwrap(),
        }
    }
    toml + "\""
}

/// What can be applied is noted by each statement and by a function, which reads the view. Events whose
/// position is in `public.poison` cannot be.
fn noted(partitions: u16) -> Arc<dyn DynProjection> {
    let types: Vec<String> = HOSTILE.iter().map(|name| toml_text(name)).collect();
    let text = format!(
        "/* highwater
on_error = \"park\"
partitions = {partitions}
events = [{types}]
key = {key}
*/
-- highwater: up
create table seen (position bigint primary key, type text not null, key text);
create table viewed (position bigint primary key);
create function note() returns void language plpgsql as $$ begin
    insert into viewed select position from batch;
end $$;
-- highwater: apply
insert into seen
select position, type, ({key_sql}) from batch
 where 1 / (position not in (select p.position from public.poison p))::int = 1;
select note();
",
        types = types.join(", "),
        key = toml_text(&key_sql()),
        key_sql = key_sql(),
    );
    sql_projection("noted", &text)
}

/// A log in which every text is a type, a stream and a key.
async fn log() -> (TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let table = "create table public.poison (position bigint)";
    client.batch_execute(table).await.unwrap();
    for version in 1..=VERSIONS {
        for name in HOSTILE.iter().chain(&["not {types} wanted"]) {
            let data = json!({ FIELD: name, "version": version });
            let sql =
                "insert into highwater.event (stream, version, type, data) values ($1, $2, $1, $3)";
            let version = i64::try_from(version).unwrap();
            let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] = [
                (name, Type::TEXT),
                (&version, Type::INT8),
                (&data, Type::JSONB),
            ];
            client.execute_typed(sql, &parameters).await.unwrap();
        }
    }
    (database, client)
}

async fn run(database: &TestDatabase, projection: Arc<dyn DynProjection>) {
    let report = run_to_head(database, database.source(), vec![projection])
        .await
        .unwrap();
    let outcome = &report.outcomes[0].1;
    assert!(matches!(outcome, Outcome::CaughtUp), "{report:?}");
}

/// Every wanted event is there with its own type and key; a second time the primary key refuses.
async fn assert_all_seen(client: &Client) {
    let seen = "select count(*) from noted.seen s join highwater.event e using (position, type)
                 where s.key = e.type";
    assert_eq!(one::<i64>(client, seen).await, WANTED);
    let viewed = "select count(*) from noted.viewed join noted.seen using (position)";
    assert_eq!(one::<i64>(client, viewed).await, WANTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_types_and_keys_hold_each_event_is_applied_once_in_the_server() {
    for partitions in [1, 3] {
        let (database, client) = log().await;
        run(&database, noted(partitions)).await;
        assert_all_seen(&client).await;
        let rebuild = Rebuild::new(
            database.pooled(),
            database.source(),
            noted(partitions),
            Settings::default(),
        );
        rebuild.run(CancellationToken::new()).await.unwrap();
        assert_all_seen(&client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_parked_key_holds_its_events_wait_and_are_applied_once() {
    for partitions in [1, 3] {
        let (database, client) = log().await;
        let poison =
            "insert into public.poison select position from highwater.event where version = 1";
        client.execute(poison, &[]).await.unwrap();
        run(&database, noted(partitions)).await;
        let parked = "select count(distinct key) from highwater.dead_letter where key = type";
        assert_eq!(
            one::<i64>(&client, parked).await,
            i64::try_from(HOSTILE.len()).unwrap()
        );
        let letters = "select count(*) from highwater.dead_letter";
        assert_eq!(one::<i64>(&client, letters).await, WANTED);
        client
            .execute("delete from public.poison", &[])
            .await
            .unwrap();
        let name = "noted".parse().unwrap();
        for key in HOSTILE {
            let selection = Selection::Key(Some(key.to_owned()));
            let requested = dead_letters::retry(&database.pooled(), &name, &selection)
                .await
                .unwrap();
            assert_eq!(requested.parked_keys, 1, "{key}");
        }
        run(&database, noted(partitions)).await;
        assert_all_seen(&client).await;
        assert_eq!(one::<i64>(&client, letters).await, 0);
    }
}

/// Notes what it is handed, in a table whose names are hostile too.
struct Handed {
    key: String,
    up: String,
}

fn table() -> String {
    quote_identifier("{table} \"it's\" /*table:*/ $1")
}

impl Projection for Handed {
    fn name(&self) -> &str {
        "handed"
    }

    fn up(&self) -> &str {
        &self.up
    }

    fn events(&self) -> Option<Vec<String>> {
        Some(HOSTILE.map(str::to_owned).to_vec())
    }

    fn key_sql(&self) -> &str {
        &self.key
    }

    fn partitions(&self) -> u16 {
        3
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let sql = format!("insert into {} values ({})", table(), event.position);
            tx.batch_execute(&sql).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_types_and_keys_hold_each_event_is_handed_to_rust_once() {
    let (database, client) = log().await;
    let handed = Handed {
        key: key_sql(),
        up: format!("create table {} (position bigint primary key)", table()),
    };
    run(&database, Arc::new(RustProjection::new(handed).unwrap())).await;
    let seen = format!(
        "select count(*) from handed.{} join highwater.event using (position)
          where type <> 'not {{types}} wanted'",
        table()
    );
    assert_eq!(one::<i64>(&client, &seen).await, WANTED);
}

/// Two of the types; the others are unknown to it.
#[derive(Deserialize)]
enum TwoTypes {
    #[serde(rename = "A{parked}")]
    Parked {},
    #[serde(rename = "it's")]
    Its {},
}

#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(rename = "k {keys} /*keys:*/ \" '")]
    key: String,
    #[serde(rename = "n {changes} -- $1")]
    n: i64,
}

/// Counts per stream.
fn folded() -> Arc<dyn DynProjection> {
    let fold = |row: Option<Row>, event: TwoTypes, recorded: &RecordedEvent| {
        let (TwoTypes::Parked {} | TwoTypes::Its {}) = event;
        let key = recorded.stream.clone();
        let n = row.map_or(0, |row| row.n) + 1;
        Some(Row { key, n })
    };
    let up = r#"create table "t {match} /*table:*/" (
               "k {keys} /*keys:*/ "" '" text primary key, "n {changes} -- $1" bigint not null)"#;
    let view = ByStream {
        name: "folded".to_owned(),
        up: up.to_owned(),
        table: "t {match} /*table:*/",
        key_column: "k {keys} /*keys:*/ \" '",
        fold: Box::new(fold),
    };
    view.projection().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_tables_and_columns_are_called_a_row_is_written_and_read_back() {
    let (database, client) = log().await;
    for _ in 0..2 {
        run(&database, folded()).await;
        for name in ["A{parked}", "it's"] {
            let sql = "insert into highwater.event (stream, version, type, data)
                       values ($1, (select max(version) + 1 from highwater.event where stream = $1), $1, '{}')";
            client.execute(sql, &[&name]).await.unwrap();
        }
    }
    run(&database, folded()).await;
    let rows = r#"
        select string_agg(format('%s %s', "k {keys} /*keys:*/ "" '", "n {changes} -- $1"), ', '
                          order by "k {keys} /*keys:*/ "" '" collate "C")
          from folded."t {match} /*table:*/""#;
    let expected = format!("A{{parked}} {0}, it's {0}", VERSIONS + 2);
    assert_eq!(one::<String>(&client, rows).await, expected);
}
