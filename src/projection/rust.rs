//! [`Projection`] as the engine runs it.

use tokio_postgres::Row;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ProjectionName;
use crate::pg::transaction::Tx;
use crate::projection::{
    BatchWriter, Definition, DynProjection, PARTITIONS_MAX, Projection, Statements, failure,
    hash_of,
};
use crate::source::{Batch, BoxFuture, Keys};
use crate::sql_text;

/// A projection in Rust, its definition taken once.
pub struct RustProjection<P> {
    projection: P,
    definition: Definition,
}

impl<P: Projection> RustProjection<P> {
    /// Takes the definition of `projection`.
    ///
    /// # Errors
    /// If its name cannot name a schema, or its `up` is not SQL that can be run in a transaction.
    pub fn new(projection: P) -> Result<RustProjection<P>> {
        let name: ProjectionName = projection.name().parse()?;
        let up = sql_text::normalise(projection.up()).map_err(|fault| {
            Error::new(ErrorKind::Config, fault.what)
                .with_location(format!("projection {name}, up"))
                .with_hint(fault.hint)
        })?;
        let mut events = projection.events();
        if let Some(events) = &mut events {
            events.sort();
            events.dedup();
        }
        let filter = events
            .as_ref()
            .map_or_else(String::new, |types| types.join("\n"));
        let key = key_of(&projection).map_err(|e| e.with_location(format!("projection {name}")))?;
        let revision = projection.revision().to_string();
        let mut parts = vec!["rust", &filter, projection.source(), &up, &revision];
        if key != Keys::STREAM {
            parts.extend(["key", &key]);
        }
        let definition = Definition {
            name,
            source: projection.source().to_owned(),
            hash: hash_of(&parts),
            partitions: partitions_of(&projection)?,
            on_error: projection.on_error(),
            events,
            text: None,
            key,
        };
        Ok(RustProjection {
            projection,
            definition,
        })
    }
}

fn key_of(projection: &impl Projection) -> Result<String> {
    sql_text::expression(projection.key_sql()).map_err(|fault| {
        let what = format!("the key is not a SQL expression: {}", fault.what);
        Error::new(ErrorKind::Config, what).with_hint(fault.hint)
    })
}

fn partitions_of(projection: &impl Projection) -> Result<u16> {
    let partitions = projection.partitions();
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(partitions);
    }
    let what = format!(
        "projection \"{}\" cannot have {partitions} partitions",
        projection.name()
    );
    Err(Error::new(ErrorKind::Config, what).with_hint(format!("return 1 to {PARTITIONS_MAX}")))
}

impl<P: Projection> DynProjection for RustProjection<P> {
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn set_up<'a>(&'a self, tx: &'a Tx<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let done = tx.batch_execute(self.projection.up()).await;
            done.map_err(|e| e.with_location(format!("projection {}, up", self.definition.name)))
        })
    }

    fn statements(&self) -> Option<Statements<'_>> {
        None
    }

    fn begin<'a>(&'a self, tx: Tx<'a>) -> Result<Box<dyn BatchWriter + 'a>> {
        Ok(self.projection.begin(tx))
    }
}

/// Applies each batch by itself.
pub(super) struct PlainBatchWriter<'a, P> {
    projection: &'a P,
    tx: Tx<'a>,
}

impl<'a, P: Projection> PlainBatchWriter<'a, P> {
    pub(super) fn new(projection: &'a P, tx: Tx<'a>) -> PlainBatchWriter<'a, P> {
        PlainBatchWriter { projection, tx }
    }
}

impl<P: Projection> BatchWriter for PlainBatchWriter<'_, P> {
    fn apply<'a>(&'a mut self, batch: &'a Batch, _: Vec<Row>) -> BoxFuture<'a, Result<()>> {
        let applying = self.projection.apply(batch, &self.tx);
        Box::pin(async { applying.await.map_err(failure::from_code) })
    }

    fn gains_by_many(&self) -> bool {
        false
    }
}
