//! Which events of a range are wanted: by type, by the partition of their key, parked or not.

use crate::error::Result;
use crate::key_hash;
use crate::name::ProjectionName;
use crate::pg::sql::{Sql, sql};
use crate::source::Types;

/// The key of an event: what order and parking are per. `None` is the key null.
pub type EventKey = Option<String>;

/// Which events of a range are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The types wanted.
    pub types: Types<'a>,
    /// The keys wanted.
    pub keys: Keys<'a>,
}

/// Which keys are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// The key as a SQL expression over the columns of an event.
    pub key: &'a str,
    /// The partition whose keys are wanted.
    pub partition: Partition,
    /// How parked keys are treated.
    pub parked: Parked<'a>,
}

/// One of several partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 0.
    pub number: i32,
    /// How many there are.
    pub of: i32,
}

/// How parked keys are treated.
#[derive(Clone, Copy, Debug)]
pub enum Parked<'a> {
    /// They are treated like all others.
    With,
    /// These are left out.
    Without(&'a [EventKey]),
    /// Only these are wanted.
    Only(&'a [EventKey]),
}

impl<'a> Filter<'a> {
    /// Every event of every key.
    pub const ALL: Filter<'static> = Filter {
        types: None,
        keys: Keys::ALL,
    };

    /// The events of these types, of every key.
    pub fn of_types(types: Types<'a>) -> Filter<'a> {
        Filter {
            types,
            keys: Keys::ALL,
        }
    }

    /// The same with another treatment of parked keys.
    #[must_use]
    pub fn parked(self, parked: Parked<'a>) -> Filter<'a> {
        let keys = Keys {
            parked,
            ..self.keys
        };
        Filter { keys, ..self }
    }
}

impl Partition {
    /// The only one.
    pub const WHOLE: Partition = Partition { number: 0, of: 1 };

    /// Whether a key belongs to it.
    pub fn holds(self, key: Option<&str>) -> bool {
        self.of <= 1 || key_hash::partition_of(key, self.of) == self.number
    }
}

impl<'a> Keys<'a> {
    /// The key of a projection without one of its own.
    pub const STREAM: &'static str = "stream";

    /// Every key.
    pub const ALL: Keys<'static> = Keys {
        key: Keys::STREAM,
        partition: Partition::WHOLE,
        parked: Parked::With,
    };

    /// Whether an event of this key is wanted.
    pub fn want(&self, key: &EventKey) -> bool {
        self.partition.holds(key.as_deref())
            && match self.parked {
                Parked::With => true,
                Parked::Without(parked) => !parked.contains(key),
                Parked::Only(parked) => parked.contains(key),
            }
    }

    /// The parked keys that are named.
    pub fn named(&self) -> &'a [EventKey] {
        match self.parked {
            Parked::With => &[],
            Parked::Without(parked) | Parked::Only(parked) => parked,
        }
    }

    /// The key over the columns of an event.
    pub(crate) fn expression(&self) -> Result<Sql> {
        Sql::expression(self.key)
    }

    /// The condition for the partition, over the columns of an event; it needs no function in the
    /// server.
    pub(crate) fn in_partition(&self) -> Result<Sql> {
        if self.partition.of <= 1 {
            return Ok(Sql::trusted("true"));
        }
        // The planner would expect few rows from a comparison like this, and half of them from a
        // CASE.
        Ok(sql!(
            "case when {belongs_to} = {number} then true else false end",
            belongs_to = self.number()?,
            number = Sql::number(self.partition.number),
        ))
    }

    /// The number of an event's partition: as highwater.partition_of, which a source elsewhere may
    /// lack.
    fn number(&self) -> Result<Sql> {
        let of = self.partition.of;
        let hash = sql!(
            "hashtextextended({key}::text collate \"C\", 0)",
            key = self.expression()?
        );
        let remainder = match of.count_ones() == 1 {
            true => sql!("{hash} & {mask}", hash = hash, mask = Sql::number(of - 1)),
            false => sql!(
                "({hash} & 9223372036854775807) % {of}",
                hash = hash,
                of = Sql::number(of)
            ),
        };
        Ok(sql!("coalesce({remainder}, 0)", remainder = remainder))
    }

    /// The condition for parked keys, where `parameter` is a list made by [`Keys::listed`].
    pub(crate) fn by_list(&self, parameter: &'static str) -> Result<Sql> {
        let is_listed = sql!(
            "{marked} = any({parameter}::text[])",
            marked = self.marked()?,
            parameter = Sql::trusted(parameter)
        );
        Ok(match self.parked {
            Parked::With | Parked::Without([]) => Sql::trusted("true"),
            Parked::Without(_) => sql!("not ({is_listed})", is_listed = is_listed),
            Parked::Only(_) => is_listed,
        })
    }

    /// Keys as [`Keys::by_list`] compares them.
    pub(crate) fn listed(keys: &[EventKey]) -> Vec<String> {
        let marked = |key: &EventKey| key.as_ref().map_or(String::new(), |key| format!("={key}"));
        keys.iter().map(marked).collect()
    }

    /// The condition for a key that is parked, where the dead letters are in the same database.
    pub(crate) fn is_parked(&self, projection: &ProjectionName, generation: i32) -> Result<Sql> {
        // Not correlated, so the server looks the keys up once and hashes them.
        Ok(sql!(
            "{marked} in (select coalesce('=' || d.key, '') from highwater.dead_letter d \
             where d.projection = {projection} and d.generation = {generation})",
            marked = self.marked()?,
            projection = Sql::literal(projection.as_str()),
            generation = Sql::number(generation),
        ))
    }

    /// The key, encoded so that null is a value of its own.
    fn marked(&self) -> Result<Sql> {
        Ok(sql!(
            "coalesce('=' || {key}::text collate \"C\", '')",
            key = self.expression()?
        ))
    }
}
