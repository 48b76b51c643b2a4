//! A projection file as the engine runs it: its statements stay in the server.

use crate::error::{Error, ErrorKind, Result};
use crate::pg;
use crate::pg::transaction::Tx;
use crate::projection::file::ProjectionFile;
use crate::projection::{BatchWriter, Definition, DynProjection, Statements};
use crate::source::BoxFuture;
use crate::sql_text::BatchPlace;

type Locate = Box<dyn Fn(usize, Option<usize>) -> String + Send + Sync>;

/// A projection that is one SQL file.
pub struct SqlProjection {
    file: ProjectionFile,
    definition: Definition,
    apply: String,
    batch: Vec<BatchPlace>,
    locate: Locate,
}

impl SqlProjection {
    /// The projection that `file` describes.
    pub fn new(file: ProjectionFile) -> SqlProjection {
        let definition = Definition {
            name: file.name.clone(),
            events: file.header.events.clone(),
            source: file.header.source.clone(),
            key: file.header.key_normal(),
            partitions: file.header.partitions,
            on_error: file.header.on_error,
            hash: file.hash().as_str().to_owned(),
            text: Some(file.text.clone()),
        };
        SqlProjection {
            definition,
            // More SQL may follow it.
            apply: format!("{}\n;\n", file.apply.text),
            batch: file
                .apply
                .statements
                .iter()
                .filter_map(|s| s.batch)
                .collect(),
            locate: locate_in(&file),
            file,
        }
    }

    /// The file.
    pub fn file(&self) -> &ProjectionFile {
        &self.file
    }

    /// Runs `up` statement by statement, so that an error can be placed.
    async fn create(&self, tx: &Tx<'_>) -> Result<()> {
        for statement in &self.file.up.statements {
            let done = tx.client().batch_execute(&statement.text).await;
            done.map_err(|e| {
                let line = match pg::offset_of(&e) {
                    Some(offset) => statement.line_at(offset),
                    None => statement.line,
                };
                pg::error("up failed", e).with_location(self.file.location(line))
            })?;
        }
        Ok(())
    }
}

fn locate_in(file: &ProjectionFile) -> Locate {
    let file = file.clone();
    Box::new(move |succeeded, offset| {
        let line = match (offset, file.apply.statements.get(succeeded)) {
            (Some(offset), _) => file.apply.line_at(offset),
            (None, Some(statement)) => statement.line,
            (None, None) => file.apply.first_line,
        };
        file.location(line)
    })
}

impl DynProjection for SqlProjection {
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn set_up<'a>(&'a self, tx: &'a Tx<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.create(tx))
    }

    fn statements(&self) -> Option<Statements<'_>> {
        Some(Statements {
            text: &self.apply,
            batch: &self.batch,
            locate: &*self.locate,
        })
    }

    fn begin<'a>(&'a self, _tx: Tx<'a>) -> Result<Box<dyn BatchWriter + 'a>> {
        let what = format!(
            "projection \"{}\" is SQL, and its source \"{}\" is not in the database of its read model",
            self.definition.name, self.definition.source
        );
        Err(Error::new(ErrorKind::Config, what)
            .with_hint("read a source of the same database, or write the projection in Rust"))
    }
}
