//! Why a connection failed, in one sentence with the server's name and what to do.

use std::io;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use crate::connector::Connector;
use crate::error::{Error, ErrorKind};
use crate::open::{Cause, Failed};
use crate::settings::Endpoint;

const UNREACHABLE: &str =
    "check that the server runs, the host and port, and that a firewall lets them through";

impl Cause {
    /// The server has no rule for this role over this kind of connection.
    pub(crate) fn is_refused(&self) -> bool {
        match self {
            Cause::Driver(error) => {
                error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
            }
            _ => false,
        }
    }

    /// TLS itself failed.
    pub(crate) fn is_tls(&self) -> bool {
        match self {
            Cause::Driver(error) => is_handshake(error) || rustls_error(error).is_some(),
            _ => false,
        }
    }
}

impl Failed {
    pub(crate) fn explain(self, connector: &Connector) -> Error {
        let what = format!("cannot connect to {}", connector.database());
        match self.0 {
            None => Error::new(ErrorKind::Setting, format!("{what}: no host is given")),
            Some((endpoint, Cause::Driver(error))) => {
                let explained = explain(&what, Some(&endpoint), error);
                explained.with_location(endpoint.describe())
            }
            Some((endpoint, Cause::NoAnswer(limit))) => {
                silent(&what, Some(&endpoint), limit).with_location(endpoint.describe())
            }
            Some((_, Cause::Local(error))) => error,
        }
    }
}

fn silent(what: &str, endpoint: Option<&Endpoint>, limit: Duration) -> Error {
    Error::new(
        ErrorKind::Unreachable,
        format!("{what}: no answer within {} s", limit.as_secs_f32()),
    )
    .with_hint(unreachable_hint(endpoint))
}

pub(crate) fn no_answer(connector: &Connector, limit: Duration) -> Error {
    // The hint of one socket fits all sockets; hosts get the general advice.
    let all = &connector.settings.endpoints;
    let socket = all.first().filter(|_| all.iter().all(Endpoint::is_socket));
    silent("cannot connect", socket, limit).with_location(connector.describe())
}

/// The driver's error while connecting, as ours.
pub(crate) fn explain(
    what: &str,
    endpoint: Option<&Endpoint>,
    error: tokio_postgres::Error,
) -> Error {
    if let Some(tls) = rustls_error(&error) {
        let (why, hint) = tls_failure(tls);
        return Error::new(ErrorKind::Tls, format!("{what}: {why}"))
            .with_hint(hint)
            .with_source(error);
    }
    if is_handshake(&error) {
        let cause = cause_of(&error);
        return Error::new(ErrorKind::Tls, format!("{what}: {cause}"))
            .with_hint(handshake_hint(&cause))
            .with_source(error);
    }
    if error.as_db_error().is_some() {
        return refusal(what, error);
    }
    if is_timeout(&error) {
        return Error::new(
            ErrorKind::Unreachable,
            format!("{what}: the server did not answer in time"),
        )
        .with_hint(unreachable_hint(endpoint));
    }
    let is_login = ["authentication error", "invalid configuration"]
        .iter()
        .any(|kind| error.to_string().starts_with(kind));
    let ours = Error::from_driver(what, error);
    let hint = match ours.kind() {
        ErrorKind::Unreachable => unreachable_hint(endpoint),
        _ if is_login => {
            "give the password in the URL, in PGPASSWORD or in ~/.pgpass, or see pg_hba.conf"
        }
        _ => "check that this port is PostgreSQL's",
    };
    ours.with_hint(hint)
}

/// The driver has no other name for it.
fn is_timeout(error: &tokio_postgres::Error) -> bool {
    error.to_string() == tokio_postgres::Error::__private_api_timeout().to_string()
}

fn unreachable_hint(endpoint: Option<&Endpoint>) -> &'static str {
    match endpoint {
        Some(endpoint) if endpoint.is_socket() => {
            "check that the server runs and has its socket in this directory"
        }
        _ => UNREACHABLE,
    }
}

/// The server answered, and refused.
fn refusal(what: &str, error: tokio_postgres::Error) -> Error {
    let hint = refusal_hint(&error);
    let ours = Error::from_driver(what, error);
    match hint {
        Some(hint) => ours.with_hint(hint),
        None => ours,
    }
}

fn refusal_hint(error: &tokio_postgres::Error) -> Option<&'static str> {
    let db = error.as_db_error()?;
    if db.message().contains("startup parameter") {
        return Some(
            "there is a pooler in between: set its ignore_startup_parameters = options, and \
             `alter role … set row_security = off` in the server",
        );
    }
    match db.code().code() {
        "28P01" => Some("check the password: in the URL, PGPASSWORD or ~/.pgpass"),
        "28000" => Some("check the role's name, sslmode and the server's pg_hba.conf"),
        "3D000" => Some("create the database, or name another one"),
        "42501" => Some("`grant connect on database … to …`"),
        "53300" => Some("lower pool_size, or raise the server's max_connections"),
        "57P03" => Some("wait until the server is up"),
        _ => None,
    }
}

fn is_handshake(error: &tokio_postgres::Error) -> bool {
    error.to_string() == "error performing TLS handshake"
}

fn cause_of(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn handshake_hint(cause: &str) -> &'static str {
    if cause.contains("does not support TLS") {
        "set ssl = on in the server, or connect with sslmode=prefer or disable"
    } else {
        "check that the server and its port speak PostgreSQL with TLS"
    }
}

/// rustls hides in an `io::Error`, whose `source` leaves out the error it holds.
fn rustls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let held = inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(found) = held.and_then(|held| held.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

fn tls_failure(error: &rustls::Error) -> (String, &'static str) {
    match error {
        rustls::Error::InvalidCertificate(why) => certificate_failure(why),
        rustls::Error::AlertReceived(alert) => (
            format!("the server ended TLS with the alert {alert:?}"),
            "if the server asks for a client certificate, give one it trusts with sslcert and \
             sslkey",
        ),
        other => (
            format!("TLS failed: {other}"),
            "check the server's TLS settings and its certificate",
        ),
    }
}

fn certificate_failure(why: &CertificateError) -> (String, &'static str) {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the server's certificate has expired".to_owned(),
            "renew it, and check this machine's clock",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "the server's certificate is not valid yet".to_owned(),
            "check this machine's clock",
        ),
        CertificateError::NotValidForName => (wrong_name(&[]), NAME_HINT),
        CertificateError::NotValidForNameContext { presented, .. } => {
            (wrong_name(presented), NAME_HINT)
        }
        CertificateError::UnknownIssuer => (
            "the server's certificate comes from an issuer that is not trusted".to_owned(),
            "name the issuer's certificate with sslrootcert=FILE",
        ),
        other if format!("{other:?}").contains("UnsupportedCertVersion") => (
            "the server's certificate is in the old X.509 form, version 1".to_owned(),
            "sign it anew with a subjectAltName, which makes it version 3",
        ),
        other => (
            format!("the server's certificate is not accepted: {other}"),
            "inspect it with openssl s_client -starttls postgres, and renew it",
        ),
    }
}

const NAME_HINT: &str = "connect by a name that its subjectAltName has (a common name is \
                         ignored), or use sslmode=verify-ca";

fn wrong_name(presented: &[String]) -> String {
    if presented.is_empty() {
        return "the server's certificate does not name this host".to_owned();
    }
    format!(
        "the server's certificate does not name this host but {}",
        presented.join(", ")
    )
}
