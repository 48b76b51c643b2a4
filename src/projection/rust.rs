//! [`Projection`] as the engine runs it.

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::transaction::Tx;
use crate::projection::sql_text;
use crate::projection::{Definition, Projection, Runnable, Statements, hash_of};
use crate::source::{Batch, BoxFuture};

/// A projection in Rust, its definition taken once.
pub struct Coded<P> {
    projection: P,
    definition: Definition,
}

impl<P: Projection> Coded<P> {
    /// Takes the definition of `projection`.
    ///
    /// # Errors
    /// If its name cannot name a schema, or its `up` is not SQL that can be run in a transaction.
    pub fn new(projection: P) -> Result<Coded<P>> {
        let name: ProjectionName = projection.name().parse()?;
        let up = sql_text::normalise(projection.up()).map_err(|fault| {
            Error::new(ErrorKind::Config, fault.what)
                .at(format!("projection {name}, up"))
                .hint(fault.hint)
        })?;
        let mut events = projection.events();
        if let Some(events) = &mut events {
            events.sort();
            events.dedup();
        }
        let filter = events
            .as_ref()
            .map_or_else(String::new, |types| types.join("\n"));
        let revision = projection.revision().to_string();
        let hash = hash_of(&["rust", &filter, projection.source(), &up, &revision]);
        let definition = Definition {
            name,
            events,
            source: projection.source().to_owned(),
            partitions: 1,
            hash,
        };
        Ok(Coded {
            projection,
            definition,
        })
    }
}

impl<P: Projection> Runnable for Coded<P> {
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn set_up<'a>(&'a self, tx: &'a Tx<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let done = tx.batch_execute(self.projection.up()).await;
            done.map_err(|e| e.at(format!("projection {}, up", self.definition.name)))
        })
    }

    fn statements(&self) -> Option<Statements<'_>> {
        None
    }

    fn apply<'a>(&'a self, batch: &'a Batch, tx: &'a Tx<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.projection.apply(batch, tx))
    }
}
