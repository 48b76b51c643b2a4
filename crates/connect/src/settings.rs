//! The options of a connection as values, all checked before a connection is tried.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

use crate::conninfo::Pairs;
use crate::error::Result;
use crate::given::{Given, fault};
use crate::tls::TlsSettings;

/// One server address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name, an address, or the directory of a socket.
    pub(crate) host: String,
    /// The address to use instead of looking the name up.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

impl Endpoint {
    pub(crate) fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with('/')
    }

    pub(crate) fn describe(&self) -> String {
        if self.is_socket() {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// When a TCP connection counts as dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) enabled: bool,
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) retries: u32,
    pub(crate) user_timeout: Duration,
}

/// The settings of a connection. Holds the password: no Debug.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) database: String,
    pub(crate) options: Option<String>,
    pub(crate) application_name: Option<String>,
    pub(crate) defaults: Defaults,
    /// For one server, from the first byte to the end of authentication; none is no limit.
    pub(crate) timeout: Option<Duration>,
    pub(crate) keepalive: Keepalive,
    pub(crate) tls: TlsSettings,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) session: TargetSessionAttrs,
    pub(crate) shuffle: bool,
}

/// What a program gives all its sessions where the user says nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The name in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Server settings as `-c name=value`; the user's own `options` come after them and win.
    pub options: &'static str,
}

/// What the machine adds to what was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The home directory, for `.pgpass` and `.postgresql`.
    pub(crate) home: Option<PathBuf>,
    /// The operating system's name of the user.
    pub(crate) user: Option<String>,
}

impl Surroundings {
    pub(crate) fn of(lookup: &dyn Fn(&str) -> Option<String>) -> Surroundings {
        let account = account();
        let home = lookup("HOME").map(PathBuf::from);
        Surroundings {
            home: home.or_else(|| account.as_ref().map(|account| account.home.clone())),
            user: account
                .map(|account| account.name)
                .or_else(|| lookup("USER")),
        }
    }
}

/// The operating system's account of this process.
struct Account {
    name: String,
    home: PathBuf,
}

/// `None` if it has no entry.
#[cfg(feature = "account")]
fn account() -> Option<Account> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(Account {
        name: user.name,
        home: user.dir,
    })
}

/// Unknown without a library for it.
#[cfg(not(feature = "account"))]
fn account() -> Option<Account> {
    None
}

impl Settings {
    /// Later pairs replace earlier ones.
    pub(crate) fn from_pairs(pairs: Pairs, around: &Surroundings) -> Result<Settings> {
        let mut given = Given::new(pairs);
        let user = match given.take("user").or_else(|| around.user.clone()) {
            Some(user) => user,
            None => {
                return Err(fault(
                    "no user is given and the system knows none",
                    "add user=NAME",
                ));
            }
        };
        let settings = Settings {
            endpoints: given.endpoints()?,
            password: given.take("password"),
            passfile: given.passfile(around),
            database: given.take("dbname").unwrap_or_else(|| user.clone()),
            user,
            options: given.take("options"),
            application_name: given.application_name(),
            defaults: Defaults::default(),
            timeout: given.timeout()?,
            keepalive: given.keepalive()?,
            tls: given.tls(around)?,
            channel_binding: given.channel_binding()?,
            session: given.session()?,
            shuffle: given
                .choice(
                    "load_balance_hosts",
                    &[("disable", false), ("random", true)],
                )?
                .unwrap_or(false),
        };
        given.finish()?;
        Ok(settings)
    }
}
