//! Which projections a command means.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::Context;
use crate::cli::exit::Failure;
use crate::cli::text::seen_from_here;
use crate::error::{Error, ErrorKind, Result};
use crate::given_expect::TestedProjection;
use crate::name::ProjectionName;
use crate::pg::projection;
use crate::projection::file::{load_directory, load_sound, refuse_taken_names};
use crate::projection::{Definition, DynProjection, SqlProjection};
use crate::suggest::suggestion;

impl Context {
    /// The directory of the projections' files.
    pub(in crate::cli) fn projections_dir(&self) -> Result<PathBuf> {
        if let Some(directory) = &self.options.projections {
            return Ok(directory.clone());
        }
        let config = self.config()?;
        Ok(match self.config_file()? {
            Some(file) => seen_from_here(&config.projections_directory(file)),
            None => config.projections.directory.clone(),
        })
    }

    /// The projections that are compiled in.
    pub(in crate::cli) fn compiled(&self) -> &[Arc<dyn DynProjection>] {
        &self.compiled
    }

    /// The projections, by name: those of the directory and those compiled in; only these, if
    /// names are given.
    ///
    /// # Errors
    /// Every fault of every file, or an unknown name.
    pub(in crate::cli) fn projections(
        &self,
        names: &[String],
    ) -> Result<Vec<Arc<dyn DynProjection>>, Failure> {
        let mut all = self.compiled.clone();
        let directory = self.projections_dir()?;
        let is_needed = self.compiled.is_empty() || self.options.projections.is_some();
        if is_needed || directory.exists() {
            let taken: Vec<_> = all.iter().map(|p| p.definition().name.clone()).collect();
            let files = load_directory(&directory).map_err(as_config)?;
            refuse_taken_names(&files, &taken)?;
            for file in files {
                all.push(Arc::new(SqlProjection::new(file)));
            }
        }
        all.sort_by(|a, b| a.definition().name.cmp(&b.definition().name));
        if all.is_empty() {
            let error = Error::new(
                ErrorKind::Config,
                "there is no projection in this directory",
            );
            return Err(error
                .with_location(directory.display().to_string())
                .with_hint(
                    "write one as NAME.sql, or run highwater init, which creates a first one",
                )
                .into());
        }
        Ok(select(all, names)?)
    }

    /// The projection of this name.
    ///
    /// # Errors
    /// As [`Context::projections`].
    pub(in crate::cli) fn projection(&self, name: &str) -> Result<Arc<dyn DynProjection>, Failure> {
        let found = self.projections(&[name.to_owned()])?.into_iter().next();
        let missing = || Error::new(ErrorKind::NotFound, format!("no projection \"{name}\""));
        Ok(found.ok_or_else(missing)?)
    }

    /// The known definitions, for commands that only read: faults of the files are reported and do
    /// not keep these from answering.
    pub(in crate::cli) fn known(&self) -> Vec<Definition> {
        let mut known: Vec<Definition> = self
            .compiled
            .iter()
            .map(|p| p.definition().clone())
            .collect();
        let directory = match self.projections_dir() {
            Ok(directory) => directory,
            Err(fault) => {
                self.ui.warn(&fault.to_string());
                return known;
            }
        };
        if self.compiled.is_empty() || self.options.projections.is_some() || directory.exists() {
            let (files, faults) = load_sound(&directory);
            for fault in faults {
                self.ui.warn(&fault.to_string());
            }
            let files = files.into_iter().map(SqlProjection::new);
            known.extend(files.map(|file| file.definition().clone()));
        }
        known
    }

    /// Refuses a name without a definition and without a read model.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] with the known names.
    pub(in crate::cli) async fn refuse_unknown(&self, name: &ProjectionName) -> Result<()> {
        let mut names: Vec<String> = self.known().iter().map(|d| d.name.to_string()).collect();
        names.extend(projection::names(&*self.target().await?.client().await?).await?);
        if names.iter().any(|known| known == name.as_str()) {
            return Ok(());
        }
        names.sort_unstable();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let what = format!("unknown projection \"{name}\"");
        let hint = match names.as_slice() {
            [] => "there are none yet: write one into projections/NAME.sql".to_owned(),
            names => suggestion(name.as_str(), names),
        };
        Err(Error::new(ErrorKind::Usage, what).with_hint(hint))
    }

    /// The projections with their tests: the files, and those compiled in that have a
    /// `NAME.test.toml` in the directory.
    ///
    /// # Errors
    /// As [`Context::projections`].
    pub(in crate::cli) fn subjects(
        &self,
        names: &[String],
    ) -> Result<Vec<TestedProjection>, Failure> {
        let directory = self.projections_dir()?;
        let subject = |projection: Arc<dyn DynProjection>| {
            let name = projection.definition().name.clone();
            let tests = directory.join(format!("{name}.test.toml"));
            TestedProjection::beside(projection, tests)
        };
        let projections = self.projections(names)?;
        Ok(projections.into_iter().map(subject).collect())
    }
}

/// A fault of a projection's file is one of the configuration, also where reading it failed.
fn as_config(faults: Vec<Error>) -> Vec<Error> {
    let faults = faults.into_iter();
    faults
        .map(|fault| fault.with_kind(ErrorKind::Config))
        .collect()
}

/// The projections of these names, or all.
fn select(
    all: Vec<Arc<dyn DynProjection>>,
    names: &[String],
) -> Result<Vec<Arc<dyn DynProjection>>> {
    let known: Vec<&str> = all.iter().map(|p| p.definition().name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let what = format!("unknown projection \"{}\"", unknown.escape_debug());
        return Err(Error::new(ErrorKind::Usage, what).with_hint(suggestion(unknown, &known)));
    }
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_wanted = |p: &Arc<dyn DynProjection>| {
        wanted.is_empty() || wanted.contains(p.definition().name.as_str())
    };
    Ok(all.into_iter().filter(is_wanted).collect())
}
