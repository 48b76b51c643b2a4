//! The name of a projection, which is also the name of its schema.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// A projection's name: `[a-z][a-z0-9_]{0,47}`, without `__`, and no schema name that
/// PostgreSQL or highwater uses itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ProjectionName(String);

const LENGTH_MAX: usize = 48;
const RESERVED: [&str; 3] = ["public", "highwater", "information_schema"];

impl ProjectionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProjectionName {
    type Err = Error;

    fn from_str(name: &str) -> Result<ProjectionName, Error> {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        let rest = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let reason = if !first || !rest || name.len() > LENGTH_MAX {
            "a name starts with a-z and has only a-z, 0-9 and _, 48 characters at most"
        } else if name.contains("__") {
            "two underscores in a row are reserved for the schema of a rebuild"
        } else if RESERVED.contains(&name) || name.starts_with("pg_") {
            "that schema belongs to PostgreSQL or to highwater"
        } else {
            return Ok(ProjectionName(name.to_owned()));
        };
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "\"{}\" cannot name a projection: {reason}",
                name.escape_debug()
            ),
        )
        .with_hint("rename it"))
    }
}

impl fmt::Display for ProjectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_collide_or_need_quoting_are_refused() {
        for bad in [
            "",
            "Files",
            "1files",
            "a b",
            "a__b",
            "public",
            "pg_files",
            "highwater",
            "information_schema",
            "é",
            "a-b",
            &"a".repeat(49),
        ] {
            let error = bad.parse::<ProjectionName>().expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
        for good in ["files", "a", "a_b", "a1", &"a".repeat(48)] {
            assert_eq!(good.parse::<ProjectionName>().expect(good).as_str(), good);
        }
    }
}
