//! A directory with projections, for the binary.

use std::path::Path;
use std::time::Duration;

use highwater::Result;
use tempfile::TempDir;

use super::{Db, failed};

pub(crate) struct Project(TempDir);

impl Project {
    /// With these projections: their names and their files' texts.
    pub(crate) fn with(projections: &[(&str, &str)]) -> Result<Project> {
        let project = Project(tempfile::tempdir().map_err(failed)?);
        let directory = project.path().join("projections");
        std::fs::create_dir(&directory).map_err(failed)?;
        for (name, text) in projections {
            let file = directory.join(format!("{name}.sql"));
            std::fs::write(file, text).map_err(failed)?;
        }
        Ok(project)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs everything to the head; the time is that of the whole process.
    pub(crate) async fn catch_up(&self, db: &Db) -> Result<Duration> {
        db.highwater(self.path(), &["run", "--until-caught-up"])
            .await
    }
}
