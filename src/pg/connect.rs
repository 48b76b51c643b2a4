//! The one way to a PostgreSQL server: from a connection string to a session whose settings are
//! known, with libpq's meaning of every option.

mod environment;
mod failure;
mod given;
mod listen;
mod open;
mod passfile;
mod pool;
mod resolve;
mod settings;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Client, Connection, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::conninfo;
use settings::{Endpoint, Settings, Surroundings};

pub use listen::Notifications;
pub use pool::{Pool, PooledClient, pool_error};
pub use resolve::resolve_database;

/// The oldest major version of PostgreSQL that works.
pub const OLDEST_SERVER: i32 = 14;

/// What the driver gives for a connection over rustls.
type Link = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// How to reach one database. Cheap to clone; neither Debug nor Display show the password.
#[derive(Clone)]
pub struct Connector {
    settings: Arc<Settings>,
    /// The server for LISTEN, if it is another one.
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
    /// What the text leaves out has libpq's defaults, except these: `connect_timeout` 10 s for each
    /// server, authentication included (a dead address is noticed while a command waits); TCP
    /// keepalives after 30 s and `tcp_user_timeout` 60 s (the system's two hours would leave a
    /// session hanging); `application_name` `highwater`. The PG* variables are not read: see
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

    /// The same, with this name in `pg_stat_activity` (the server keeps 63 bytes of it).
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

    /// As [`Connector::connect`], with the connection's task: it is ended when the session is
    /// dropped, also while an answer is outstanding.
    pub(crate) async fn open_session(&self) -> Result<Opened> {
        let (client, link) = self.open().await.map_err(|failed| failed.explain(self))?;
        Ok(Opened {
            client,
            driving: drive(link),
        })
    }

    /// As [`Connector::connect`], retried with growing delay (50 ms to 1 s, jittered) while the
    /// server cannot be reached, for as long as `limit`.
    ///
    /// # Errors
    /// The last error of [`Connector::connect`]; any but a lost connection at once.
    pub async fn connect_within(&self, limit: Duration) -> Result<Client> {
        let start = Instant::now();
        let left = || limit.saturating_sub(start.elapsed());
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(1))
            .without_max_times()
            .with_jitter()
            .build();
        let mut last = None;
        loop {
            let error = match tokio::time::timeout(left(), self.connect()).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) if error.kind() != ErrorKind::ConnectionLost => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or_else(|| failure::no_answer(self, limit))),
            };
            let delay = delays.next().unwrap_or(Duration::from_secs(1));
            if delay >= left() {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep(delay).await;
        }
    }

    /// Asks the server to cancel what the token's session is doing.
    ///
    /// An accepted request does not mean that the statement was cancelled.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn cancel(&self, token: CancelToken) -> Result<()> {
        let tls = self.tls_for_any()?;
        let cancel = token.cancel_query(tls);
        let limit = self.settings.timeout.unwrap_or(CANCEL_LIMIT);
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
}

/// How long a cancel request may take where connecting has no limit.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// A session and the task that runs its connection.
pub(crate) struct Opened {
    client: Client,
    driving: JoinHandle<()>,
}

impl Deref for Opened {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.driving.abort();
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
        .query_typed_one(
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
    .with_hint("upgrade the server, or use a database on a newer one"))
}

#[cfg(test)]
mod tests;
