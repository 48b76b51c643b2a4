//! Dead letters, from outside: list, show, retry, discard.
//!
//! **Who is authoritative.** The rows of `highwater.dead_letter`: a key is parked while it has one.
//! The first dead letter of a key blocks the key; the others wait behind it.
//!
//! **Who acts.** [`retry`] only requests: the runner of the partition applies the dead letters of a
//! key in the order of their positions, under its fence. [`discard`] acts by itself, under the lock
//! of the partition's checkpoint; the runner notices that the parked keys have changed and reads
//! them again.

mod act;
mod list;

use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::database::Database;
use crate::pg::{self, Parameter, column, projection};
use crate::suggest;

pub use act::{Discarded, Requested, discard, retry};
pub use list::{
    ByError, ByKey, DeadLetter, ErrorGroup, FullDeadLetter, Listed, ParkedKey, Shown, by_error,
    by_key, show,
};

/// A selection of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those of this key; `None` is the key null.
    Key(Option<String>),
    /// The dead letter of this event.
    Event(Uuid),
    /// Those whose errors have this fingerprint.
    Fingerprint(String),
}

impl Selection {
    /// As the statements take it: the kind of selection, and its value.
    fn parameters(&self) -> (&'static str, Option<String>) {
        match self {
            Selection::All => ("all", None),
            Selection::Key(key) => ("key", key.clone()),
            Selection::Event(id) => ("event", Some(id.to_string())),
            Selection::Fingerprint(fingerprint) => ("fingerprint", Some(fingerprint.clone())),
        }
    }

    /// The error of an empty selection; a projection without dead letters is no error.
    fn check_found(&self, name: &ProjectionName, found: i64) -> Result<()> {
        let what = match self {
            _ if found > 0 => return Ok(()),
            Selection::All => return Ok(()),
            Selection::Key(None) => "of the key null".to_owned(),
            Selection::Key(Some(key)) => format!("of the key \"{key}\""),
            Selection::Event(id) => format!("of the event {id}"),
            Selection::Fingerprint(print) => format!("with the fingerprint {print}"),
        };
        let what = format!("\"{name}\" has no dead letter {what}");
        Err(Error::new(ErrorKind::NotFound, what)
            .with_hint(format!("highwater dead-letters list {name} shows them")))
    }
}

/// How much of a projection is parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// How many keys are parked.
    pub parked_keys: i64,
    /// How many dead letters there are.
    pub dead_letters: i64,
}

/// How much of each projection is parked; those without parked keys are left out.
///
/// # Errors
/// If the database cannot be read.
pub async fn counts(target: &Database) -> Result<Vec<(ProjectionName, Counts)>> {
    let client = target.short().await?;
    let sql = include_str!("../sql/queries/dead_letter/counts.sql");
    let counting = async {
        let rows = client.query_typed(sql, &[]).await;
        rows.map_err(|e| pg::own_error("cannot count the dead letters", e))
    };
    let rows = client.within(counting).await?;
    rows.iter()
        .map(|row| {
            let counts = Counts {
                parked_keys: column(row, 1)?,
                dead_letters: column(row, 2)?,
            };
            Ok((column::<String>(row, 0)?.parse()?, counts))
        })
        .collect()
}

/// Checks that the projection exists.
async fn check_name(target: &Database, name: &ProjectionName) -> Result<()> {
    let client = target.client().await?;
    let stored = projection::stored(&client, name).await;
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => {
            drop(client);
            return Err(target.explained(error).await);
        }
    };
    if stored.is_some() {
        return Ok(());
    }
    let names = projection::names(&client).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let what = format!("projection \"{name}\" has no read model here");
    Err(Error::new(ErrorKind::NotFound, what).with_hint(suggest::suggestion(name.as_str(), &names)))
}

/// Runs a statement about a selection. `more` are the parameters from `$4` on.
async fn query(
    client: &Client,
    sql: &str,
    name: &ProjectionName,
    selection: &Selection,
    more: &[(&Parameter<'_>, Type)],
) -> Result<Vec<Row>> {
    let (which, the_one) = selection.parameters();
    let name = name.as_str();
    let mut parameters: Vec<(&Parameter<'_>, Type)> = vec![
        (&name, Type::TEXT),
        (&which, Type::TEXT),
        (&the_one, Type::TEXT),
    ];
    parameters.extend(more.iter().cloned());
    let rows = client.query_typed(sql, &parameters).await;
    rows.map_err(|e| pg::own_error("cannot work on the dead letters", e))
}
