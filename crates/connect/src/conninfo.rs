//! Connection strings: a URL or `key=value` text as PostgreSQL writes them, taken apart.
//!
//! The driver's own parser refuses every option it does not know, `sslrootcert` among them, so
//! the text is read here and the driver gets values.

use crate::error::{Error, ErrorKind, Result};

/// One option and its value, in the order given; a later one replaces an earlier one.
pub(crate) type Pairs = Vec<(String, String)>;

const FORM: &str =
    "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE or host=HOST dbname=DATABASE";
const ENCODE: &str = "write @ as %40, : as %3A, / as %2F and ? as %3F inside names and passwords";

/// The options of a connection string; no message holds any of its values.
pub(crate) fn pairs(text: &str) -> Result<Pairs> {
    let text = text.trim();
    if text.is_empty() {
        return Err(broken("the connection string is empty"));
    }
    if text.contains('\0') {
        return Err(broken("the connection string holds a NUL character"));
    }
    match url_rest(text) {
        Some(rest) => url_pairs(rest),
        None if text.contains('=') => key_value_pairs(text),
        None => Err(broken(
            "the connection string is neither a URL nor key=value text",
        )),
    }
}

/// The connection string without its password, for messages.
///
/// What cannot be understood is not shown at all: any part of it might be the password.
pub fn redact(text: &str) -> String {
    let Ok(pairs) = pairs(text) else {
        return "(a connection string that cannot be read)".to_owned();
    };
    let shown = pairs.iter().map(|(key, value)| {
        if is_secret(key) {
            format!("{key}=***")
        } else {
            format!("{key}={}", quoted(value))
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn is_secret(key: &str) -> bool {
    key.contains("password")
}

fn quoted(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && c != '\'' && c != '\\';
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Setting, what).with_hint(FORM)
}

fn ambiguous() -> Error {
    Error::new(
        ErrorKind::Setting,
        "the database URL has an @ or : that is not percent-encoded",
    )
    .with_hint(ENCODE)
}

fn url_rest(text: &str) -> Option<&str> {
    ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
}

fn url_pairs(rest: &str) -> Result<Pairs> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let mut pairs = Pairs::new();
    let hosts = match authority.split_once('@') {
        Some((credentials, hosts)) => {
            credential_pairs(credentials, &mut pairs)?;
            hosts
        }
        // A password with a raw slash or question mark ends up in the tail, with the @ after it.
        None if tail.contains('@') => return Err(ambiguous()),
        None => authority,
    };
    host_pairs(hosts, &mut pairs)?;
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let database = decode(path.strip_prefix('/').unwrap_or(path))?;
    if !database.is_empty() {
        pairs.push(("dbname".to_owned(), database));
    }
    query_pairs(query, &mut pairs)?;
    Ok(pairs)
}

fn credential_pairs(credentials: &str, pairs: &mut Pairs) -> Result<()> {
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    if !user.is_empty() {
        pairs.push(("user".to_owned(), decode(user)?));
    }
    if let Some(password) = password {
        pairs.push(("password".to_owned(), decode(password)?));
    }
    Ok(())
}

fn host_pairs(hosts: &str, pairs: &mut Pairs) -> Result<()> {
    if hosts.is_empty() {
        return Ok(());
    }
    if hosts.contains('@') {
        return Err(ambiguous());
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    pairs.push(("host".to_owned(), names.join(",")));
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    Ok(())
}

fn host_and_port(host: &str) -> Result<(&str, &str)> {
    let Some(inner) = host.strip_prefix('[') else {
        let (name, port) = host.split_once(':').unwrap_or((host, ""));
        // `user:pass/word@host` reads as a host and a port; show neither.
        if port.bytes().any(|b| !b.is_ascii_digit()) {
            return Err(broken("the port in the database URL is not a number"));
        }
        return Ok((name, port));
    };
    let unclosed = || broken("the address in brackets in the database URL is not closed by ]");
    let (name, after) = inner.split_once(']').ok_or_else(unclosed)?;
    match after.strip_prefix(':') {
        Some(port) => Ok((name, port)),
        None if after.is_empty() => Ok((name, "")),
        None => Err(unclosed()),
    }
}

fn query_pairs(query: &str, pairs: &mut Pairs) -> Result<()> {
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(broken("an option after ? in the database URL has no value"));
        };
        // libpq's two spellings from JDBC.
        match (decode(key)?.as_str(), decode(value)?) {
            ("ssl", value) if value == "true" => {
                pairs.push(("sslmode".to_owned(), "require".to_owned()));
            }
            (key, value) => pairs.push((key.to_owned(), value)),
        }
    }
    Ok(())
}

/// Percent-decoding as libpq does it: `+` stays a plus sign.
fn decode(text: &str) -> Result<String> {
    let wrong = || {
        Error::new(
            ErrorKind::Setting,
            "the database URL has a % that is not followed by two hex digits of UTF-8 text",
        )
        .with_hint("write % itself as %25")
    };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digits = bytes.get(at + 1..at + 3).ok_or_else(wrong)?;
            decoded.push(hex(digits).filter(|&byte| byte != 0).ok_or_else(wrong)?);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).map_err(|_| wrong())
}

fn hex(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |sum, &digit| {
        let value = char::from(digit).to_digit(16)?;
        u8::try_from(value).ok().map(|value| (sum << 4) | value)
    })
}

fn key_value_pairs(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err(broken("an option in the connection string has no value"));
        };
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(broken("an option in the connection string has no value"));
        }
        let (value, after) = key_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// One value, `'quoted'` or plain, a backslash keeping the next character; and what follows it.
fn key_value(text: &str) -> Result<(String, &str)> {
    let (is_quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if is_quoted => return Ok((value, &body[at + 1..])),
            c if c.is_whitespace() && !is_quoted => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if is_quoted {
        return Err(broken("a quote in the connection string is not closed"));
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Vec<String> {
        let pairs = pairs(text).expect("parses");
        pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect()
    }

    fn encode(text: &str) -> String {
        text.bytes().map(|b| format!("%{b:02X}")).collect()
    }

    #[test]
    fn a_url_is_taken_apart_and_decoded() {
        assert_eq!(
            of(
                "postgresql://app:p%40ss@db.example:6432/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem"
            ),
            [
                "user=app",
                "password=p@ss",
                "host=db.example",
                "port=6432",
                "dbname=shop",
                "sslmode=verify-full",
                "sslrootcert=/etc/ca.pem"
            ]
        );
        assert_eq!(
            of("postgres:///shop?host=/run/pg"),
            ["dbname=shop", "host=/run/pg"]
        );
        assert_eq!(
            of("postgres://%2Frun%2Fpg/shop"),
            ["host=/run/pg", "dbname=shop"]
        );
        assert_eq!(of("postgres://[::1]:5433"), ["host=::1", "port=5433"]);
        assert_eq!(
            of("postgres://a:1,b/x"),
            ["host=a,b", "port=1,", "dbname=x"]
        );
        assert_eq!(
            of("postgres://h/d?ssl=true"),
            ["host=h", "dbname=d", "sslmode=require"]
        );
    }

    #[test]
    fn key_value_text_is_taken_apart() {
        assert_eq!(
            of(r"host = localhost  password='it\'s a \\ secret' user=a\ b"),
            ["host=localhost", r"password=it's a \ secret", "user=a b"]
        );
    }

    #[test]
    fn a_password_that_is_not_encoded_is_refused_without_being_shown() {
        for text in [
            "postgresql://app:12/hunter2@db/shop",
            "postgresql://app:hunter/2@db/shop",
            "postgresql://app:1?hunter=2@db/shop",
            "postgresql://app:x@hunter2@db/shop",
            "postgresql://app:%hunter2@db/shop",
            "hunter2",
            "password='hunter2",
        ] {
            let error = pairs(text).expect_err(text).to_string();
            assert!(!error.contains("hunter"), "{error}");
            assert!(!redact(text).contains("hunter"), "{text}");
        }
    }

    #[test]
    fn redaction_keeps_everything_but_the_password() {
        assert_eq!(
            redact("postgresql://app:secret@db:1/shop?sslpassword=other"),
            "user=app password=*** host=db port=1 dbname=shop sslpassword=***"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(postgres(ql)?://)?\\PC{0,40}") {
            let _ = pairs(&text);
            let _ = redact(&text);
        }

        #[test]
        fn no_password_survives_redaction(password in "\\PC{1,12}QZX\\PC{1,12}") {
            let url = format!("postgresql://app:{}@db:5432/shop", encode(&password));
            prop_assert_eq!(&pairs(&url).expect("parses")[1].1, &password);
            prop_assert!(!redact(&url).contains("QZX"));
            let raw = format!("postgresql://app:{password}@db:5432/shop");
            prop_assert!(!redact(&raw).contains(&password));
            let text = format!("host=db password={} user=app", quoted(&password));
            prop_assert_eq!(&pairs(&text).expect("parses")[1].1, &password);
            prop_assert!(!redact(&text).contains("QZX"));
        }
    }
}
