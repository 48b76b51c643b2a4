//! `batch` inside the server: a definition with the literal range in front of each statement.
//!
//! The view of that name shows the same and takes the range from settings, which the planner does
//! not know; functions and statements that take no `with` read it.

use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg::checkpoint::Key;
use crate::pg::sql::{Sql, query, sql};
use crate::position::Range;
use crate::projection::Statements;
use crate::source::{Filter, Types};

/// Which rows of a relation are a batch.
pub(in crate::engine) struct BatchText<'a> {
    pub(in crate::engine) relation: Sql,
    pub(in crate::engine) filter: Filter<'a>,
    pub(in crate::engine) projection: &'a ProjectionName,
    pub(in crate::engine) generation: i32,
}

impl BatchText<'_> {
    /// The batch: the wanted events of the partition, without parked keys.
    fn free(&self, range: Range) -> Result<Sql> {
        let parked = match self.filter.keys.named() {
            [] => Sql::trusted("true"),
            _ => sql!("not ({parked})", parked = self.parked()?),
        };
        query!("apply/batch.sql").fill(&[
            ("events", &self.relation),
            ("after", &Sql::number(range.after().get())),
            ("through", &Sql::number(range.through().get())),
            ("types", &of_types(self.filter.types)),
            ("partition", &self.filter.keys.in_partition()?),
            ("parked", &parked),
            ("barrier", &self.barrier()),
        ])
    }

    /// Keeps conditions of the projection away from events that are not in the batch.
    fn barrier(&self) -> Sql {
        let Filter { types, keys } = self.filter;
        let is_all = types.is_none() && keys.partition.of <= 1 && keys.named().is_empty();
        Sql::trusted(if is_all { "" } else { "offset 0" })
    }

    /// The statement that stores the events of parked keys in the range as dead letters, `most` at
    /// most.
    pub(super) fn park_events(&self, range: Range, key: &Key, most: u64) -> Result<Sql> {
        query!("apply/park.sql").fill(&[
            ("events", &self.relation),
            ("after", &Sql::number(range.after().get())),
            ("through", &Sql::number(range.through().get())),
            ("types", &of_types(self.filter.types)),
            ("partition", &self.filter.keys.in_partition()?),
            ("parked", &self.parked()?),
            ("key", &self.filter.keys.expression()?),
            ("projection", &Sql::literal(key.projection.as_str())),
            ("generation", &Sql::number(key.generation)),
            ("most", &Sql::number(most)),
        ])
    }

    fn parked(&self) -> Result<Sql> {
        self.filter.keys.is_parked(self.projection, self.generation)
    }
}

/// The condition for the types.
pub(in crate::engine) fn of_types(types: Types<'_>) -> Sql {
    match types {
        None => Sql::trusted("true"),
        Some(types) => {
            let types = Sql::join(types.iter().map(|name| Sql::literal(name)), ", ");
            sql!("e.type in ({types})", types = types)
        }
    }
}

/// The statements of a projection with `batch` defined in them.
pub(super) struct RewrittenSql {
    pub(super) text: Sql,
    /// Where text was inserted, and how much of it: counted in characters of the original text.
    inserted: Vec<(usize, usize)>,
}

impl RewrittenSql {
    pub(super) fn of(
        statements: &Statements<'_>,
        batch: &BatchText<'_>,
        range: Range,
    ) -> Result<RewrittenSql> {
        let definition = sql!(
            "batch as not materialized (\n{batch}\n)",
            batch = batch.free(range)?
        );
        let (mut parts, mut inserted) = (Vec::new(), Vec::new());
        let (mut rest, mut taken, mut characters) = (statements.text, 0, 0);
        for place in statements.batch {
            let Some((before, after)) = rest.split_at_checked(place.at - taken) else {
                continue;
            };
            let insert = match place.joins {
                true => sql!(" {definition},", definition = definition),
                false => sql!("with {definition} ", definition = definition),
            };
            characters += before.chars().count();
            inserted.push((characters, insert.chars().count()));
            parts.extend([Sql::of_projection(before), insert]);
            (rest, taken) = (after, place.at);
        }
        parts.push(Sql::of_projection(rest));
        let text = Sql::join(parts, "");
        Ok(RewrittenSql { text, inserted })
    }

    /// The character of the projection's own text that is at `at` in this text.
    pub(super) fn origin(&self, at: usize) -> usize {
        let mut before = 0;
        for (place, length) in &self.inserted {
            let begins = place + before;
            if at < begins {
                break;
            }
            if at < begins + length {
                return *place;
            }
            before += length;
        }
        at - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::projection::DynProjection;
    use crate::projection::SqlProjection;
    use crate::projection::file::ProjectionFile;

    fn rewritten(apply: &str) -> (String, RewrittenSql) {
        let text = format!("-- highwater: apply\n{apply}");
        let file = ProjectionFile::parse("p.sql".as_ref(), &text).unwrap();
        let projection = SqlProjection::new(file);
        let statements = projection.statements().unwrap();
        let batch = BatchText {
            relation: Sql::trusted("highwater.event"),
            filter: Filter::ALL,
            projection: &projection.definition().name,
            generation: 1,
        };
        let range = Range::new(Position::new(3), Position::new(7));
        let rewritten = RewrittenSql::of(&statements, &batch, range).unwrap();
        (statements.text.to_owned(), rewritten)
    }

    /// The rewritten text with the definition of `batch` cut down to `@`.
    fn short(apply: &str) -> String {
        let (_, rewritten) = rewritten(apply);
        let mut text = rewritten
            .text
            .trim_end()
            .trim_end_matches(';')
            .trim_end()
            .to_owned();
        while let Some(from) = text.find("batch as not materialized (\n") {
            let to = from + text[from..].find("\n)").unwrap() + 2;
            text.replace_range(from..to, "@");
        }
        text
    }

    #[test]
    fn batch_is_defined_where_a_statement_can_take_it_and_names_it() {
        for (apply, expected) in [
            ("select 1 from batch", "with @ select 1 from batch"),
            ("(table batch)", "with @ (table batch)"),
            (
                "insert into t select 1 from \"batch\"",
                "with @ insert into t select 1 from \"batch\"",
            ),
            (
                "with x as (select 1 from BATCH) select 1",
                "with @, x as (select 1 from BATCH) select 1",
            ),
            (
                "with recursive x as (select 1 from batch) select 1",
                "with recursive @, x as (select 1 from batch) select 1",
            ),
            (
                "with x as (select 1), y as (select 1) select 1 from x, batch as b (c)",
                "with @, x as (select 1), y as (select 1) select 1 from x, batch as b (c)",
            ),
            (
                "with x as (with batch as (select 1) table batch) select 1",
                "with @, x as (with batch as (select 1) table batch) select 1",
            ),
            (
                "with batch as (select 1) select 1 from batch",
                "with batch as (select 1) select 1 from batch",
            ),
            (
                "with x as (select 1), batch (a, b) as materialized (select 1, 2) select 1",
                "with x as (select 1), batch (a, b) as materialized (select 1, 2) select 1",
            ),
            ("delete from t", "delete from t"),
            ("select 'batch'", "select 'batch'"),
            ("select 1 from s.batch", "select 1 from s.batch"),
            (
                "create temp table b as select 1 from batch",
                "create temp table b as select 1 from batch",
            ),
            (
                "do $$ begin perform 1 from batch; end $$",
                "do $$ begin perform 1 from batch; end $$",
            ),
        ] {
            assert_eq!(short(apply), expected, "{apply}");
        }
    }

    #[test]
    fn each_character_is_led_back_to_where_it_stands_in_the_file() {
        let apply = "select 'ä' from batch;\n\nwith x as (select 1)\nselect 2 from x, batch;";
        let (own, rewritten) = rewritten(apply);
        let (own, text): (Vec<char>, Vec<char>) =
            (own.chars().collect(), rewritten.text.chars().collect());
        let mut found = vec![false; own.len()];
        for (at, character) in text.iter().enumerate() {
            let origin = rewritten.origin(at);
            let inside = rewritten.origin(at + 1) == origin;
            if !inside {
                assert_eq!(own[origin], *character, "at {at}");
                found[origin] = true;
            }
        }
        assert!(found.iter().all(|found| *found), "{found:?}");
    }
}
