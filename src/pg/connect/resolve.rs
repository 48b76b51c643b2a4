//! Which database a command means.

use super::Connector;
use crate::config::Config;
use crate::error::Result;

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
    let parse = |text: &str, place: &str| {
        Connector::parse_with(text, lookup).map_err(|error| error.with_location(place))
    };
    if let Some(text) = flag {
        return parse(text, "--database-url").map(Some);
    }
    if let Some(text) = lookup("DATABASE_URL").filter(|text| !text.is_empty()) {
        return parse(&text, "DATABASE_URL").map(Some);
    }
    let database = config.map(|config| &config.database);
    let Some(url) = database.and_then(|database| database.url.as_ref()) else {
        return Connector::from_lookup(lookup);
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
}
