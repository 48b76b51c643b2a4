//! One database: how to reach it, and the pool of sessions that everything in it shares.
//!
//! Every wait for the server has a limit. Opening a session and waiting for a pooled one have
//! theirs in [`super::connect`], a batch has its own; all else goes through [`Short`].

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scopeguard::ScopeGuard;
use tokio_postgres::Client;

use crate::config::ANSWER_TIMEOUT;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::connect::{self, Connector, Pool, PooledClient};
use crate::pg::{self, migrate};
use crate::retry::{Verdict, verdict};

/// A database and its pool. Clones share the pool.
#[derive(Clone)]
pub struct Database {
    connector: Connector,
    pool: Pool,
    answer_timeout: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.connector).finish()
    }
}

impl Database {
    /// The database that `connector` leads to, with at most `sessions` pooled sessions. Nothing
    /// is opened yet.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Config`] for 0 sessions.
    pub fn new(connector: Connector, sessions: usize) -> Result<Database> {
        let connector = connect::with_defaults(&connector);
        let pool = connector.pool(sessions)?;
        Ok(Database {
            connector,
            pool,
            answer_timeout: ANSWER_TIMEOUT,
        })
    }

    /// The same with another limit for short statements, 10 s by default.
    #[must_use]
    pub fn with_answer_timeout(mut self, limit: Duration) -> Database {
        self.answer_timeout = limit;
        self
    }

    /// A session from the pool.
    ///
    /// # Errors
    /// If none could be opened, or none came free in time.
    pub async fn client(&self) -> Result<PooledClient> {
        Ok(self.connector.client_of(&self.pool).await?)
    }

    /// A session from the pool for short statements.
    ///
    /// # Errors
    /// As [`Database::client`].
    pub async fn short(&self) -> Result<Short> {
        let client = self.client().await?;
        Ok(self.limited(Session::Pooled(client)))
    }

    /// A session of its own for short statements.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn own(&self) -> Result<Short> {
        let opened = self.connector.open_session().await?;
        Ok(self.limited(Session::Own(opened)))
    }

    /// The error of a missing or old schema, if that is why a statement failed: it says more than
    /// that of a missing table.
    pub(crate) async fn explained(&self, error: Error) -> Error {
        if verdict(error.kind()) == Verdict::Transient {
            return error;
        }
        let Ok(client) = self.short().await else {
            return error;
        };
        let verified = client.within(migrate::verify(&*client)).await;
        verified.err().unwrap_or(error)
    }

    fn limited(&self, session: Session) -> Short {
        Short {
            open: scopeguard::guard(
                Open {
                    session,
                    is_owed: AtomicBool::new(false),
                },
                end as fn(Open),
            ),
            connector: self.connector.clone(),
            limit: self.answer_timeout,
        }
    }

    /// How to reach it.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The pool itself.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// A session that is closed, not returned, while an answer is outstanding: its next user would wait
/// for that answer first.
pub struct Short {
    open: ScopeGuard<Open, fn(Open)>,
    connector: Connector,
    limit: Duration,
}

struct Open {
    session: Session,
    /// Whether an answer is outstanding.
    is_owed: AtomicBool,
}

enum Session {
    Pooled(PooledClient),
    Own(connect::Session),
}

/// How long the request to cancel an abandoned statement may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

impl Short {
    /// Waits for statements that were sent on this session, within the limit for short ones. Beyond
    /// it they are cancelled in the server, if it still answers.
    ///
    /// # Errors
    /// Theirs, or [`ErrorKind::TimedOut`].
    pub async fn within<T>(&self, statements: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.limit, self.answered(statements)).await {
            Ok(answered) => answered,
            Err(_) => {
                // A statement that waits for a lock there would get it some day, and do its work
                // too late.
                let cancelled = self.connector.cancel(self.cancel_token());
                let _ = tokio::time::timeout(CANCEL_LIMIT, cancelled).await;
                Err(self.silent())
            }
        }
    }

    /// Waits for statements that were sent on this session as long as the caller does.
    ///
    /// # Errors
    /// Theirs.
    pub async fn answered<T>(&self, statements: impl Future<Output = Result<T>>) -> Result<T> {
        self.open.is_owed.store(true, Ordering::Relaxed);
        let done = statements.await;
        self.open.is_owed.store(false, Ordering::Relaxed);
        done
    }

    /// Closes the session: its outstanding answer is no longer wanted.
    pub fn close(self) {
        self.open.is_owed.store(true, Ordering::Relaxed);
    }

    fn silent(&self) -> Error {
        let limit = crate::config::format_duration(self.limit);
        Error::new(
            ErrorKind::TimedOut,
            format!("the server did not answer a short statement within {limit}"),
        )
        .with_location(self.connector.describe())
        .with_hint(
            "it hangs, is cut off, or another session locks a table of highwater; the engine \
             tries a new session",
        )
    }
}

impl Deref for Short {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.open.session {
            Session::Pooled(client) => client,
            Session::Own(opened) => opened,
        }
    }
}

/// A pooled session returns to its pool, unless an answer is outstanding; another one ends with its
/// connection.
fn end(open: Open) {
    if let Session::Pooled(client) = open.session
        && open.is_owed.load(Ordering::Relaxed)
    {
        drop(PooledClient::take(client));
    }
}

/// The name of a running server: everything that crashes together has one name.
pub(crate) async fn server(client: &Client) -> Result<String> {
    let sql = include_str!("../../sql/queries/source/server.sql");
    let row = client.query_typed_one(sql, &[]).await;
    let row = row.map_err(|e| pg::error("cannot ask which server this is", e))?;
    pg::column(&row, 0)
}
