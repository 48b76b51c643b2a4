//! The options of a connection as values, all checked before a connection is tried.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

use super::given::{Given, fault};
use crate::error::Result;
use crate::host::Account;
use crate::pg::conninfo::Pairs;
use crate::pg::tls::TlsSettings;

/// One server address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name, an address, or the directory of a socket.
    pub(super) host: String,
    /// The address to use instead of looking the name up.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with('/')
    }

    pub(super) fn describe(&self) -> String {
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
pub(super) struct Keepalive {
    pub(super) enabled: bool,
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    pub(super) retries: u32,
    pub(super) user_timeout: Duration,
}

/// The settings of a connection. Holds the password: no Debug.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) database: String,
    pub(super) options: Option<String>,
    pub(super) application_name: String,
    /// For one server, from the first byte to the end of authentication; none is no limit.
    pub(super) timeout: Option<Duration>,
    pub(super) keepalive: Keepalive,
    pub(super) tls: TlsSettings,
    pub(super) channel_binding: ChannelBinding,
    pub(super) session: TargetSessionAttrs,
    pub(super) shuffle: bool,
}

/// What the machine adds to what was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The home directory, for `.pgpass` and `.postgresql`.
    pub(super) home: Option<PathBuf>,
    /// The operating system's name of the user.
    pub(super) user: Option<String>,
}

impl Surroundings {
    pub(super) fn of(lookup: &dyn Fn(&str) -> Option<String>) -> Surroundings {
        let account = Account::own();
        Surroundings {
            home: lookup("HOME")
                .map(PathBuf::from)
                .or_else(|| account.as_ref().map(|account| account.home.clone())),
            user: account
                .map(|account| account.name)
                .or_else(|| lookup("USER")),
        }
    }
}

impl Settings {
    /// Later pairs replace earlier ones.
    pub(super) fn from_pairs(pairs: Pairs, around: &Surroundings) -> Result<Settings> {
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
