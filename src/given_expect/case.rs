//! One case: append, run to the head, compare.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::report::{Batching, Failure};
use super::scratch::Scratch;
use crate::dead_letters;
use crate::engine::{Engine, Outcome, Settings, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::sql::{Sql, query, sql};
use crate::pg::{self, Parameter, column};
use crate::projection::DynProjection;
use crate::projection::test_file::{ExpectedTable, GivenEvent, Test, TestFile, compare};
use crate::retry::{Verdict, delays, verdict};
use crate::source::table::{EventTable, TableSource};
use crate::suggest;

/// A scratch database that does not answer for so long does not come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of a case needs.
struct Run<'a> {
    scratch: &'a Scratch,
    projection: &'a Arc<dyn DynProjection>,
    file: &'a TestFile,
    test: &'a Test,
}

/// Runs a case twice, and says what failed. An error is about the scratch database.
pub(super) async fn run(
    scratch: &Scratch,
    projection: &Arc<dyn DynProjection>,
    file: &TestFile,
    test: &Test,
) -> Result<Vec<Failure>> {
    let run = Run {
        scratch,
        projection,
        file,
        test,
    };
    let mut failures: Vec<Failure> = Vec::new();
    for (how, events_max) in [
        (Batching::OneBatch, None),
        (Batching::OneEventABatch, Some(1)),
    ] {
        let Err(error) = run.once(events_max).await else {
            continue;
        };
        if verdict(error.kind()) == Verdict::Transient {
            return Err(error);
        }
        let difference = error.to_string();
        match failures.first_mut() {
            Some(first) if first.difference == difference => first.how = Batching::Both,
            _ => failures.push(Failure { how, difference }),
        }
    }
    Ok(failures)
}

/// How often, and with what pause between at most, a scratch database is emptied again.
const EMPTY_RETRIES: usize = 5;
const EMPTY_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Run<'_> {
    fn schema(&self) -> &str {
        self.projection.definition().name.as_str()
    }

    async fn once(&self, events_max: Option<u32>) -> Result<()> {
        let mut client = self.scratch.database.client().await?;
        self.empty(&client).await?;
        self.append(&mut client).await?;
        self.run_to_head(events_max).await?;
        self.compare(&client).await
    }

    /// The run before may have left a statement in flight, which blocks for a moment.
    async fn empty(&self, client: &Client) -> Result<()> {
        let schema = Sql::identifier(self.schema());
        let sql = sql!(
            "{drop};\n{forget}",
            drop = query!("given_expect/drop_schema.sql").fill(&[("schema", &schema)])?,
            forget = query!("given_expect/forget.sql").fill(&[])?,
        );
        let mut pauses = delays(EMPTY_PAUSE_MAX).take(EMPTY_RETRIES);
        loop {
            let Err(error) = client.batch_execute(&sql).await else {
                return Ok(());
            };
            let error = pg::error("cannot empty the scratch database", error);
            let pause = match error.kind() {
                ErrorKind::Serialization | ErrorKind::Locked => pauses.next(),
                _ => None,
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn append(&self, client: &mut Client) -> Result<()> {
        let begun = client.transaction().await;
        let transaction = begun.map_err(|e| pg::error("cannot append the given events", e))?;
        let mut versions: HashMap<&str, i64> = HashMap::new();
        for event in &self.test.given {
            let last = versions.entry(&event.stream).or_default();
            let version = event.version.unwrap_or(*last + 1);
            *last = version;
            append(transaction.client(), event, version)
                .await
                .map_err(|error| error.with_location(self.file.location(event.line)))?;
        }
        let committed = transaction.commit().await;
        committed.map_err(|e| pg::error("cannot append the given events", e))
    }

    async fn run_to_head(&self, events_max: Option<u32>) -> Result<()> {
        let mut settings = Settings {
            listen: false,
            ..Settings::default()
        };
        if let Some(events_max) = events_max {
            settings.batch_events_max = events_max;
        }
        // Its events are those of the test, whatever source it names.
        let source = TableSource::new(
            self.projection.definition().source.clone(),
            self.scratch.database.clone(),
            None,
            EventTable::own(),
        );
        let engine = Engine::new(self.scratch.database.clone(), settings)
            .source(Arc::new(source))
            .projection(self.projection.clone());
        let running = engine.run(Until::CaughtUp, CancellationToken::new());
        let Ok(report) = tokio::time::timeout(PATIENCE, running).await else {
            return Err(Error::new(
                ErrorKind::Apply,
                format!(
                    "the projection did not reach the head within {} s",
                    PATIENCE.as_secs()
                ),
            )
            .with_location(self.file.location(self.test.line))
            .with_hint("check that apply ends and waits for no lock"));
        };
        match report?.outcomes.pop() {
            None | Some((_, Outcome::CaughtUp | Outcome::Drained)) => self.check_parked().await,
            Some((_, Outcome::Stopped(error))) => Err(error),
        }
    }

    /// A parked event could not be applied, which a test reports as if the projection had stopped.
    async fn check_parked(&self) -> Result<()> {
        let name = &self.projection.definition().name;
        let all = dead_letters::Selection::All;
        let listed = dead_letters::by_key(&self.scratch.database, name, &all, 1).await?;
        let Some(parked) = listed.shown.keys.first() else {
            return Ok(());
        };
        let first = &parked.first;
        let message = first.error.as_ref().and_then(|e| e["message"].as_str());
        let what = format!(
            "the event at position {} ({}) cannot be applied, and its key is parked: {}",
            first.position,
            first.event_type,
            message.unwrap_or_default()
        );
        Err(Error::new(ErrorKind::Apply, what))
    }

    async fn compare(&self, client: &Client) -> Result<()> {
        let tables = tables(client, self.schema()).await?;
        let mut differences = Vec::new();
        for expected in &self.test.expect {
            let location = self.file.location(expected.line);
            if !tables.contains(&expected.table) {
                differences.push(
                    self.unknown(expected, &tables)
                        .with_location(location)
                        .to_string(),
                );
                continue;
            }
            let rows = rows(client, self.schema(), &expected.table).await?;
            if let Some(difference) = compare(&expected.rows, &rows) {
                let table = &expected.table;
                differences.push(format!("{location}: {table} differs\n{difference}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Apply, differences.join("\n")))
    }

    fn unknown(&self, expected: &ExpectedTable, tables: &[String]) -> Error {
        let schema = self.schema();
        let what = format!("there is no table \"{}\" in {schema}", expected.table);
        let error = Error::new(ErrorKind::Config, what);
        if tables.is_empty() {
            return error.with_hint(format!("{schema} has no tables: create one in up"));
        }
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        error.with_hint(suggest::suggestion(&expected.table, &tables))
    }
}

async fn append(client: &Client, event: &GivenEvent, version: i64) -> Result<()> {
    let sql = include_str!("../../sql/queries/given_expect/append.sql");
    let metadata = Value::Object(event.metadata.clone());
    let parameters: [(&Parameter<'_>, Type); 7] = [
        (&event.stream, Type::TEXT),
        (&version, Type::INT8),
        (&event.event_type, Type::TEXT),
        (&event.data, Type::JSONB),
        (&metadata, Type::JSONB),
        (&event.id, Type::UUID),
        (&event.recorded_at, Type::TIMESTAMPTZ),
    ];
    let appended = client.execute_typed(sql, &parameters).await;
    appended
        .map(drop)
        .map_err(|e| pg::error("cannot append the given event", e))
}

async fn tables(client: &Client, schema: &str) -> Result<Vec<String>> {
    let sql = include_str!("../../sql/queries/given_expect/tables.sql");
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT)]).await;
    let rows = rows.map_err(|e| pg::error("cannot list the tables of the projection", e))?;
    rows.iter().map(|row| column(row, 0)).collect()
}

async fn rows(client: &Client, schema: &str, table: &str) -> Result<Vec<Map<String, Value>>> {
    let name = Sql::qualified(schema, table);
    let sql = query!("given_expect/rows.sql").fill(&[("table", &name)])?;
    let rows = client.query_typed(&sql, &[]).await;
    let rows = rows.map_err(|e| pg::error(&format!("cannot read {name}"), e))?;
    rows.iter()
        .map(|row| match column(row, 0)? {
            Value::Object(row) => Ok(row),
            other => Err(Error::new(
                ErrorKind::Internal,
                format!("a row of {name} is {other}"),
            )),
        })
        .collect()
}
