//! Reads the options one by one; an option that is left over is not known.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

use crate::conninfo::Pairs;
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{Endpoint, Keepalive, Surroundings};
use crate::tls::{Roots, SslMode, TlsSettings};

/// Long enough for a busy server, short enough that a dead address is noticed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of libpq that change nothing here, or ask for what is always done.
const WITHOUT_EFFECT: [&str; 8] = [
    "client_encoding",
    "fallback_application_name",
    "gsslib",
    "gssdelegation",
    "krbsrvname",
    "sslcompression",
    "sslsni",
    "ssl_max_protocol_version",
];

const KNOWN: &str = "known are host, hostaddr, port, user, password, passfile, dbname, options, \
     application_name, connect_timeout, sslmode, sslrootcert, sslcert, sslkey, sslnegotiation, \
     ssl_min_protocol_version, channel_binding, target_session_attrs, load_balance_hosts, \
     keepalives, keepalives_idle, keepalives_interval, keepalives_count and tcp_user_timeout";

pub(crate) fn fault(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorKind::Setting, what).with_hint(hint)
}

/// The given options that were not read yet. An empty value counts as none, as for libpq.
pub(crate) struct Given(BTreeMap<String, String>);

impl Given {
    /// Later pairs replace earlier ones.
    pub(crate) fn new(pairs: Pairs) -> Given {
        Given(pairs.into_iter().collect())
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).filter(|value| !value.is_empty())
    }

    pub(crate) fn choice<T: Copy>(&mut self, key: &str, values: &[(&str, T)]) -> Result<Option<T>> {
        let Some(given) = self.take(key) else {
            return Ok(None);
        };
        if let Some((_, value)) = values.iter().find(|(name, _)| *name == given) {
            return Ok(Some(*value));
        }
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        Err(fault(
            format!("the connection option {key} cannot be {given:?}"),
            format!("use one of {}", names.join(", ")),
        ))
    }

    fn number(&mut self, key: &str) -> Result<Option<u32>> {
        let Some(given) = self.take(key) else {
            return Ok(None);
        };
        // libpq takes negative numbers as "the default".
        match given.parse::<i64>() {
            Ok(number) if number < 0 => Ok(None),
            Ok(number) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
            Err(_) => Err(fault(
                format!("the connection option {key}={given:?} is not a number"),
                "give a whole number",
            )),
        }
    }

    pub(crate) fn endpoints(&mut self) -> Result<Vec<Endpoint>> {
        let list = |text: Option<String>| -> Vec<String> {
            text.map_or_else(Vec::new, |text| {
                text.split(',').map(str::to_owned).collect()
            })
        };
        let (hosts, addresses) = (list(self.take("host")), list(self.take("hostaddr")));
        let ports = list(self.take("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        let fits = |list: &[String], one: bool| {
            list.is_empty() || list.len() == count || (one && list.len() == 1)
        };
        if !fits(&hosts, false) || !fits(&addresses, false) || !fits(&ports, true) {
            return Err(fault(
                "the connection names different numbers of hosts, addresses and ports",
                "give one port, or one for each host",
            ));
        }
        (0..count)
            .map(|at| {
                let port = ports.get(at).or(ports.first());
                endpoint(hosts.get(at), addresses.get(at), port)
            })
            .collect()
    }

    pub(crate) fn passfile(&mut self, around: &Surroundings) -> Option<PathBuf> {
        let given = self.take("passfile").map(PathBuf::from);
        given.or_else(|| around.home.as_ref().map(|home| home.join(".pgpass")))
    }

    pub(crate) fn application_name(&mut self) -> Option<String> {
        self.take("application_name")
            .or_else(|| self.take("fallback_application_name"))
    }

    pub(crate) fn timeout(&mut self) -> Result<Option<Duration>> {
        Ok(match self.number("connect_timeout")? {
            None => Some(CONNECT_TIMEOUT),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds.into())),
        })
    }

    /// By default a peer that vanished is noticed after a minute, idle or not: the system's own
    /// two hours would leave a wake or a lease hanging on a dead connection.
    pub(crate) fn keepalive(&mut self) -> Result<Keepalive> {
        let seconds = |value: Option<u32>, default: u64| {
            Duration::from_secs(value.filter(|v| *v > 0).map_or(default, u64::from))
        };
        Ok(Keepalive {
            enabled: self.number("keepalives")? != Some(0),
            idle: seconds(self.number("keepalives_idle")?, 30),
            interval: seconds(self.number("keepalives_interval")?, 10),
            retries: self
                .number("keepalives_count")?
                .filter(|v| *v > 0)
                .unwrap_or(3),
            user_timeout: self
                .number("tcp_user_timeout")?
                .map_or(Duration::from_secs(60), |ms| {
                    Duration::from_millis(ms.into())
                }),
        })
    }

    pub(crate) fn tls(&mut self, around: &Surroundings) -> Result<TlsSettings> {
        let roots = match self.take("sslrootcert") {
            None => Roots::Default,
            Some(system) if system == "system" => Roots::System,
            Some(file) => Roots::File(PathBuf::from(file)),
        };
        let tls = TlsSettings {
            mode: self.ssl_mode(&roots)?,
            roots,
            certificate: self.take("sslcert").map(PathBuf::from),
            key: self.take("sslkey").map(PathBuf::from),
            direct: self
                .choice("sslnegotiation", &[("postgres", false), ("direct", true)])?
                .unwrap_or(false),
            only_tls13: self.only_tls13()?,
            home: around.home.clone(),
        };
        if tls.direct && tls.mode < SslMode::Require {
            return Err(fault(
                "sslnegotiation=direct needs TLS, which this sslmode does not ask for",
                "use sslmode=require or stronger",
            ));
        }
        Ok(tls)
    }

    fn ssl_mode(&mut self, roots: &Roots) -> Result<SslMode> {
        let given = match self.take("sslmode") {
            None => None,
            Some(text) => Some(SslMode::parse(&text).ok_or_else(|| {
                fault(
                    format!("there is no sslmode {text:?}"),
                    "use disable, allow, prefer, require, verify-ca or verify-full",
                )
            })?),
        };
        match (given, roots) {
            (None, Roots::System) => Ok(SslMode::VerifyFull),
            // Anybody can get a certificate from a public issuer: only its name shows whose it is.
            (Some(mode), Roots::System) if mode < SslMode::VerifyFull => Err(fault(
                "sslrootcert=system needs sslmode=verify-full",
                "leave sslmode out, or name the issuer's file with sslrootcert",
            )),
            (mode, _) => Ok(mode.unwrap_or(SslMode::Prefer)),
        }
    }

    fn only_tls13(&mut self) -> Result<bool> {
        let versions = [
            ("TLSv1", false),
            ("TLSv1.1", false),
            ("TLSv1.2", false),
            ("TLSv1.3", true),
        ];
        Ok(self
            .choice("ssl_min_protocol_version", &versions)?
            .unwrap_or(false))
    }

    pub(crate) fn channel_binding(&mut self) -> Result<ChannelBinding> {
        let values = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        Ok(self
            .choice("channel_binding", &values)?
            .unwrap_or(ChannelBinding::Prefer))
    }

    /// `primary` and `standby` are asked as writable or not, the only question the driver has.
    pub(crate) fn session(&mut self) -> Result<TargetSessionAttrs> {
        let values = [
            ("any", TargetSessionAttrs::Any),
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("primary", TargetSessionAttrs::ReadWrite),
            ("read-only", TargetSessionAttrs::ReadOnly),
            ("standby", TargetSessionAttrs::ReadOnly),
        ];
        Ok(self
            .choice("target_session_attrs", &values)?
            .unwrap_or(TargetSessionAttrs::Any))
    }

    /// The options left over are not known. An option that asks for protection is never ignored.
    pub(crate) fn finish(mut self) -> Result<()> {
        for key in WITHOUT_EFFECT {
            self.0.remove(key);
        }
        self.choice("gssencmode", &[("disable", ()), ("prefer", ())])?;
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(fault(
                format!("the connection option {key:?} is not known"),
                format!("remove it; {KNOWN}"),
            )),
        }
    }
}

fn endpoint(
    host: Option<&String>,
    address: Option<&String>,
    port: Option<&String>,
) -> Result<Endpoint> {
    let filled = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let port = match filled(port) {
        None => 5432,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            fault(
                "the connection's port is not one",
                "give a number from 1 to 65535",
            )
        })?,
    };
    let address = match filled(address) {
        None => None,
        Some(text) => Some(text.parse::<IpAddr>().map_err(|_| {
            fault(
                format!("hostaddr={text:?} is not an IP address"),
                "use host for a name",
            )
        })?),
    };
    let host = filled(host)
        .or_else(|| address.map(|address| address.to_string()))
        .unwrap_or_else(|| default_host(port));
    Ok(Endpoint {
        host,
        address,
        port,
    })
}

/// As libpq: the local server's socket, in the place Debian or the source puts it, else TCP.
fn default_host(port: u16) -> String {
    let has_socket = |dir: &&str| {
        std::path::Path::new(dir)
            .join(format!(".s.PGSQL.{port}"))
            .exists()
    };
    let found = ["/var/run/postgresql", "/tmp"].into_iter().find(has_socket);
    found.unwrap_or("localhost").to_owned()
}
