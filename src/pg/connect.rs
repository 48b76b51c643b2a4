//! Connections as highwater needs them: which database is meant, how a session starts, which server
//! is new enough.

pub use highwater_connect::{Connector, Notifications, Pool, PooledClient, Session};

use highwater_connect::Defaults;
use tokio_postgres::Client;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};

/// The oldest major version of PostgreSQL that works.
const OLDEST_SERVER: i32 = 14;

/// What every session starts with.
///
/// - `row_security=off`: a row that a policy hides would look rolled back, so it is an error.
/// - `read committed`: the mark needs a new snapshot for each statement.
/// - `TimeZone=UTC`, `client_min_messages=warning`: the same text on every machine, no chatter.
const DEFAULTS: Defaults = Defaults {
    application_name: "highwater",
    options: r"-c row_security=off -c default_transaction_isolation=read\ committed -c TimeZone=UTC -c client_min_messages=warning",
};

/// The same database, with sessions that start as highwater's statements need it.
pub(crate) fn with_defaults(connector: &Connector) -> Connector {
    connector.with_defaults(DEFAULTS)
}

/// A connector from a URL or `key=value` text, as [`Connector::parse`] reads it.
///
/// # Errors
/// [`ErrorKind::Config`] for what cannot be understood, never showing the password.
pub fn parse(text: &str) -> Result<Connector> {
    Ok(with_defaults(&Connector::parse(text)?))
}

/// The database that the command line, the environment or the configuration name, in this order:
/// `--database-url`, `DATABASE_URL`, `highwater.toml`, the PG* variables; none when none of them
/// names one.
///
/// What a connection string leaves out is taken from the PG* variables, as psql does. The
/// `direct_url` of the configuration counts with its `url` only: with another database it would
/// be the wrong one.
///
/// # Errors
/// [`crate::ErrorKind::Config`] with the place, never showing the password.
pub fn resolve_database(
    flag: Option<&str>,
    lookup: &dyn Fn(&str) -> Option<String>,
    config: Option<&Config>,
) -> Result<Option<Connector>> {
    let parse = |text: &str, location: &str| {
        let parsed =
            Connector::parse_with(text, lookup).map_err(|error| error.with_location(location))?;
        Ok::<_, Error>(with_defaults(&parsed))
    };
    if let Some(text) = flag {
        return parse(text, "--database-url").map(Some);
    }
    if let Some(text) = lookup("DATABASE_URL").filter(|text| !text.is_empty()) {
        return parse(&text, "DATABASE_URL").map(Some);
    }
    let database = config.map(|config| &config.database);
    let Some(url) = database.and_then(|database| database.url.as_ref()) else {
        let named = Connector::from_lookup(lookup)?;
        return Ok(named.as_ref().map(with_defaults));
    };
    let connector = parse(url.expose(), "highwater.toml: [database] url")?;
    let direct = database.and_then(|database| database.direct_url.as_ref());
    match direct {
        None => Ok(Some(connector)),
        Some(direct) => {
            let direct = parse(direct.expose(), "highwater.toml: [database] direct_url")?;
            Ok(Some(connector.with_direct(&direct)))
        }
    }
}

/// Refuses a server that is older than PostgreSQL 14.
///
/// # Errors
/// [`ErrorKind::Database`], naming the version found and the one needed.
pub async fn check_server(client: &Client) -> Result<()> {
    let doing = "cannot ask the server for its version";
    let row = client
        .query_typed_one(
            "select current_setting('server_version_num')::int, current_setting('server_version')",
            &[],
        )
        .await
        .map_err(|error| super::error(doing, error))?;
    let number: i32 = row.try_get(0).map_err(|error| super::error(doing, error))?;
    let version: String = row.try_get(1).map_err(|error| super::error(doing, error))?;
    check_version(number, &version)
}

/// The same of a `server_version_num` and its text.
pub(super) fn check_version(number: i32, version: &str) -> Result<()> {
    if number >= OLDEST_SERVER * 10_000 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Database,
        format!("the server is PostgreSQL {version}, but {OLDEST_SERVER} or newer is needed"),
    )
    .with_hint("upgrade the server, or use a database on a newer one"))
}

impl From<highwater_connect::Error> for Error {
    fn from(error: highwater_connect::Error) -> Error {
        let mut ours = Error::new(kind_of(error.kind()), error.message());
        if let Some(location) = error.location() {
            ours = ours.with_location(location);
        }
        if let Some(hint) = error.hint() {
            ours = ours.with_hint(hint);
        }
        if let Some(sqlstate) = error.sqlstate() {
            ours = ours.with_sqlstate(sqlstate);
        }
        match error.into_source() {
            Some(source) => ours.with_source(source),
            None => ours,
        }
    }
}

fn kind_of(kind: highwater_connect::ErrorKind) -> ErrorKind {
    use highwater_connect::ErrorKind::{NotReady, PoolBusy, Refused, Setting, Tls, Unreachable};
    match kind {
        Setting => ErrorKind::Config,
        Unreachable | NotReady => ErrorKind::ConnectionLost,
        Refused | Tls => ErrorKind::Database,
        PoolBusy => ErrorKind::Locked,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[database]\nurl = \"postgresql://app@pooler/file\"\n\
                          direct_url = \"postgresql://app@server/file\"\n";

    fn resolve(flag: Option<&str>, variables: &[(&str, &str)], text: &str) -> Option<Connector> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let config = Config::parse(text, "f").expect("parses");
        resolve_database(flag, &lookup, Some(&config)).expect("resolves")
    }

    fn database(flag: Option<&str>, variables: &[(&str, &str)], text: &str) -> Option<String> {
        resolve(flag, variables, text).map(|connector| connector.database())
    }

    #[test]
    fn the_flag_goes_before_the_environment_the_file_and_libpq() {
        let flag = Some("postgresql://app@h/flag");
        let all = [
            ("DATABASE_URL", "postgresql://app@h/env"),
            ("PGDATABASE", "libpq"),
        ];
        assert_eq!(database(flag, &all, CONFIG).as_deref(), Some("flag"));
        assert_eq!(database(None, &all, CONFIG).as_deref(), Some("env"));
        assert_eq!(database(None, &all[1..], CONFIG).as_deref(), Some("file"));
        assert_eq!(database(None, &all[1..], "").as_deref(), Some("libpq"));
        assert_eq!(database(None, &[], ""), None);
        assert_eq!(
            database(None, &[("PGPASSWORD", "x"), ("PGSSLMODE", "require")], ""),
            None
        );
    }

    #[test]
    fn the_direct_url_listens_for_the_url_beside_it_only() {
        let connector = resolve(None, &[], CONFIG).expect("named");
        assert_eq!(connector.describe(), "file on pooler:5432 as app");
        assert_eq!(connector.direct().describe(), "file on server:5432 as app");
        let connector = resolve(Some("postgresql://app@h/flag"), &[], CONFIG).expect("named");
        assert_eq!(connector.direct().describe(), "flag on h:5432 as app");
    }

    #[test]
    fn the_variables_fill_what_the_url_leaves_out() {
        let variables = [("PGPORT", "6000"), ("PGUSER", "jo"), ("PGHOST", "other")];
        let connector = resolve(Some("postgresql://h/d"), &variables, "").expect("named");
        assert_eq!(connector.describe(), "d on h:6000 as jo");
    }

    #[test]
    fn an_error_names_the_place_and_not_the_password() {
        let error = resolve_database(Some("postgresql://a:hunter2@h:x/d"), &|_| None, None);
        let error = error.expect_err("no port").to_string();
        assert!(error.starts_with("--database-url: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_server_older_than_14_is_refused_by_version() {
        assert!(check_version(140_000, "14.0").is_ok());
        assert_eq!(
            check_version(130_014, "13.14")
                .expect_err("too old")
                .to_string(),
            "the server is PostgreSQL 13.14, but 14 or newer is needed; upgrade the server, or use a \
             database on a newer one"
        );
    }
}
