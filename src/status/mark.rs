//! The mark of a source, read once: as instances report it, else followed for a moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Client;

use super::Gap;
use crate::error::Result;
use crate::pg::{self, column};
use crate::position::Position;
use crate::source::{Blocker, OpenGap, Source};

/// How long a mark that does not reach the head is followed: most appends end in this time.
pub(super) const PATIENCE: Duration = Duration::from_millis(150);
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The database's time, and the highest mark of each source that a living instance reports.
pub(crate) async fn reported(client: &Client) -> Result<(Timestamp, HashMap<String, Position>)> {
    let sql = include_str!("../../sql/queries/status/marks.sql");
    let row = client.query_typed_one(sql, &[]).await;
    let row = row.map_err(|e| pg::error("cannot read the marks", e))?;
    let marks: HashMap<String, i64> =
        serde_json::from_value(column::<Value>(&row, 1)?).unwrap_or_default();
    let marks = marks.into_iter();
    let marks = marks.map(|(name, mark)| (name, Position::new(mark)));
    Ok((column(&row, 0)?, marks.collect()))
}

/// The head, if a living instance or the checkpoints have proven everything up to there. A report
/// is up to a third of a lease old: one below the head says nothing about the positions between.
///
/// Refuses what [`Source::follow`] would refuse.
pub(crate) async fn proven_head(
    source: &dyn Source,
    reported: Option<Position>,
    proven: Position,
) -> Result<Option<Position>> {
    let Some(reported) = reported else {
        return Ok(None);
    };
    source.check().await?;
    let head = source.head().await?;
    Ok((reported.max(proven) == head).then_some(head))
}

/// Follows the rule of [`crate::mark`] from `proven` until the mark is where the head was, or the
/// time is over: then the gap says why.
pub(crate) async fn follow(
    source: &dyn Source,
    proven: Position,
    limit: Duration,
) -> Result<(Position, Option<Gap>)> {
    let mut follower = source.follow(proven).await?;
    let began = Instant::now();
    let mut head = None;
    loop {
        let step = follower.step().await?;
        if step.mark >= *head.get_or_insert(step.head) {
            return Ok((step.mark, None));
        }
        let Some(left) = limit.checked_sub(began.elapsed()) else {
            let gap = match step.gap {
                Some(open) => Some(explain(source, open).await?),
                None => None,
            };
            return Ok((step.mark, gap));
        };
        match step.again {
            Some(pause) => tokio::time::sleep(pause.max(PAUSE_MIN).min(left)).await,
            None => return Ok((step.mark, None)),
        }
    }
}

async fn explain(source: &dyn Source, open: OpenGap) -> Result<Gap> {
    let blocked_by = match source.postgres() {
        None => Vec::new(),
        Some(log) => {
            let holders = log.blockers(&open).await?;
            suspects(holders, log.recorded_after(open.to).await?)
        }
    };
    Ok(Gap {
        from: open.from,
        to: open.to,
        blocked_by,
    })
}

/// Leaves out transactions that cannot fill the gap: one that began after the event beyond it was
/// recorded draws higher numbers only. For a prepared one only the time of its preparation is
/// known, which proves nothing. If none is left, all are named: `recorded_at` may be set by the
/// appender, and one snapshot cannot distinguish that from a gap whose holder has ended.
fn suspects(holders: Vec<Blocker>, recorded: Option<Timestamp>) -> Vec<Blocker> {
    let Some(recorded) = recorded else {
        return holders;
    };
    let (later, suspects): (Vec<_>, Vec<_>) = holders
        .into_iter()
        .partition(|h| h.prepared.is_none() && h.since.is_some_and(|since| since > recorded));
    if suspects.is_empty() { later } else { suspects }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: i32, since: Option<i64>, prepared: Option<&str>) -> Blocker {
        Blocker {
            name: format!("{pid}/1"),
            pid: Some(pid),
            user: None,
            application: None,
            query: None,
            since: since.map(|s| Timestamp::from_second(s).expect("a time")),
            prepared: prepared.map(str::to_owned),
            state: None,
        }
    }

    fn pids(holders: Vec<Blocker>) -> Vec<Option<i32>> {
        holders.into_iter().map(|h| h.pid).collect()
    }

    #[test]
    fn who_began_after_the_event_beyond_the_gap_is_no_suspect() {
        let holders = vec![
            holder(1, Some(10), None),
            holder(2, Some(30), None),
            holder(3, None, None),
            holder(4, Some(30), Some("p")),
        ];
        let recorded = Timestamp::from_second(20).ok();
        let expected = [Some(1), Some(3), Some(4)];
        assert_eq!(pids(suspects(holders.clone(), recorded)), expected);
        assert_eq!(pids(suspects(holders, None)).len(), 4);
    }

    #[test]
    fn if_it_were_nobody_all_are_named() {
        let holders = vec![holder(1, Some(30), None), holder(2, Some(40), None)];
        let recorded = Timestamp::from_second(20).ok();
        assert_eq!(pids(suspects(holders, recorded)), [Some(1), Some(2)]);
    }
}
