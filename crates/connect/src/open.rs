//! From the settings to a session: which server, which kind of connection, which options.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio_postgres::{Client, Config};

use crate::connector::{Connector, Link};
use crate::error::{Error, Result};
use crate::passfile;
use crate::settings::Endpoint;
use crate::tls::{SslMode, TlsSettings};

impl Connector {
    /// Tries every endpoint in order, each within the timeout.
    pub(crate) async fn open(&self) -> Result<(Client, Link), Failed> {
        let mut order: Vec<&Endpoint> = self.settings.endpoints.iter().collect();
        if self.settings.shuffle && order.len() > 1 {
            let count = order.len();
            order.rotate_left(random() % count);
        }
        let mut failed = None;
        for endpoint in order {
            match self.open_in_time(endpoint).await {
                Ok(opened) => return Ok(opened),
                Err(cause) => failed = Some(Failed::new(endpoint, cause)),
            }
        }
        Err(failed.unwrap_or_default())
    }

    async fn open_in_time(&self, endpoint: &Endpoint) -> Result<(Client, Link), Cause> {
        let Some(limit) = self.settings.timeout else {
            return self.open_at(endpoint).await;
        };
        match tokio::time::timeout(limit, self.open_at(endpoint)).await {
            Ok(opened) => opened,
            Err(_) => Err(Cause::NoAnswer(limit)),
        }
    }

    /// One endpoint, with the second try that `allow` and `prefer` mean.
    async fn open_at(&self, endpoint: &Endpoint) -> Result<(Client, Link), Cause> {
        use tokio_postgres::config::SslMode::{Disable, Prefer, Require};
        if endpoint.is_socket() {
            let tls = self.settings.tls.without_files();
            return self.attempt(endpoint, Disable, &tls).await;
        }
        let tls = &self.settings.tls;
        let plain = tls.without_files();
        match tls.mode {
            SslMode::Disable => self.attempt(endpoint, Disable, &plain).await,
            SslMode::Allow => match self.attempt(endpoint, Disable, &plain).await {
                Err(cause) if cause.is_refused() => self.attempt(endpoint, Require, tls).await,
                opened => opened,
            },
            SslMode::Prefer => match self.attempt(endpoint, Prefer, tls).await {
                Err(cause) if cause.is_refused() || cause.is_tls() => {
                    let second = self.attempt(endpoint, Disable, &plain).await;
                    second.map_err(|second| if second.is_refused() { cause } else { second })
                }
                opened => opened,
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                self.attempt(endpoint, Require, tls).await
            }
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        mode: tokio_postgres::config::SslMode,
        tls: &TlsSettings,
    ) -> Result<(Client, Link), Cause> {
        let tls = tls.connector().map_err(Cause::Local)?;
        let mut config = self.config(endpoint);
        config.ssl_mode(mode);
        config.connect(tls).await.map_err(Cause::Driver)
    }

    /// The driver's configuration for one endpoint.
    pub(crate) fn config(&self, endpoint: &Endpoint) -> Config {
        use tokio_postgres::config::SslNegotiation;
        let settings = &self.settings;
        let mut config = Config::new();
        config.host(&endpoint.host).port(endpoint.port);
        if let Some(address) = endpoint.address {
            config.hostaddr(address);
        }
        config.user(&settings.user).dbname(&settings.database);
        if let Some(password) = self.password(endpoint) {
            config.password(password);
        }
        let defaults = &settings.defaults;
        let options = settings.options.as_deref().unwrap_or_default();
        let options = format!("{} {options}", defaults.options);
        let name = settings.application_name.as_deref();
        config
            .options(options.trim())
            .application_name(name.unwrap_or(defaults.application_name))
            .keepalives(settings.keepalive.enabled)
            .keepalives_idle(settings.keepalive.idle)
            .keepalives_interval(settings.keepalive.interval)
            .keepalives_retries(settings.keepalive.retries)
            .tcp_user_timeout(settings.keepalive.user_timeout)
            .channel_binding(settings.channel_binding)
            .target_session_attrs(settings.session);
        if settings.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if let Some(limit) = settings.timeout {
            config.connect_timeout(limit);
        }
        config
    }

    fn password(&self, endpoint: &Endpoint) -> Option<String> {
        let settings = &self.settings;
        settings.password.clone().or_else(|| {
            let wanted = passfile::Wanted::new(endpoint, &settings.database, &settings.user);
            passfile::find(settings.passfile.as_deref()?, &wanted)
        })
    }
}

/// Any number: a new hasher has keys of its own.
fn random() -> usize {
    let hash = RandomState::new().build_hasher().finish();
    usize::from(hash.to_le_bytes()[0])
}

/// Why one endpoint gave no session.
pub(crate) enum Cause {
    Driver(tokio_postgres::Error),
    NoAnswer(Duration),
    Local(Error),
}

/// The last endpoint that was tried, and why it failed.
#[derive(Default)]
pub(crate) struct Failed(pub(crate) Option<(Endpoint, Cause)>);

impl Failed {
    fn new(endpoint: &Endpoint, cause: Cause) -> Failed {
        Failed(Some((endpoint.clone(), cause)))
    }
}
