//! The end: what was committed is what is applied, once and in order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::Outcome;
use crate::arena::Arena;
use crate::journal::locked;
use crate::writers::Answers;

/// How long everything may take to come to an end once nothing disturbs it any more.
const DRAIN_LIMIT: Duration = Duration::from_secs(180);

/// The projections, and whether each goes by position as a whole.
pub(crate) const PROJECTIONS: [(&str, bool); 5] = [
    ("one", true),
    ("four", false),
    ("typed", true),
    ("parks", false),
    ("in_rust", true),
];

/// What was found about one projection.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) expected: usize,
    pub(crate) applied: usize,
    pub(crate) discarded: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    /// Applied, and not in the log or not its own.
    pub(crate) foreign: usize,
    pub(crate) out_of_order: usize,
}

/// What was found about all of it.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) events: usize,
    pub(crate) acknowledged: usize,
    pub(crate) undone: usize,
    /// Transactions whose answer was lost, and how many of them are there.
    pub(crate) unknown: (usize, usize),
    pub(crate) projections: Vec<Found>,
    pub(crate) drained_in: Duration,
    pub(crate) audit: String,
}

struct Event {
    id: Uuid,
    position: i64,
    stream: String,
    version: i64,
    is_wanted: bool,
}

/// Waits until all of it is applied or given up.
pub(crate) async fn drain(arena: &Arena) -> Outcome<Duration> {
    let began = Instant::now();
    let client = arena.address.connected().await?;
    let all = "insert into public.known select distinct data->>'kind' from highwater.event
                where data ? 'kind' on conflict do nothing";
    client.batch_execute(all).await?;
    let left = "select coalesce(max((select max(position) from highwater.event) - c.position), 0)::bigint,
                       (select count(*) from highwater.dead_letter)
                  from highwater.checkpoint c
                  join highwater.projection p on p.name = c.projection and p.generation = c.generation";
    let mut asked = Instant::now() - DRAIN_LIMIT;
    loop {
        let row = client.query_one(left, &[]).await?;
        let (behind, letters): (i64, i64) = (row.get(0), row.get(1));
        if behind == 0 && letters == 0 {
            return Ok(began.elapsed());
        }
        if began.elapsed() > DRAIN_LIMIT {
            let (_, status) = arena
                .project
                .command(&arena.address.url(), &["status"])
                .await?;
            arena.violation(format!(
                "not drained within {DRAIN_LIMIT:?}: {behind} behind, {letters} dead letters\n{status}"
            ));
            return Ok(began.elapsed());
        }
        if letters > 0 && asked.elapsed() > Duration::from_secs(2) {
            asked = Instant::now();
            arena
                .command(&["dead-letters", "retry", "parks", "--all"])
                .await?;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Compares the log with the answers of the writers, and each ledger with the log.
pub(crate) async fn judge(arena: &Arena, mut answers: Answers) -> Outcome<Verdict> {
    answers.add(std::mem::take(&mut locked(&arena.tally).poison));
    let client = arena.address.connected().await?;
    let log = log(&client).await?;
    let mut verdict = judge_log(arena, &log, &answers);
    for (name, by_position) in PROJECTIONS {
        let found = judge_ledger(&client, name, by_position, &log).await?;
        for (count, what) in [
            (found.lost, "lost"),
            (found.doubled, "applied more than once"),
            (found.foreign, "applied that are not its own"),
            (found.out_of_order, "out of order"),
        ] {
            if count > 0 {
                arena.violation(format!("{name}: {count} events {what}"));
            }
        }
        verdict.projections.push(found);
    }
    let (code, said) = arena
        .project
        .command(&arena.address.url(), &["audit"])
        .await?;
    if code != 0 {
        arena.violation(format!("highwater audit ends with {code}:\n{said}"));
    }
    verdict.audit = said;
    Ok(verdict)
}

async fn log(client: &Client) -> Outcome<Vec<Event>> {
    let sql = "select id, position, stream, version, type = 'Wanted' from highwater.event
                order by position";
    let rows = client.query(sql, &[]).await?;
    let events = rows.iter().map(|row| Event {
        id: row.get(0),
        position: row.get(1),
        stream: row.get(2),
        version: row.get(3),
        is_wanted: row.get(4),
    });
    Ok(events.collect())
}

/// The log holds what the writers got answers for, and nothing else.
fn judge_log(arena: &Arena, log: &[Event], answers: &Answers) -> Verdict {
    let mut there: HashSet<Uuid> = log.iter().map(|event| event.id).collect();
    let missing = answers
        .committed
        .iter()
        .filter(|id| !there.remove(id))
        .count();
    if missing > 0 {
        arena.violation(format!(
            "{missing} events were committed and are not in the log"
        ));
    }
    let mut kept = 0;
    for transaction in &answers.unknown {
        let found = transaction.iter().filter(|id| there.remove(id)).count();
        kept += usize::from(found > 0);
        if found > 0 && found < transaction.len() {
            arena.violation(format!("half of a transaction is there: {transaction:?}"));
        }
    }
    if !there.is_empty() {
        arena.violation(format!(
            "{} events are there and should not be",
            there.len()
        ));
    }
    Verdict {
        events: log.len(),
        acknowledged: answers.committed.len(),
        undone: answers.undone.len(),
        unknown: (answers.unknown.len(), kept),
        ..Verdict::default()
    }
}

async fn judge_ledger(
    client: &Client,
    name: &'static str,
    by_position: bool,
    log: &[Event],
) -> Outcome<Found> {
    let given_up = format!("select position from highwater.discarded where projection = '{name}'");
    let rows = client.query(&given_up, &[]).await?;
    let discarded: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut left: HashMap<i64, &Event> = log
        .iter()
        .filter(|event| name != "typed" || event.is_wanted)
        .filter(|event| !discarded.contains(&event.position))
        .map(|event| (event.position, event))
        .collect();
    let mut found = Found {
        name,
        expected: left.len(),
        discarded: discarded.len(),
        ..Found::default()
    };
    let mut seen = HashSet::new();
    let mut streams: HashMap<String, i64> = HashMap::new();
    let mut last = 0;
    let applied = format!("select position, stream, version from {name}.ledger order by applied");
    for row in client.query(&applied, &[]).await? {
        let (position, stream, version): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
        found.applied += 1;
        match left.remove(&position) {
            Some(event) if event.stream == stream && event.version == version => {}
            None if seen.contains(&position) => found.doubled += 1,
            _ => found.foreign += 1,
        }
        seen.insert(position);
        let before = streams.insert(stream, version).unwrap_or(0);
        if version <= before || (by_position && position <= last) {
            found.out_of_order += 1;
        }
        last = position;
    }
    found.lost = left.len();
    Ok(found)
}
