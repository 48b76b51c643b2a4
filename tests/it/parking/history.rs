//! Random histories with random poison, runs that are cut off, and partitions that change: whatever
//! happens, in the end all is applied once and in order.

use std::collections::BTreeSet;

use highwater::internal::audit::audit;
use highwater::internal::source::Source;

use super::*;
use crate::support::Random;

const STREAMS: u64 = 12;

/// Appends events of random streams, several in a transaction, some of which roll back.
async fn append_random(client: &Client, random: &mut Random, count: usize) {
    for _ in 0..count {
        let stream = format!("s{}", random.below(STREAMS));
        let end = if random.below(10) == 0 {
            "rollback"
        } else {
            "commit"
        };
        let sql = format!(
            "begin;
             insert into highwater.event (stream, version, type, data)
             select '{stream}', coalesce(max(version), 0) + 1, 'T', '{{}}'
               from highwater.event where stream = '{stream}';
             {end}"
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

fn small(random: &mut Random) -> Settings {
    let mut settings = Settings::default();
    settings.batch_events_max = u32::try_from(1 + random.below(60)).unwrap();
    settings.lease = Duration::from_secs(1);
    settings
}

/// One run, which is cut off at a random moment, as by a crash, if it may be.
async fn run_for_a_while(database: &TestDatabase, random: &mut Random, partitions: u64) {
    let header = format!("partitions = {partitions}");
    let engine = Engine::new(database.pooled(), small(random))
        .source(database.source())
        .projection(applied(&header));
    let limit = match random.below(3) {
        0 => LIMIT,
        _ => Duration::from_millis(random.below(400)),
    };
    let running = engine.run(Until::CaughtUp, CancellationToken::new());
    if let Ok(report) = tokio::time::timeout(limit, running).await {
        caught_up(&report.unwrap());
    } else {
        assert!(limit < LIMIT, "it does not catch up");
    }
}

/// What is poison, and what becomes of it: some of it is fixed, and some is retried.
async fn fix_some(
    database: &TestDatabase,
    client: &Client,
    random: &mut Random,
    poison: &mut BTreeSet<i64>,
) {
    poison.retain(|_| random.below(3) > 0);
    poisoned(client, &poison.iter().copied().collect::<Vec<_>>()).await;
    let parked = "select key from highwater.dead_letter group by key order by key";
    for row in client.query(parked, &[]).await.unwrap() {
        if random.below(2) == 0 {
            retry(database, Selection::Key(row.get(0))).await;
        }
    }
}

async fn plays(partitions: impl Fn(&mut Random) -> u64) {
    let seed = Random::seed();
    let mut random = Random::new(seed);
    let (database, client) = log(0, &[]).await;
    let mut poison = BTreeSet::new();
    for _ in 0..6 {
        let head: i64 = one(
            &client,
            "select coalesce(max(position), 0) from highwater.event",
        )
        .await;
        for _ in 0..random.below(6) {
            poison.insert(head + 1 + i64::try_from(random.below(60)).unwrap());
        }
        poisoned(&client, &poison.iter().copied().collect::<Vec<_>>()).await;
        append_random(&client, &mut random, 60).await;
        let count = partitions(&mut random);
        run_for_a_while(&database, &mut random, count).await;
        if one::<bool>(&client, "select to_regclass('applied.applied') is not null").await {
            is_in_order(&client).await;
            fix_some(&database, &client, &mut random, &mut poison).await;
        }
    }
    poisoned(&client, &[]).await;
    let last = format!("partitions = {}", partitions(&mut random));
    caught_up(&run(&database, applied(&last)).await);
    retry(&database, Selection::All).await;
    caught_up(&run(&database, applied(&last)).await);
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
    is_in_order(&client).await;
    let missing = "select count(*) from highwater.event e
                    where not exists (select from applied.applied a where a.position = e.position)";
    assert_eq!(one::<i64>(&client, missing).await, 0);
    let sources: [Arc<dyn Source>; 1] = [database.source()];
    let found = audit(&database.pooled(), &sources, None).await.unwrap();
    assert!(found.agrees(), "{}", found.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_applied_in_order_in_the_end_through_poison_and_crashes() {
    plays(|_| 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_stay_parked_and_in_order_while_the_partitions_change() {
    plays(|random| 1 + random.below(4)).await;
}
