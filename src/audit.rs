//! Compares what a log holds with what it held when it was read.
//!
//! **The evidence** is the blocks that instances store ([`crate::block`]). Below the mark nothing
//! may change: if a block holds other events now, some appeared below a position already passed,
//! for example because a number was drawn in one transaction and used in another, or some vanished.
//! An event that was removed on purpose, and recorded as such, is not a difference.
//!
//! **What it proves.** A block from the rows of a reader shows what runners saw. A block that was
//! counted later proves nothing about the time before. An audit cannot tell which event of a block
//! it is, nor whether a projection would have wanted it: so it names the read models that *may* be
//! affected. The proof of a read model is to build it again.
//!
//! **What it writes.** A change is recorded once, and the block is then compared with its present
//! events: a read model that was built after the change was found is not affected by it. Positions
//! that no block covers yet are counted, up to the highest checkpoint. A read-only role can audit
//! too.

mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

pub use crate::block::Change;
use crate::block::{Block, Tally};
use crate::engine::recorder::BlockCoverage;
use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::block::{self, AffectedGeneration, GenerationPosition};
use crate::pg::database::Database;
use crate::pg::projection::not_built;
use crate::position::Position;
use crate::source::{RemovedIn, Source};

/// How many blocks are read at once.
const BLOCKS_AT_ONCE: i64 = 1_000;

/// What an audit found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Audit {
    /// Every log that a read model was built from, by the name of its source.
    pub logs: Vec<AuditedLog>,
    /// Every read model, by name.
    pub read_models: Vec<ReadModel>,
}

/// A log, and how much of it was compared.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuditedLog {
    /// The name of the source.
    pub source: String,
    /// How many blocks were compared, and how many events they hold.
    pub blocks: u64,
    /// See `blocks`.
    pub events: u64,
    /// How many of these blocks were first counted after they had been read.
    pub counted_later: u64,
    /// How many blocks could not be compared, because some of the oldest events were removed on
    /// purpose.
    pub trimmed: u64,
    /// The source does not record what is removed on purpose: a removal counts as a change.
    pub removals_unknown: bool,
    /// Blocks that do not hold what they held, found by this audit.
    pub changes: Vec<Change>,
    /// The role may not write: the findings are not recorded.
    pub is_read_only: bool,
}

/// A build of a read model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadModel {
    /// The projection.
    pub projection: ProjectionName,
    /// The build.
    pub generation: i32,
    /// How far it is.
    pub position: Position,
    /// Its source is not the log that it was built from.
    pub is_other_log: bool,
    /// Blocks that changed after it had passed them, found now or earlier.
    pub concerned_by: Vec<Change>,
}

/// The comparison of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockVerdict {
    Same,
    /// Some of the oldest events were removed; only the position of the last one is known.
    Trimmed,
    /// It should hold as many events as `expected`.
    Changed {
        expected: Tally,
    },
}

/// Compares a block with its present events and with those removed from it on purpose.
fn compare(block: &Block, now: Tally, removed: &RemovedIn) -> BlockVerdict {
    if removed.through > block.range.after() {
        return BlockVerdict::Trimmed;
    }
    let expected = block.tally.without(&removed.others);
    match expected == now || block.tally == now {
        true => BlockVerdict::Same,
        false => BlockVerdict::Changed { expected },
    }
}

/// Audits the logs that one projection, or all, were built from.
///
/// # Errors
/// If there is no such projection, its source is none of these, or a database does not answer.
pub async fn audit(
    target: &Database,
    sources: &[Arc<dyn Source>],
    name: Option<&ProjectionName>,
) -> Result<Audit> {
    let passed = {
        let client = target.short().await?;
        client.within(block::passed(&client, name)).await?
    };
    if let (Some(name), []) = (name, passed.as_slice()) {
        return Err(not_built(name));
    }
    let mut identities = BTreeMap::new();
    for source in sources {
        identities.insert(source.name().to_owned(), source.identity().await?);
    }
    let mut logs = Vec::new();
    for (source, through) in furthest(&passed, &identities) {
        let is_source = |s: &&Arc<dyn Source>| s.name() == source;
        let found = sources.iter().find(is_source);
        let found = found.ok_or_else(|| no_source(&passed, &source))?;
        let identity = &identities[&source];
        logs.push(audit_log(target, &**found, identity, through).await?);
    }
    let client = target.short().await?;
    let concerns = client.within(block::concerns(&client, name)).await?;
    let read_models = read_models(&passed, &identities, &logs, &concerns);
    Ok(Audit { logs, read_models })
}

/// The sources that read models were built from, with the highest position that one has passed.
fn furthest(
    passed: &[GenerationPosition],
    identities: &BTreeMap<String, String>,
) -> BTreeMap<String, Position> {
    let mut furthest: BTreeMap<String, Position> = BTreeMap::new();
    for one in passed {
        let through = furthest.entry(one.source.clone()).or_default();
        if identities.get(&one.source) == Some(&one.identity) {
            *through = one.position.max(*through);
        }
    }
    furthest
}

fn no_source(passed: &[GenerationPosition], source: &str) -> Error {
    let reader = passed.iter().find(|one| one.source == source);
    let reader = reader.map_or("", |one| one.projection.as_str());
    let what =
        format!("projection \"{reader}\" reads the source \"{source}\", which is not configured");
    Error::new(ErrorKind::Config, what).with_hint("configure it, or name another projection")
}

async fn audit_log(
    target: &Database,
    source: &dyn Source,
    identity: &str,
    through: Position,
) -> Result<AuditedLog> {
    let mut log = AuditedLog {
        source: source.name().to_owned(),
        ..AuditedLog::default()
    };
    let mut after = None;
    loop {
        let blocks = {
            let client = target.short().await?;
            let listing = block::list(&client, identity, after, BLOCKS_AT_ONCE);
            client.within(listing).await?
        };
        let Some(last) = blocks.last() else { break };
        after = Some(last.range.after());
        for block in &blocks {
            audit_block(target, source, identity, block, &mut log).await?;
        }
    }
    cover_rest(target, source, identity, through, &mut log).await?;
    Ok(log)
}

async fn audit_block(
    target: &Database,
    source: &dyn Source,
    identity: &str,
    block: &Block,
    log: &mut AuditedLog,
) -> Result<()> {
    let removed = source.removed_in(block.range).await?;
    log.removals_unknown |= removed.is_none();
    let removed = removed.unwrap_or_default();
    let (_, now) = source.tally(block.range, u64::MAX).await?;
    match compare(block, now, &removed) {
        BlockVerdict::Trimmed => log.trimmed += 1,
        BlockVerdict::Same => {
            log.blocks += 1;
            log.events += now.events;
            log.counted_later += u64::from(block.counted_later);
        }
        BlockVerdict::Changed { expected } => {
            log.changes.push(Change {
                range: block.range,
                events_before: expected.events,
                events_now: now.events,
                found_at: Timestamp::now(),
            });
            let client = target.short().await?;
            let writing = client.within(block::changed(&client, identity, block, expected, now));
            unless_read_only(writing.await, log)?;
        }
    }
    Ok(())
}

/// Counts what no block covers yet.
async fn cover_rest(
    target: &Database,
    source: &dyn Source,
    identity: &str,
    through: Position,
    log: &mut AuditedLog,
) -> Result<()> {
    let mut coverage = BlockCoverage::new(identity.to_owned());
    while !log.is_read_only {
        match coverage.extend(target, source, through).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => unless_read_only(Err(error), log)?,
        }
    }
    Ok(())
}

/// A read-only role cannot record its findings, but it still reports them.
fn unless_read_only(written: Result<()>, log: &mut AuditedLog) -> Result<()> {
    match written {
        Err(error) if matches!(error.sqlstate(), Some("42501" | "25006")) => {
            log.is_read_only = true;
            Ok(())
        }
        written => written,
    }
}

fn read_models(
    passed: &[GenerationPosition],
    identities: &BTreeMap<String, String>,
    logs: &[AuditedLog],
    concerns: &[AffectedGeneration],
) -> Vec<ReadModel> {
    let read_model = |one: &GenerationPosition| {
        let is_other_log = identities.get(&one.source) != Some(&one.identity);
        let recorded = concerns.iter().filter(|concern| {
            concern.projection == one.projection && concern.generation == one.generation
        });
        let mut concerned_by: Vec<Change> =
            recorded.map(|concern| concern.change.clone()).collect();
        // A change that could not be recorded was found just now, and affects every generation that
        // has passed it.
        let unrecorded = logs
            .iter()
            .filter(|log| log.is_read_only && log.source == one.source && !is_other_log)
            .flat_map(|log| &log.changes)
            .filter(|change| one.position > change.range.after());
        concerned_by.extend(unrecorded.cloned());
        ReadModel {
            projection: one.projection.clone(),
            generation: one.generation,
            position: one.position,
            is_other_log,
            concerned_by,
        }
    };
    passed.iter().map(read_model).collect()
}

impl Audit {
    /// Whether every read model is correct as far as the evidence shows.
    pub fn agrees(&self) -> bool {
        let is_sound = |m: &ReadModel| !m.is_other_log && m.concerned_by.is_empty();
        self.read_models.iter().all(is_sound)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::position::Range;

    fn tally(ids: &[u128]) -> Tally {
        let mut tally = Tally::default();
        for id in ids {
            tally.add(Position::new(*id as i64), Uuid::from_u128(*id));
        }
        tally
    }

    #[test]
    fn a_block_is_the_same_if_only_what_was_removed_on_purpose_is_missing() {
        let block = Block {
            range: Range::new(Position::new(0), Position::new(10)),
            tally: tally(&[1, 2, 3]),
            counted_later: false,
        };
        let removed = |through: i64, others: &[u128]| RemovedIn {
            through: Position::new(through),
            others: others
                .iter()
                .map(|id| (Position::new(*id as i64), Uuid::from_u128(*id)))
                .collect(),
        };
        let changed = |expected: &[u128]| BlockVerdict::Changed {
            expected: tally(expected),
        };
        for (why, now, removed, verdict) in [
            (
                "nothing changed",
                tally(&[1, 2, 3]),
                removed(0, &[]),
                BlockVerdict::Same,
            ),
            (
                "one appeared",
                tally(&[1, 2, 3, 4]),
                removed(0, &[]),
                changed(&[1, 2, 3]),
            ),
            (
                "one vanished",
                tally(&[1, 3]),
                removed(0, &[]),
                changed(&[1, 2, 3]),
            ),
            (
                "one became another",
                tally(&[1, 2, 4]),
                removed(0, &[]),
                changed(&[1, 2, 3]),
            ),
            (
                "one was removed",
                tally(&[1, 3]),
                removed(0, &[2]),
                BlockVerdict::Same,
            ),
            (
                "another one vanished",
                tally(&[1, 2]),
                removed(0, &[2]),
                changed(&[1, 3]),
            ),
            (
                "it was removed before it was counted",
                tally(&[1, 2, 3]),
                removed(0, &[4]),
                BlockVerdict::Same,
            ),
            (
                "the oldest were removed",
                tally(&[3]),
                removed(2, &[]),
                BlockVerdict::Trimmed,
            ),
            (
                "all were removed",
                tally(&[]),
                removed(10, &[]),
                BlockVerdict::Trimmed,
            ),
        ] {
            assert_eq!(compare(&block, now, &removed), verdict, "{why}");
        }
    }
}
