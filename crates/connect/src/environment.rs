//! The variables that libpq reads.

use crate::Connector;
use crate::conninfo::Pairs;
use crate::error::{Error, ErrorKind, Result};

/// Variable and connection option.
const VARIABLES: [(&str, &str); 22] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGDATABASE", "dbname"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGSSLCRL", "sslcrl"),
];

/// The variables that name a database; the others only say how to reach one.
const NAMING: [&str; 6] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGDATABASE",
    "PGSERVICE",
];

/// The options that the variables give.
pub(crate) fn pairs(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Pairs> {
    if filled(lookup, "PGSERVICE").is_some() {
        return Err(Error::new(
            ErrorKind::Setting,
            "PGSERVICE is set, but service files are not read",
        )
        .with_hint(
            "unset it and name the server with DATABASE_URL or PGHOST, PGUSER and PGDATABASE",
        ));
    }
    let given = VARIABLES.iter().filter_map(|(variable, option)| {
        filled(lookup, variable).map(|value| ((*option).to_owned(), value))
    });
    Ok(given.collect())
}

fn filled(lookup: &dyn Fn(&str) -> Option<String>, variable: &str) -> Option<String> {
    lookup(variable).filter(|value| !value.is_empty())
}

impl Connector {
    /// The database that PGHOST, PGPORT, PGUSER, PGDATABASE and the other variables of libpq
    /// name; none when none of PGHOST, PGHOSTADDR, PGPORT, PGUSER and PGDATABASE is set.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`] for a value that cannot be understood.
    pub fn from_environment() -> Result<Option<Connector>> {
        Connector::from_lookup(&|name| std::env::var(name).ok())
    }

    /// As [`Connector::from_environment`], from variables of the caller's.
    ///
    /// # Errors
    /// As [`Connector::from_environment`].
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<Connector>> {
        let is_given = |variable: &str| filled(lookup, variable).is_some();
        if !NAMING.into_iter().any(is_given) {
            return Ok(None);
        }
        let from_variables = |error: Error| error.with_location("the PG* variables");
        let pairs = pairs(lookup)?;
        let connector = Connector::from_pairs(pairs, lookup).map_err(from_variables)?;
        Ok(Some(connector))
    }
}
