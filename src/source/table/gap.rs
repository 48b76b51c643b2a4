//! How a dead gap is distinguished from a live one: a snapshot of the locks, and who holds them.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::error::{Error, ErrorKind, Result};
use crate::mark::Holder;
use crate::pg::sql::{Sql, query};
use crate::pg::{self, Parameter, column, column_named};
use crate::position::Position;
use crate::retry::{Verdict, verdict};
use crate::source::Blocker;

use super::EventTable;

/// Which transactions may still fill a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapPolicy {
    /// Those that hold the lock on the sequence that the position comes from: exactly the
    /// appenders. `named` is the sequence as SQL text where a trigger draws the number and the
    /// catalogue cannot tell.
    Sequence {
        /// The sequence, or `None` to find it through the column's default.
        named: Option<String>,
    },
    /// Those that hold the write lock on the table, its partitions or its children: right where
    /// the number is drawn by the INSERT itself.
    Table,
    /// Every other transaction of the database.
    Transactions,
    /// None: the store's own locking makes positions dense in the order of commits.
    Dense,
}

/// Who holds the locks at one moment, and where the positions come from.
#[derive(Default)]
pub(super) struct LockSnapshot {
    pub(super) holders: Vec<Holder>,
    /// The sequence that the positions come from, where the policy goes by one.
    pub(super) sequence: Option<String>,
}

/// Reads the locks and the preconditions of the proof. Send it only after the statement that read
/// the rows has been answered.
pub(super) async fn snapshot(
    client: &Client,
    relation: &str,
    policy: &GapPolicy,
) -> Result<LockSnapshot> {
    let table = (&relation as &Parameter<'_>, Type::TEXT);
    let row = match policy {
        GapPolicy::Dense => return Ok(LockSnapshot::default()),
        GapPolicy::Sequence { named } => {
            let sql = include_str!("../../../sql/queries/mark/locks_of_sequence.sql");
            let column: &Parameter<'_> = &"position";
            let parameters = [table, (column, Type::TEXT), (named, Type::TEXT)];
            client.query_typed_opt(sql, &parameters).await
        }
        GapPolicy::Table => {
            let sql = include_str!("../../../sql/queries/mark/locks_of_table.sql");
            client.query_typed_opt(sql, &[table]).await
        }
        GapPolicy::Transactions => {
            let sql = include_str!("../../../sql/queries/mark/locks_of_transactions.sql");
            client.query_typed_opt(sql, &[table]).await
        }
    }
    .map_err(|e| pg::error("cannot read the locks of the event table", e))?;
    let Some(row) = row else {
        return Err(broken(
            relation,
            "is not there, or has no column \"position\"",
            "name another table, or run highwater init",
        ));
    };
    check(&row, relation, policy)?;
    let names: Vec<String> = column_named(&row, "holders")?;
    Ok(LockSnapshot {
        holders: names.into_iter().map(holder).collect(),
        sequence: match policy {
            GapPolicy::Sequence { .. } => column_named(&row, "sequence")?,
            _ => None,
        },
    })
}

/// The broken precondition, if that is why the rows could not be read; else `error` itself.
pub(super) async fn why(client: &Client, table: &EventTable, error: Error) -> Error {
    if verdict(error.kind()) == Verdict::Transient {
        return error;
    }
    match snapshot(client, &table.relation, &table.gap).await {
        Err(found) if found.kind() == ErrorKind::Precondition => found,
        _ => error,
    }
}

/// The last number that a sequence gave.
pub(super) async fn last_value(
    client: &Client,
    relation: &str,
    sequence: &str,
) -> Result<Position> {
    let sql = query!("mark/sequence_value.sql").fill(&[("sequence", &Sql::trusted("$1"))])?;
    let row = client
        .query_typed_opt(&sql, &[(&sequence, Type::TEXT)])
        .await
        .map_err(|e| pg::own_error("cannot read the sequence of the event table", e))?;
    let Some(row) = row else {
        return Err(other_sequence(relation, None));
    };
    match column::<Option<i64>>(&row, 0)? {
        Some(last) => Ok(Position::new(last)),
        None => Err(unreadable_sequence(sequence)),
    }
}

/// Numbers of the old sequence may still be in use, but its lock would no longer be read.
pub(super) fn other_sequence(relation: &str, found: Option<String>) -> Error {
    let found = found.as_deref().unwrap_or("none");
    broken(
        relation,
        &format!("uses a different sequence than at start: {found}"),
        "run again when every transaction that used the old one has ended",
    )
}

/// A position that went back could not be detected.
fn unreadable_sequence(sequence: &str) -> Error {
    let what = format!("this role may not read the sequence {sequence}");
    let hint = format!("as its owner, run: grant select on sequence {sequence} to it");
    Error::new(ErrorKind::Database, what).with_hint(hint)
}

fn holder(text: String) -> Holder {
    let name = text.strip_suffix(" prepared");
    Holder {
        prepared: name.is_some(),
        name: name.map_or(text.clone(), str::to_owned),
    }
}

/// The preconditions: refused by name, at the start and with every snapshot, because they can
/// change.
fn check(row: &Row, relation: &str, policy: &GapPolicy) -> Result<()> {
    if column_named(row, "subscribed")? {
        return Err(broken(
            relation,
            "is the target of a logical replication, which applies positions in the order of \
             commits",
            "read the events from the publisher",
        ));
    }
    if column_named(row, "row_security")? {
        return Err(broken(
            relation,
            "has row level security for this role, and a hidden row would look rolled back",
            "connect as the owner of the table or as a role with BYPASSRLS",
        ));
    }
    match policy {
        GapPolicy::Sequence { named } => check_sequence(row, relation, named.as_deref()),
        _ => Ok(()),
    }
}

fn check_sequence(row: &Row, relation: &str, named: Option<&str>) -> Result<()> {
    let Some(sequence) = column_named::<Option<String>>(row, "sequence")? else {
        if let Some(named) = named {
            return Err(broken(
                relation,
                &format!("names the sequence \"{named}\", which does not exist"),
                "correct the name, with its schema",
            ));
        }
        return Err(broken(
            relation,
            "has no sequence for its position in the catalogue",
            "give the column an identity or a nextval default, name the sequence, or choose \
             another gap policy",
        ));
    };
    let cache: i64 = column_named(row, "cache")?;
    let increment: i64 = column_named(row, "increment")?;
    let minimum: i64 = column_named(row, "minimum")?;
    let (fault, setting) = if cache != 1 {
        let fault = format!("has CACHE {cache}: a session uses numbers that it drew long before");
        (fault, "CACHE 1")
    } else if increment < 1 {
        let fault = format!("has INCREMENT {increment}: positions would fall");
        (fault, "INCREMENT 1")
    } else if minimum < 1 {
        let fault = format!("has MINVALUE {minimum}: positions start at 1");
        (fault, "MINVALUE 1")
    } else if column_named(row, "cycles")? {
        (
            "has CYCLE: positions would come again".to_owned(),
            "NO CYCLE",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Precondition,
        format!("the sequence {sequence} of {relation} {fault}"),
    )
    .with_hint(format!("alter sequence {sequence} {setting}")))
}

fn broken(relation: &str, what: &str, hint: &str) -> Error {
    Error::new(ErrorKind::Precondition, format!("{relation} {what}")).with_hint(hint)
}

/// The transactions with these names.
pub(super) async fn explain(client: &Client, names: &[String]) -> Result<Vec<Blocker>> {
    let sql = include_str!("../../../sql/queries/mark/explain.sql");
    let rows = client
        .query_typed(sql, &[(&names, Type::TEXT_ARRAY)])
        .await
        .map_err(|e| pg::error("cannot read who holds the mark", e))?;
    rows.iter().map(Blocker::read).collect()
}
