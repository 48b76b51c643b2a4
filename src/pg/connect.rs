//! The one way to a PostgreSQL server: from a connection string to a session whose settings are
//! known, with libpq's meaning of every option.

mod environment;
mod failure;
mod listen;
mod passfile;
mod pool;
mod resolve;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Client, Config, Connection, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::conninfo;
use crate::pg::tls::SslMode;
use settings::{Endpoint, Settings, Surroundings};

pub use listen::Notifications;
pub use pool::{Pool, PooledClient, pool_error};
pub use resolve::resolve_database;

/// The oldest major version of PostgreSQL that works.
pub const OLDEST_SERVER: i32 = 14;

/// What every session starts with; the user's own `options` come after it and win.
///
/// - `row_security=off`: a row that a policy hides would look rolled back, so it is an error.
/// - `read committed`: the mark needs a new snapshot for each statement.
/// - `TimeZone=UTC`, `client_min_messages=warning`: the same text on every machine, no chatter.
const SESSION: &str = r"-c row_security=off -c default_transaction_isolation=read\ committed -c TimeZone=UTC -c client_min_messages=warning";

/// What the driver gives for a connection over rustls.
type Link = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// How to reach one database. Cheap to clone; neither Debug nor Display show the password.
#[derive(Clone)]
pub struct Connector {
    settings: Arc<Settings>,
    /// Where LISTEN goes, if not there as well.
    direct: Option<Arc<Settings>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.describe()).finish()
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Connector {
    /// A connector from a URL or `key=value` text.
    ///
    /// What the text leaves out has libpq's defaults, but for these: `connect_timeout` 10 s for
    /// each server, authentication included (a dead address is noticed while a command waits);
    /// TCP keepalives after 30 s and `tcp_user_timeout` 60 s (the system's two hours would leave
    /// a session hanging); `application_name` `highwater`. The PG* variables are not read: see
    /// [`Connector::parse_with`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for what cannot be understood, never showing the password.
    pub fn parse(text: &str) -> Result<Connector> {
        Connector::parse_with(text, &|_| None)
    }

    /// As [`Connector::parse`], with what the text leaves out taken from the PG* variables.
    ///
    /// # Errors
    /// As [`Connector::parse`].
    pub fn parse_with(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Connector> {
        let mut pairs = environment::pairs(lookup)?;
        pairs.extend(conninfo::pairs(text)?);
        Connector::from_pairs(pairs, lookup)
    }

    fn from_pairs(
        pairs: conninfo::Pairs,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Connector> {
        let settings = Settings::from_pairs(pairs, &Surroundings::of(lookup))?;
        Ok(Connector {
            settings: Arc::new(settings),
            direct: None,
        })
    }

    fn with(&self, change: impl Fn(&mut Settings)) -> Connector {
        let changed = |settings: &Arc<Settings>| {
            let mut settings = Settings::clone(settings);
            change(&mut settings);
            Arc::new(settings)
        };
        Connector {
            settings: changed(&self.settings),
            direct: self.direct.as_ref().map(changed),
        }
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Connector {
        self.with(|settings| name.clone_into(&mut settings.database))
    }

    /// The same, under this name in `pg_stat_activity` (the server keeps 63 bytes of it).
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> Connector {
        self.with(|settings| name.clone_into(&mut settings.application_name))
    }

    /// The same, but [`Connector::listen`] goes to `direct`, past a pooler.
    #[must_use]
    pub fn with_direct(&self, direct: &Connector) -> Connector {
        Connector {
            settings: Arc::clone(&self.settings),
            direct: Some(Arc::clone(&direct.settings)),
        }
    }

    /// The connector that [`Connector::listen`] uses: without a pooler in between, if one was
    /// named.
    #[must_use]
    pub fn direct(&self) -> Connector {
        Connector {
            settings: Arc::clone(self.direct.as_ref().unwrap_or(&self.settings)),
            direct: None,
        }
    }

    /// The name of the database.
    pub fn database(&self) -> String {
        self.settings.database.clone()
    }

    /// The name of the role.
    pub fn user(&self) -> String {
        self.settings.user.clone()
    }

    /// Which database, where and as whom, for messages: `shop on db.example:5432 as app`.
    pub fn describe(&self) -> String {
        let settings = &self.settings;
        let servers: Vec<String> = settings.endpoints.iter().map(Endpoint::describe).collect();
        let servers = servers.join(",");
        format!("{} on {servers} as {}", settings.database, settings.user)
    }

    /// A session of its own; its connection runs in a task that ends when the client is dropped.
    ///
    /// The servers named are tried in order, each once.
    ///
    /// # Errors
    /// [`ErrorKind::ConnectionLost`] when no server can be reached or it is not ready yet,
    /// [`ErrorKind::Database`] when it refuses (role, password, database, certificate),
    /// [`ErrorKind::Config`] for a file that TLS needs.
    pub async fn connect(&self) -> Result<Client> {
        let (client, link) = self.open().await.map_err(|failed| failed.explain(self))?;
        drive(link);
        Ok(client)
    }

    /// As [`Connector::connect`], tried again with growing delay (50 ms to 1 s, jittered) while
    /// the server cannot be reached, for as long as `limit`.
    ///
    /// # Errors
    /// The last error of [`Connector::connect`]; any but a lost connection at once.
    pub async fn connect_within(&self, limit: Duration) -> Result<Client> {
        let end = Instant::now() + limit;
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(1))
            .without_max_times()
            .with_jitter()
            .build();
        let mut last = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let error = match tokio::time::timeout(left, self.connect()).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) if error.kind() != ErrorKind::ConnectionLost => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or_else(|| failure::no_answer(self, limit))),
            };
            let delay = delays.next().unwrap_or(Duration::from_secs(1));
            if Instant::now() + delay >= end {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep(delay).await;
        }
    }

    /// Asks the server to cancel what the token's session is doing.
    ///
    /// That the request arrived does not mean that the statement was cancelled.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn cancel(&self, token: CancelToken) -> Result<()> {
        let tls = self.tls_for_any()?;
        let cancel = token.cancel_query(tls);
        let limit = self.settings.timeout.unwrap_or(Duration::MAX);
        match tokio::time::timeout(limit, cancel).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure::explain("cannot cancel a statement", None, error)),
            Err(_) => Err(failure::no_answer(self, limit)),
        }
    }

    fn tls_for_any(&self) -> Result<MakeRustlsConnect> {
        let settings = &self.settings;
        if settings.endpoints.iter().all(Endpoint::is_socket) {
            return self.settings.tls.without_files().connector();
        }
        settings.tls.connector()
    }

    /// Every endpoint in order, each within the timeout.
    async fn open(&self) -> Result<(Client, Link), Failed> {
        let mut order: Vec<&Endpoint> = self.settings.endpoints.iter().collect();
        if self.settings.shuffle && order.len() > 1 {
            let start = usize::from(uuid::Uuid::new_v4().as_bytes()[0]);
            let count = order.len();
            order.rotate_left(start % count);
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
        tls: &crate::pg::tls::TlsSettings,
    ) -> Result<(Client, Link), Cause> {
        let tls = tls.connector().map_err(Cause::Local)?;
        let mut config = self.config(endpoint);
        config.ssl_mode(mode);
        config.connect(tls).await.map_err(Cause::Driver)
    }

    /// The driver's configuration for one endpoint.
    fn config(&self, endpoint: &Endpoint) -> Config {
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
        let options = settings.options.as_deref().unwrap_or_default();
        config
            .options(format!("{SESSION} {options}").trim_end())
            .application_name(&settings.application_name)
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

/// Why one endpoint gave no session.
enum Cause {
    Driver(tokio_postgres::Error),
    NoAnswer(Duration),
    Local(Error),
}

/// The last endpoint tried, and why it failed.
#[derive(Default)]
struct Failed(Option<(Endpoint, Cause)>);

impl Failed {
    fn new(endpoint: &Endpoint, cause: Cause) -> Failed {
        Failed(Some((endpoint.clone(), cause)))
    }
}

/// Runs the connection until its client is dropped or the server goes.
fn drive(link: Link) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = link.await {
            tracing::debug!(error = %error, "connection ended");
        }
    })
}

/// Refuses a server that is older than [`OLDEST_SERVER`].
///
/// # Errors
/// [`ErrorKind::Database`], naming the version found and the one needed.
pub async fn check_server(client: &Client) -> Result<()> {
    let doing = "cannot ask the server for its version";
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int, current_setting('server_version')",
            &[],
        )
        .await
        .map_err(|error| crate::pg::error(doing, error))?;
    let number: i32 = row
        .try_get(0)
        .map_err(|error| crate::pg::error(doing, error))?;
    let version: String = row
        .try_get(1)
        .map_err(|error| crate::pg::error(doing, error))?;
    check_version(number, &version)
}

fn check_version(number: i32, version: &str) -> Result<()> {
    if number >= OLDEST_SERVER * 10_000 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Database,
        format!("the server is PostgreSQL {version}, but {OLDEST_SERVER} or newer is needed"),
    )
    .hint("upgrade the server, or use a database on a newer one"))
}

#[cfg(test)]
mod tests;
