//! Recounts the ledgers from their sources.
//!
//! **Who is authoritative.** The source says what events there are, the ledger what was made of
//! them. At or below a checkpoint neither changes any more, so runners may go on meanwhile.
//!
//! **What a difference means.** More events than were scanned: some appeared below the mark after
//! it had passed them, as numbers do that were drawn in one transaction and used in another. Fewer:
//! some are gone, and it is not written down that they were removed. It cannot be told which ones:
//! nothing but their number was kept. Of the oldest events that were removed only the last position
//! is written down: where a ledger begins below it, it cannot be told whether a shortfall is theirs.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::checkpoint::Counted;
use crate::pg::database::Database;
use crate::pg::{self, column_named};
use crate::position::{Position, Range};
use crate::projection::Definition;
use crate::source::{Filter, Keys, Parked, Partition, RemovedIn, Source};

/// How many positions one statement counts: it ends within seconds, and a log of any length is
/// counted without one that runs for long.
const COUNTED_AT_ONCE: u64 = 1_000_000;

/// What an audit found.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Every ledger, by projection, generation, layout and partition.
    pub ledgers: Vec<Ledger>,
}

/// One ledger, and what a recount gave.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The projection.
    pub projection: ProjectionName,
    /// The build of its read model.
    pub generation: i32,
    /// Which number of partitions in turn it had then.
    pub layout: i32,
    /// The partition.
    pub partition: Partition,
    /// The positions that it covers.
    pub range: Range,
    /// What it says.
    pub sums: Sums,
    /// What there is.
    pub found: Found,
    /// In what the two differ; empty if they agree.
    pub differences: Vec<Difference>,
}

/// What a ledger says became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All events of the range.
    pub scanned: u64,
    /// Those that are in the read model.
    pub applied: u64,
    /// Those of other types or partitions.
    pub filtered: u64,
    /// Those that are set aside.
    pub parked: u64,
    /// Those that were given up.
    pub discarded: u64,
}

/// What a recount found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// All events of the range.
    pub scanned: u64,
    /// Those of the projection's types and the partition; `None` if its definition is not known.
    pub own: Option<u64>,
    /// The dead letters.
    pub letters: u64,
    /// What was removed from the log on purpose.
    pub removed: RemovedIn,
}

/// In what a ledger and a recount differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// So many events appeared after they had been passed.
    Appeared(u64),
    /// So many events are not in the log any more, and nothing says that they were removed.
    Gone(u64),
    /// The events of the partition were counted as so many, and are so many.
    Own(u64, u64),
    /// So many were set aside, and so many dead letters are there.
    Letters(u64, u64),
    /// The source is another log than the one that was counted.
    OtherLog,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Appeared(1) => f.write_str(
                "1 event appeared after its position had been passed, and is not in the read model",
            ),
            Difference::Appeared(n) => write!(
                f,
                "{n} events appeared after their positions had been passed, and are not in the read model"
            ),
            Difference::Gone(1) => {
                f.write_str("1 event that was scanned is gone, and was not removed on purpose")
            }
            Difference::Gone(n) => {
                write!(
                    f,
                    "{n} events that were scanned are not in the log any more"
                )
            }
            Difference::Own(counted, found) => write!(
                f,
                "{counted} events of its types and keys were applied, parked or discarded, and the log has {found}"
            ),
            Difference::Letters(counted, found) => {
                write!(
                    f,
                    "{counted} events were parked, and {found} dead letters are there"
                )
            }
            Difference::OtherLog => {
                f.write_str("the source is another log than the one it was built from")
            }
        }
    }
}

impl Difference {
    /// What to do about it.
    fn hint(&self, name: &ProjectionName) -> String {
        match self {
            Difference::Gone(_) => {
                format!("bring them back, or highwater rebuild {name} builds it from what is there")
            }
            Difference::OtherLog => {
                format!("connect to the database it was built from, or highwater rebuild {name}")
            }
            _ => format!("highwater rebuild {name}"),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Difference::Appeared(_) => "appeared",
            Difference::Gone(_) => "gone",
            Difference::Own(..) => "own",
            Difference::Letters(..) => "letters",
            Difference::OtherLog => "other_log",
        }
    }
}

/// A ledger as it is stored.
struct Stored {
    ledger: Ledger,
    source: String,
    hash: Option<String>,
    identity: Option<String>,
}

/// Recounts the ledgers of one projection, or of all, from `sources`; `known` are the definitions
/// that are at hand.
///
/// # Errors
/// If there is no such projection, its source is none of these, or a database does not answer.
pub async fn audit(
    target: &Database,
    sources: &[Arc<dyn Source>],
    known: &[Definition],
    name: Option<&ProjectionName>,
) -> Result<Audit> {
    let mut identities = HashMap::new();
    for source in sources {
        identities.insert(source.name().to_owned(), source.identity().await?);
    }
    let mut ledgers = Vec::new();
    for stored in read(target, name).await? {
        let is_source = |s: &&Arc<dyn Source>| s.name() == stored.source;
        let source = sources.iter().find(is_source);
        let source = source.ok_or_else(|| no_source(&stored))?;
        if stored.identity.is_some() && stored.identity.as_ref() != identities.get(&stored.source) {
            let mut ledger = stored.ledger;
            ledger.differences = vec![Difference::OtherLog];
            ledgers.push(ledger);
            continue;
        }
        let is_definition = |d: &&Definition| {
            d.name == stored.ledger.projection && Some(&d.hash) == stored.hash.as_ref()
        };
        let definition = known.iter().find(is_definition);
        ledgers.push(recount(stored.ledger, &**source, definition).await?);
    }
    if let (Some(name), []) = (name, ledgers.as_slice()) {
        let what = format!("projection \"{name}\" has no read model here");
        return Err(Error::new(ErrorKind::NotFound, what)
            .with_hint(format!("highwater run {name} builds it")));
    }
    Ok(Audit { ledgers })
}

fn no_source(stored: &Stored) -> Error {
    let what = format!(
        "projection \"{}\" reads the source \"{}\", which is not configured",
        stored.ledger.projection, stored.source
    );
    Error::new(ErrorKind::Config, what).with_hint("configure it, or name another projection")
}

async fn recount(
    mut ledger: Ledger,
    source: &dyn Source,
    definition: Option<&Definition>,
) -> Result<Ledger> {
    let filter = definition.map_or(Filter::ALL, |definition| Filter {
        types: definition.events.as_deref(),
        keys: Keys {
            key: &definition.key,
            partition: ledger.partition,
            parked: Parked::With,
        },
    });
    let counted = count(source, ledger.range, filter).await?;
    ledger.found.scanned = counted.scanned;
    ledger.found.own = definition.map(|_| counted.own);
    ledger.found.removed = source.removed_in(ledger.range).await?;
    ledger.differences = differences(&ledger);
    Ok(ledger)
}

async fn count(source: &dyn Source, range: Range, filter: Filter<'_>) -> Result<Counted> {
    let (mut sum, mut from) = (Counted::default(), range.after());
    while from < range.through() {
        let through = from.forward(COUNTED_AT_ONCE).min(range.through());
        let part = source.count(Range::new(from, through), filter).await?;
        sum.scanned += part.scanned;
        sum.own += part.own;
        from = through;
    }
    Ok(sum)
}

fn differences(ledger: &Ledger) -> Vec<Difference> {
    let (sums, found) = (&ledger.sums, &ledger.found);
    let mut differences = Vec::new();
    if found.scanned > sums.scanned {
        differences.push(Difference::Appeared(found.scanned - sums.scanned));
    }
    let gone = ledger.gone();
    let unexplained = gone.saturating_sub(found.removed.others);
    // A position has one event at most, so no more than these can have been removed.
    let certain = unexplained.saturating_sub(ledger.trimmed_max());
    if certain > 0 {
        differences.push(Difference::Gone(certain));
    }
    let own = sums.applied + sums.parked + sums.discarded;
    if let Some(found_own) = found.own
        && (found_own > own || (found_own < own && gone == 0))
    {
        differences.push(Difference::Own(own, found_own));
    }
    if found.letters != sums.parked {
        differences.push(Difference::Letters(sums.parked, found.letters));
    }
    differences
}

async fn read(target: &Database, name: Option<&ProjectionName>) -> Result<Vec<Stored>> {
    let client = target.short().await?;
    let sql = include_str!("../sql/queries/audit/ledgers.sql");
    let name = name.map(ProjectionName::as_str);
    let reading = async {
        let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await;
        rows.map_err(|e| pg::own_error("cannot read the ledgers", e))
    };
    client.within(reading).await?.iter().map(stored).collect()
}

fn stored(row: &Row) -> Result<Stored> {
    let count = |name| Ok(column_named::<i64>(row, name)?.unsigned_abs());
    let position = |name| Ok(Position::new(column_named(row, name)?));
    let ledger = Ledger {
        projection: column_named::<String>(row, "name")?.parse()?,
        generation: column_named(row, "generation")?,
        layout: column_named(row, "layout")?,
        partition: Partition {
            number: column_named(row, "partition")?,
            of: column_named(row, "partitions")?,
        },
        range: Range::new(position("counted_from")?, position("counted_to")?),
        sums: Sums {
            scanned: count("scanned")?,
            applied: count("applied")?,
            filtered: count("filtered")?,
            parked: count("parked")?,
            discarded: count("discarded")?,
        },
        found: Found {
            scanned: 0,
            own: None,
            letters: count("letters")?,
            removed: RemovedIn::default(),
        },
        differences: Vec::new(),
    };
    Ok(Stored {
        ledger,
        source: column_named(row, "source")?,
        hash: column_named(row, "hash")?,
        identity: column_named(row, "source_identity")?,
    })
}

impl Audit {
    /// Whether every ledger agrees with its recount.
    pub fn agrees(&self) -> bool {
        self.ledgers.iter().all(|l| l.differences.is_empty())
    }

    /// As text: a line for each ledger, and one for each difference.
    pub fn render(&self) -> String {
        self.ledgers.iter().map(Ledger::render).collect()
    }

    /// As `--json` prints it.
    pub fn to_json(&self) -> Value {
        let ledgers: Vec<Value> = self.ledgers.iter().map(Ledger::to_json).collect();
        json!({ "agrees": self.agrees(), "ledgers": ledgers })
    }
}

impl Ledger {
    /// How many events that were scanned are not in the log any more.
    fn gone(&self) -> u64 {
        self.sums.scanned.saturating_sub(self.found.scanned)
    }

    /// How many of its positions lie among the oldest events that were removed: nothing says how many
    /// of these were events.
    fn trimmed_max(&self) -> u64 {
        let end = self.found.removed.through.min(self.range.through());
        end.since(self.range.after())
    }

    /// Of how many that are gone it cannot be told whether they were removed on purpose.
    fn untold(&self) -> u64 {
        // What lies wholly among the oldest events that were removed was removed with them.
        let is_trimmed = self.found.removed.through >= self.range.through();
        match is_trimmed || !self.differences.is_empty() {
            true => 0,
            false => self.gone().saturating_sub(self.found.removed.others),
        }
    }

    fn place(&self) -> String {
        let Partition { number, of } = self.partition;
        let mut place = self.projection.to_string();
        if of > 1 {
            place += &format!(" partition {number} of {of}");
        }
        place
    }

    fn render(&self) -> String {
        let Sums {
            scanned,
            applied,
            filtered,
            parked,
            discarded,
        } = self.sums;
        let place = self.place();
        let removed = self.gone();
        let verdict = match (self.differences.is_empty(), self.found.own) {
            (false, _) => String::new(),
            (true, _) if self.untold() > 0 => format!(
                ": {removed} of these are not in the log any more; events up to {} were removed, and \
                 whether {} of the {removed} were among them cannot be told",
                self.found.removed.through,
                self.untold()
            ),
            (true, _) if removed > 0 => {
                format!(": as the log says, from which {removed} were removed since")
            }
            (true, Some(_)) => ": as the log says".to_owned(),
            (true, None) => {
                ": the log has as many; whose they are is not known without its file".to_owned()
            }
        };
        let mut text = format!(
            "{place}: positions {}, {scanned} scanned = {applied} applied + {filtered} filtered + \
             {parked} parked + {discarded} discarded{verdict}\n",
            self.range
        );
        for difference in &self.differences {
            let hint = difference.hint(&self.projection);
            text += &format!("{place}: {difference}; {hint}\n");
        }
        text
    }

    fn to_json(&self) -> Value {
        let differences = self.differences.iter().map(|difference| {
            json!({
                "kind": difference.word(),
                "message": difference.to_string(),
                "hint": difference.hint(&self.projection),
            })
        });
        json!({
            "name": self.projection,
            "generation": self.generation,
            "layout": self.layout,
            "partition": self.partition.number,
            "partitions": self.partition.of,
            "after": self.range.after(),
            "through": self.range.through(),
            "scanned": self.sums.scanned,
            "applied": self.sums.applied,
            "filtered": self.sums.filtered,
            "parked": self.sums.parked,
            "discarded": self.sums.discarded,
            "found": {
                "scanned": self.found.scanned,
                "own": self.found.own,
                "letters": self.found.letters,
                "removed_through": self.found.removed.through,
                "removed_others": self.found.removed.others,
            },
            "cannot_be_told": self.untold(),
            "differences": differences.collect::<Vec<_>>(),
        })
    }
}
