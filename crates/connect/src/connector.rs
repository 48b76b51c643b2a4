//! How to reach one database, and the sessions that this gives.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Client, Connection, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Result;
use crate::settings::{Defaults, Endpoint, Settings, Surroundings};
use crate::{conninfo, environment, failure};

/// What the driver gives for a connection over rustls.
pub(crate) type Link = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// How to reach one database. Cheap to clone; neither Debug nor Display show the password.
#[derive(Clone)]
pub struct Connector {
    pub(crate) settings: Arc<Settings>,
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
    /// session hanging). The PG* variables are not read: see [`Connector::parse_with`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Setting`] for what cannot be understood, never showing the password.
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

    pub(crate) fn from_pairs(
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
        self.with(|settings| settings.application_name = Some(name.to_owned()))
    }

    /// The same, with sessions that start with these defaults.
    #[must_use]
    pub fn with_defaults(&self, defaults: Defaults) -> Connector {
        self.with(|settings| settings.defaults = defaults)
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
    /// [`crate::ErrorKind::Unreachable`] when no server can be reached, [`crate::ErrorKind::NotReady`] when it takes
    /// no session now, [`crate::ErrorKind::Refused`] when it refuses (role, password, database),
    /// [`crate::ErrorKind::Tls`] for its certificate, [`crate::ErrorKind::Setting`] for a file that TLS needs.
    pub async fn connect(&self) -> Result<Client> {
        let (client, link) = self.open().await.map_err(|failed| failed.explain(self))?;
        drive(link);
        Ok(client)
    }

    /// As [`Connector::connect`], with the connection's task: it is ended when the session is
    /// dropped, also while an answer is outstanding.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn open_session(&self) -> Result<Session> {
        let (client, link) = self.open().await.map_err(|failed| failed.explain(self))?;
        Ok(Session {
            client,
            driving: drive(link),
        })
    }

    /// As [`Connector::connect`], retried with growing delay (50 ms to 1 s, jittered) while the
    /// server cannot be reached or is not ready, for as long as `limit`.
    ///
    /// # Errors
    /// The last error of [`Connector::connect`]; any that is not transient at once.
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
                Ok(Err(error)) if !error.kind().is_transient() => return Err(error),
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

    pub(crate) fn tls_for_any(&self) -> Result<MakeRustlsConnect> {
        let settings = &self.settings;
        if settings.endpoints.iter().all(Endpoint::is_socket) {
            return self.settings.tls.without_files().connector();
        }
        settings.tls.connector()
    }
}

/// How long a cancel request may take where connecting has no limit.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// A session and the task that runs its connection: with the one the other ends.
pub struct Session {
    client: Client,
    driving: JoinHandle<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// Runs the connection until its client is dropped or the server goes.
pub(crate) fn drive(link: Link) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = link.await {
            tracing::debug!(error = %error, "connection ended");
        }
    })
}

#[cfg(test)]
mod tests;
