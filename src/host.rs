//! The machine and the account that a program runs on.

use std::path::PathBuf;

/// The operating system's account of this process.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
}

impl Account {
    /// `None` if it has no entry.
    #[cfg(feature = "cluster")]
    pub(crate) fn own() -> Option<Account> {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
        Some(Account {
            name: user.name,
            home: user.dir,
        })
    }

    /// Unknown without a library for it.
    #[cfg(not(feature = "cluster"))]
    pub(crate) fn own() -> Option<Account> {
        None
    }
}

/// The name of this machine, empty if it cannot be told.
pub(crate) fn name() -> String {
    #[cfg(feature = "cluster")]
    let name = nix::unistd::gethostname()
        .ok()
        .map(|name| name.to_string_lossy().into_owned());
    #[cfg(not(feature = "cluster"))]
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
