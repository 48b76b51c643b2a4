//! The tests of this program: of its source, and of a projection that reads it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use highwater::postgres::Client;
use highwater::source::{BoxFuture, Source};
use highwater::testing::conformance::{self, SourceUnderTest};
use highwater::testing::{MemorySource, TestDatabase};
use highwater::{
    Batch, BoxError, Error, ErrorKind, ExpectedVersion, Highwater, NewEvent, Outcome, Position,
    Projection, Tx, Until, Verdict,
};
use serde_json::json;

use crate::own_log::OwnLog;

impl SourceUnderTest for OwnLog {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.clone())
    }

    fn append<'a>(&'a self, stream: &'a str, event: NewEvent) -> BoxFuture<'a, Position> {
        Box::pin(async move { OwnLog::append(self, stream, event) })
    }
}

#[tokio::test]
async fn the_log_of_our_own_conforms() {
    conformance::run(async || OwnLog::default()).await;
}

/// Counts events, with a service that fails for the first of some types and for all of others.
#[derive(Default)]
struct Counts {
    source: &'static str,
    failed: Mutex<BTreeSet<String>>,
}

impl Counts {
    fn call_the_service(&self, event_type: &str) -> Result<(), Error> {
        let is_first = self
            .failed
            .lock()
            .is_ok_and(|mut failed| failed.insert(event_type.to_owned()));
        match event_type {
            "Late" if is_first => Err(Error::transient("the service is not there")),
            "Wrong" => Err(Error::poison("the service refuses it")),
            _ => Ok(()),
        }
    }
}

impl Projection for Counts {
    fn name(&self) -> &str {
        "counts"
    }

    fn up(&self) -> &str {
        "create table count (events bigint not null); insert into count values (0)"
    }

    fn source(&self) -> &str {
        self.source
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            self.call_the_service(&event.event_type)?;
            tx.execute("update count set events = events + 1", &[])
                .await?;
        }
        Ok(())
    }
}

async fn count(client: &Client) -> i64 {
    let row = client
        .query_one("select events from counts.count", &[])
        .await;
    row.expect("the read model is there").get(0)
}

fn event(event_type: &str) -> NewEvent {
    NewEvent::new(event_type, &json!({})).expect("JSON")
}

/// Runs the projection over the two events of a source.
async fn run(highwater: Highwater, source: &'static str) -> Outcome {
    let counts = Counts {
        source,
        ..Counts::default()
    };
    let highwater = highwater.projection(counts);
    let handle = highwater.handle();
    let report = highwater.run(Until::CaughtUp).await;
    let status = handle.status().await.expect("the status");
    let mark = status.source(source).and_then(|source| source.mark);
    assert_eq!(mark, Some(Position::new(2)));
    report.expect("a run").outcomes.remove(0).1
}

async fn connect(database: &TestDatabase) -> Highwater {
    let connected = Highwater::connect(database.url()).await;
    connected.expect("a database")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_reads_the_log_of_our_own_and_retries_what_is_transient() {
    let (database, log) = (TestDatabase::new().await, OwnLog::default());
    log.append("a", event("Made"));
    log.append("a", event("Late"));
    let outcome = run(connect(&database).await.source(log), "own").await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_eq!(count(&database.client().await).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_event_stops_the_projection_before_it() {
    let (database, source) = (TestDatabase::new().await, MemorySource::new("default"));
    source.append("a", event("Made"));
    let wrong = source.append("a", event("Wrong"));
    let highwater = connect(&database).await.source(source);
    let Outcome::Stopped(error) = run(highwater, "default").await else {
        panic!("it must not be applied");
    };
    assert_eq!(error.kind(), ErrorKind::Apply);
    assert_eq!(error.kind().verdict(), Verdict::Poison);
    assert_eq!(error.event().map(|event| event.position), Some(wrong));
    assert_eq!(count(&database.client().await).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_reads_the_events_of_another_database() {
    let (database, events) = (TestDatabase::new().await, TestDatabase::new().await);
    let store = connect(&events).await.event_store();
    let made = [event("Made"), event("Made")];
    let appended = store.append("a", ExpectedVersion::NoStream, &made).await;
    appended.expect("an append");
    let highwater = connect(&database).await.events_of("events", events.url());
    let outcome = run(highwater.expect("a URL"), "events").await;
    assert!(matches!(outcome, Outcome::CaughtUp), "{outcome:?}");
    assert_eq!(count(&database.client().await).await, 2);
}
