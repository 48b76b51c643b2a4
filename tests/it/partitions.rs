//! Partitions: which events are whose, by the hash of their key.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::internal::projection::{DynProjection, OnError, Projection, RustProjection};
use highwater::internal::source::{
    Batch, EventKey, Filter, Keys, Parked, Partition, ReadRequest, Source,
};
use highwater::testing::{MemorySource, TestDatabase};
use highwater::{BoxError, ErrorKind, NewEvent, Position, Range, Result};
use serde_json::json;
use tokio_postgres::Client;

use crate::support::{Random, one, table_source};

/// Appends an event for each key, which is in its data; null is none.
async fn append_keys(client: &Client, keys: &[EventKey]) {
    let sql = "insert into highwater.event (stream, version, type, data)
               select coalesce('s-' || k, 'none'), n, case n % 3 when 0 then 'A' else 'B' end,
                      jsonb_build_object('key', k)
               from unnest($1::text[]) with ordinality as u(k, n)";
    client.execute(sql, &[&keys]).await.unwrap();
}

fn log() -> Range {
    Range::new(Position::START, Position::new(1_000_000))
}

fn request() -> ReadRequest<'static> {
    ReadRequest {
        range: log(),
        types: None,
        events_max: 1_000_000,
        bytes_max: usize::MAX,
    }
}

fn of_partition(key: &str, number: i32, of: i32) -> Filter<'_> {
    let partition = Partition { number, of };
    let keys = Keys {
        key,
        partition,
        parked: Parked::With,
    };
    Filter { types: None, keys }
}

/// The positions that each partition reads.
async fn split(source: &dyn Source, key: &str, of: i32) -> BTreeMap<i64, i32> {
    let mut whose = BTreeMap::new();
    for number in 0..of {
        let filter = of_partition(key, number, of);
        let batch = source.read_keys(request(), filter.keys).await.unwrap();
        for event in batch.events {
            let before = whose.insert(event.position.get(), number);
            assert_eq!(before, None, "{} is read twice", event.position);
        }
    }
    whose
}

/// As the function that checkpoints and dead letters go by answers.
async fn as_the_server_says(client: &Client, key: &str, of: i32) -> BTreeMap<i64, i32> {
    let sql = format!(
        "select position, highwater.partition_of(({key})::text, {of}) from highwater.event"
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Keys of every length up to beyond two blocks of the hash, in several scripts.
fn keys(random: &mut Random) -> Vec<EventKey> {
    let alphabet: Vec<char> = "abcXYZ019 -_/äß€漢😀".chars().collect();
    let mut letter = || alphabet[usize::try_from(random.below(18)).unwrap()];
    let mut keys: Vec<EventKey> = vec![None, Some(String::new())];
    for length in 0..120_usize {
        keys.push(Some((0..length % 40).map(|_| letter()).collect()));
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_read_in_one_partition_the_one_that_the_server_computes() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    append_keys(&client, &keys(&mut Random::new(Random::seed()))).await;
    let source = table_source(&database);
    let nothing: i64 = one(
        &client,
        "select count(*) from highwater.event where data->>'key' is null",
    )
    .await;
    assert_eq!(nothing, 1, "the key null is among them");
    for key in [
        "stream",
        "data ->> 'key'",
        "version % 7",
        "nullif(version % 2, 0)",
    ] {
        for of in [1, 2, 7, 100] {
            let expected = as_the_server_says(&client, key, of).await;
            assert_eq!(split(&*source, key, of).await, expected, "{key} in {of}");
        }
    }
    let of_null: i32 = one(&client, "select highwater.partition_of(null, 1024)").await;
    assert_eq!(of_null, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_in_memory_cuts_partitions_as_the_server_does() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let memory = MemorySource::new("default");
    let keys = keys(&mut Random::new(Random::seed()));
    for key in keys.iter().flatten() {
        memory.append(key, NewEvent::new("T", &json!({})).unwrap());
    }
    for of in [1, 2, 7, 1024] {
        let sql = "select highwater.partition_of(k, $2) from unnest($1::text[]) k";
        let streams: Vec<&String> = keys.iter().flatten().collect();
        let rows = client.query(sql, &[&streams, &of]).await.unwrap();
        let expected = rows.iter().map(|row| row.get(0));
        let expected: BTreeMap<i64, i32> = (1..).zip(expected).collect();
        assert_eq!(split(&memory, "stream", of).await, expected, "in {of}");
    }
    let memory: &dyn Source = &memory;
    let by_version = of_partition("version", 0, 2).keys;
    let other = memory.read_keys(request(), by_version).await;
    let error = other.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_are_left_out_or_read_alone_the_key_null_among_them() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let keys: Vec<EventKey> = ["a", "", "b", "=a", "a"]
        .map(|key| Some(key.to_owned()))
        .into_iter()
        .chain([None, None])
        .collect();
    append_keys(&client, &keys).await;
    let source = table_source(&database);
    for parked in [
        vec![],
        vec![None],
        vec![Some("a".to_owned())],
        vec![Some(String::new()), None],
        (0..20).map(|n| Some(format!("none {n}"))).collect(),
    ] {
        let filter = of_partition("data->>'key'", 0, 1);
        let without = filter.parked(Parked::Without(&parked));
        let free = source.read_keyed(request(), without.keys).await.unwrap();
        let only = filter.parked(Parked::Only(&parked));
        let parked_only = source.read_keyed(request(), only.keys).await.unwrap();
        let with_position = |wanted: bool| -> Vec<(EventKey, i64)> {
            let numbered = keys.iter().cloned().zip(1..);
            numbered
                .filter(|(key, _)| parked.contains(key) == wanted)
                .collect()
        };
        let positions = |events: Vec<(EventKey, highwater::RecordedEvent)>| -> Vec<_> {
            let pairs = events.into_iter();
            pairs
                .map(|(key, event)| (key, event.position.get()))
                .collect()
        };
        assert_eq!(positions(free.events), with_position(false), "{parked:?}");
        assert_eq!(
            positions(parked_only.events),
            with_position(true),
            "{parked:?}"
        );
        let middle = source.middle(log(), without).await.unwrap().unwrap();
        assert_eq!(middle.count, with_position(false).len() as u64);
    }
}

/// A projection of which only the settings matter.
struct Plain {
    key: &'static str,
    partitions: u16,
    on_error: OnError,
}

impl Projection for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn up(&self) -> &str {
        "create table seen (position bigint primary key)"
    }

    fn key_sql(&self) -> &str {
        self.key
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn on_error(&self) -> OnError {
        self.on_error
    }

    async fn apply(
        &self,
        _: &Batch,
        _: &highwater::internal::pg::transaction::Tx<'_>,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

fn plain(key: &'static str, partitions: u16, on_error: OnError) -> Result<Arc<dyn DynProjection>> {
    let plain = Plain {
        key,
        partitions,
        on_error,
    };
    Ok(Arc::new(RustProjection::new(plain)?))
}

#[test]
fn the_key_is_part_of_what_a_read_model_is_and_partitions_and_on_error_are_not() {
    let hash = |key, partitions, on_error| {
        let projection = plain(key, partitions, on_error).unwrap();
        projection.definition().hash.clone()
    };
    // As stored by the version that knew no key.
    let before = "9269a4a39f42c481daacd10dec8690a5202f36adab6e785ba2771b2a92079c8a";
    assert_eq!(hash("stream", 1, OnError::Stop), before);
    assert_eq!(hash(" stream ", 8, OnError::Park), before);
    let other = hash("data->>'key'", 1, OnError::Stop);
    assert_ne!(other, before);
    assert_eq!(hash("data ->> 'key'", 8, OnError::Park), other);
}

#[test]
fn a_key_that_is_no_expression_and_partitions_out_of_bounds_are_refused() {
    for (key, says) in [
        ("a)", "parentheses"),
        ("a; drop table b", "semicolon"),
        ("a -- b", "comment"),
        ("'a", "never ends"),
        (" ", "empty"),
    ] {
        let error = plain(key, 1, OnError::Stop).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{key}: {error}");
    }
    for partitions in [0, 1025] {
        let error = plain("stream", partitions, OnError::Stop).err().unwrap();
        assert!(error.to_string().contains("partitions"), "{error}");
    }
    assert!(plain("stream", 1024, OnError::Stop).is_ok());
}
