//! The migrations themselves: a new file is one more entry here.

use std::fmt;

use sha2::{Digest, Sha256};

/// A part of the schema `highwater` that has migrations of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The event log: its table, the functions that append, the wake.
    Log,
    /// The state of the engine: projections, checkpoints, instances, dead letters.
    Engine,
}

/// One step of a component.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place in the order, from 1, without holes.
    pub number: i32,
    /// What it is about, as in its file name.
    pub name: &'static str,
    /// Its SQL.
    pub text: &'static str,
}

impl Component {
    /// Both, in the order in which they are applied.
    pub const ALL: [Component; 2] = [Component::Log, Component::Engine];

    /// The name under which its migrations are recorded.
    pub const fn as_str(self) -> &'static str {
        match self {
            Component::Log => "log",
            Component::Engine => "engine",
        }
    }

    /// Its migrations, oldest first.
    pub const fn migrations(self) -> &'static [Migration] {
        match self {
            Component::Log => LOG,
            Component::Engine => ENGINE,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Migration {
    /// SHA-256 of its text in hexadecimal; line ends count as `\n`.
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(self.text.replace("\r\n", "\n"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

const LOG: &[Migration] = &[
    Migration {
        number: 1,
        name: "tables",
        text: include_str!("../../../sql/migrations/log/0001_tables.sql"),
    },
    Migration {
        number: 2,
        name: "append",
        text: include_str!("../../../sql/migrations/log/0002_append.sql"),
    },
    Migration {
        number: 3,
        name: "append_all_checks",
        text: include_str!("../../../sql/migrations/log/0003_append_all_checks.sql"),
    },
    Migration {
        number: 4,
        name: "append_all",
        text: include_str!("../../../sql/migrations/log/0004_append_all.sql"),
    },
    Migration {
        number: 5,
        name: "removed",
        text: include_str!("../../../sql/migrations/log/0005_removed.sql"),
    },
    Migration {
        number: 6,
        name: "wake",
        text: include_str!("../../../sql/migrations/log/0006_wake.sql"),
    },
];

const ENGINE: &[Migration] = &[
    Migration {
        number: 1,
        name: "projections",
        text: include_str!("../../../sql/migrations/engine/0001_projections.sql"),
    },
    Migration {
        number: 2,
        name: "dead_letters_and_evidence",
        text: include_str!("../../../sql/migrations/engine/0002_dead_letters_and_evidence.sql"),
    },
    Migration {
        number: 3,
        name: "batches",
        text: include_str!("../../../sql/migrations/engine/0003_batches.sql"),
    },
    Migration {
        number: 4,
        name: "batch_view",
        text: include_str!("../../../sql/migrations/engine/0004_batch_view.sql"),
    },
    Migration {
        number: 5,
        name: "dead_letters",
        text: include_str!("../../../sql/migrations/engine/0005_dead_letters.sql"),
    },
    Migration {
        number: 6,
        name: "partitions",
        text: include_str!("../../../sql/migrations/engine/0006_partitions.sql"),
    },
    Migration {
        number: 7,
        name: "grants",
        text: include_str!("../../../sql/migrations/engine/0007_grants.sql"),
    },
    Migration {
        number: 8,
        name: "positions",
        text: include_str!("../../../sql/migrations/engine/0008_positions.sql"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_holes() {
        for component in Component::ALL {
            for (migration, number) in component.migrations().iter().zip(1..) {
                assert_eq!(migration.number, number, "{component}");
            }
        }
    }

    #[test]
    fn line_ends_do_not_change_the_hash() {
        let migration = |text| Migration {
            number: 1,
            name: "a",
            text,
        };
        assert_eq!(
            migration("select 1;\n").hash(),
            migration("select 1;\r\n").hash()
        );
    }
}
