//! Which account the server runs as. `initdb` and `postgres` refuse to run as root.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Uid, User, geteuid};

use crate::error::{Error, ErrorKind, Result};

/// The accounts that take over from root, best first.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The account the server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// It is not the account of this process: files must be given to it.
    pub(crate) is_substitute: bool,
}

/// The permissions that a directory must have.
#[derive(Clone, Copy)]
pub(crate) enum Right {
    Write = 0o2,
    Enter = 0o1,
}

impl Account {
    /// The account of this process, or the stand-in if that is root.
    pub(crate) fn for_server() -> Result<Account> {
        choose(geteuid().as_raw(), by_uid, by_name)
    }

    /// Whether the mode bits give this account the right. The groups it is in beyond its own do not
    /// count: a server that runs in place of root has none.
    pub(crate) fn has(&self, right: Right, file: &Metadata) -> bool {
        let shift = if file.uid() == self.uid {
            6
        } else if file.gid() == self.gid {
            3
        } else {
            0
        };
        (file.mode() >> shift) & right as u32 != 0
    }

    /// Checks that this account can reach `path`: every directory above it must let it through.
    pub(crate) fn reaches(&self, path: &Path) -> Result<()> {
        if !self.is_substitute {
            return Ok(());
        }
        for parent in path.ancestors().skip(1) {
            let Ok(found) = parent.metadata() else {
                continue;
            };
            if !self.has(Right::Enter, &found) {
                return Err(Error::new(
                    ErrorKind::Setup,
                    format!(
                        "the account {} that runs PostgreSQL for root cannot enter {}",
                        self.name,
                        parent.display()
                    ),
                )
                .with_location(path.display().to_string())
                .with_hint("choose another place, run as an ordinary user, or set DATABASE_URL"));
            }
        }
        Ok(())
    }
}

/// The choice itself, over any user database.
fn choose(
    effective: u32,
    by_uid: impl Fn(u32) -> Option<Account>,
    by_name: impl Fn(&str) -> Option<Account>,
) -> Result<Account> {
    if effective != 0 {
        return by_uid(effective).ok_or_else(|| {
            Error::new(
                ErrorKind::Setup,
                format!(
                    "user id {effective} has no name here, and initdb refuses to run without one"
                ),
            )
            .with_hint("add the user to /etc/passwd, or set DATABASE_URL")
        });
    }
    STAND_INS
        .iter()
        .filter_map(|name| by_name(name))
        .find(|account| account.uid != 0)
        .map(|account| Account {
            is_substitute: true,
            ..account
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Setup,
                "PostgreSQL does not run as root, and there is no account postgres or nobody",
            )
            .with_hint("create the account postgres, run as an ordinary user, or set DATABASE_URL")
        })
}

fn by_uid(uid: u32) -> Option<Account> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(ours)
}

fn by_name(name: &str) -> Option<Account> {
    User::from_name(name).ok().flatten().map(ours)
}

fn ours(user: User) -> Account {
    Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        is_substitute: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, uid: u32) -> Account {
        Account {
            name: name.into(),
            uid,
            gid: uid,
            is_substitute: false,
        }
    }

    #[test]
    fn an_ordinary_user_runs_the_server_itself() {
        let chosen = choose(1000, |uid| Some(account("ada", uid)), |_| None).unwrap();
        assert_eq!(chosen, account("ada", 1000));
    }

    #[test]
    fn root_hands_the_server_to_postgres_and_else_to_nobody() {
        let both = choose(0, |_| None, |name| Some(account(name, 7))).unwrap();
        assert_eq!((both.name.as_str(), both.is_substitute), ("postgres", true));
        let one = choose(
            0,
            |_| None,
            |name| (name == "nobody").then(|| account(name, 65534)),
        );
        assert_eq!(one.unwrap().name, "nobody");
    }

    #[test]
    fn root_alone_on_the_machine_gets_a_hint_what_to_create() {
        let error = choose(0, |_| None, |name| Some(account(name, 0))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.to_string().contains("create the account postgres"));
    }

    #[test]
    fn a_user_id_without_a_name_is_refused_before_initdb_does() {
        let error = choose(54321, |_| None, |_| None).unwrap_err();
        assert!(error.to_string().contains("user id 54321 has no name"));
    }

    #[test]
    fn a_stand_in_does_not_reach_below_a_directory_it_cannot_enter() {
        use std::os::unix::fs::PermissionsExt;
        let closed = tempfile::tempdir().unwrap();
        std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account {
            is_substitute: true,
            ..account("stranger", 4_000_000)
        };
        let error = stranger.reaches(&closed.path().join("data")).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("stranger") && said.contains("cannot enter"),
            "{said}"
        );
    }
}
