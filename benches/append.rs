//! Appends, against plain inserts into a bare table of the same columns: what the log's constraints,
//! the functions and [`EventStore`] cost a writer. Each writer has a session and a stream of its own.

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use highwater::internal::event_store;
use highwater::{EventStore, ExpectedVersion, NewEvent, Result};
use serde_json::{Value, json};
use support::{Bench, Db, Report, failed};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// Events of one append, where there are several.
const BATCH: i64 = 100;
/// The columns of the event table and its primary key, nothing else.
const BARE: &str = "create table bare (
    position bigint generated always as identity primary key, stream text not null,
    version bigint not null, type text not null, data jsonb not null,
    metadata jsonb not null default '{}', id uuid not null default gen_random_uuid(),
    recorded_at timestamptz not null default clock_timestamp())";

#[derive(Clone, Copy)]
enum Way {
    Bare,
    Insert,
    Function,
    EventStore,
    BareMany,
    EventStoreMany,
}

impl Way {
    fn events(self) -> i64 {
        match self {
            Way::BareMany | Way::EventStoreMany => BATCH,
            _ => 1,
        }
    }
}

fn main() -> ExitCode {
    support::run("append", measure)
}

async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let time = bench
        .form
        .size(Duration::from_millis(400), Duration::from_secs(4));
    let db = bench.database().await?;
    db.time(BARE).await?;
    for run in 0..bench.form.runs() {
        for writers in [1, 32] {
            let rate = async |way| rate(&db, way, run, writers, time).await;
            // Once for whoever comes first, so that nobody does.
            rate(Way::Bare).await?;
            let bare = rate(Way::Bare).await?;
            let one = [
                ("plain insert", Way::Insert),
                ("highwater.append", Way::Function),
                ("EventStore::append", Way::EventStore),
            ];
            for (name, way) in one {
                report.sample(
                    &format!("{name}, writers: {writers}"),
                    "events/s",
                    rate(way).await?,
                    Some(("bare table", bare)),
                    None,
                );
            }
            let bare = rate(Way::BareMany).await?;
            report.sample(
                &format!("EventStore::append, {BATCH} events, writers: {writers}"),
                "events/s",
                rate(Way::EventStoreMany).await?,
                Some(("bare table", bare)),
                None,
            );
        }
    }
    Ok(())
}

/// Events a second of so many writers.
async fn rate(db: &Db, way: Way, run: usize, writers: usize, time: Duration) -> Result<f64> {
    let store = event_store::in_database(db.sessions(writers)?);
    let mut ready = Vec::new();
    for writer in 0..writers {
        let stream = format!("{}-{run}-{writers}-{writer}", way as u8);
        let mut writer = Writer {
            client: db.client().await?,
            store: store.clone(),
            stream,
            version: 0,
            data: json!({ "account": writer, "amount": 1, "note": "n".repeat(60) }),
        };
        writer.append(way).await?;
        ready.push(writer);
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for mut writer in ready {
        running.spawn(async move {
            let mut appended = 0;
            while began.elapsed() < time {
                writer.append(way).await?;
                appended += way.events();
            }
            Ok::<_, highwater::Error>(appended)
        });
    }
    let mut appended = 0;
    while let Some(writer) = running.join_next().await {
        appended += writer.map_err(failed)??;
    }
    Ok(appended as f64 / began.elapsed().as_secs_f64())
}

struct Writer {
    client: Client,
    store: EventStore,
    stream: String,
    version: i64,
    data: Value,
}

impl Writer {
    async fn append(&mut self, way: Way) -> Result<()> {
        self.version += way.events();
        let insert = |table: &str| {
            format!(
                "insert into {table} (stream, version, type, data) values ($1, $2, 'Booked', $3)"
            )
        };
        match way {
            Way::Bare => self.execute(&insert("bare")).await,
            Way::Insert => self.execute(&insert("highwater.event")).await,
            Way::Function => {
                let sql = "select highwater.append($1, 'Booked', $3) where $2::bigint > 0";
                self.execute(sql).await
            }
            Way::BareMany => {
                let sql = "insert into bare (stream, version, type, data)
                           select $1, $2 + i, 'Booked', $3 from generate_series(1, 100) i";
                self.execute(sql).await
            }
            Way::EventStore | Way::EventStoreMany => {
                let event = NewEvent::new("Booked", &self.data)?;
                let events = vec![event; way.events() as usize];
                let any = ExpectedVersion::Any;
                self.store
                    .append(&self.stream, any, &events)
                    .await
                    .map(drop)
            }
        }
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.stream, Type::TEXT),
            (&self.version, Type::INT8),
            (&self.data, Type::JSONB),
        ];
        let done = self.client.query_typed(sql, &parameters).await;
        done.map(drop).map_err(failed)
    }
}
