//! A pool of sessions.

use std::time::Duration;

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, PoolError, QueueMode, RecyclingMethod, Runtime, TimeoutType,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::connector::{Connector, drive};
use crate::error::{Error, ErrorKind, Result};
use crate::failure;
use crate::open::{Cause, Failed};

/// deadpool's pool; [`pool_error`] makes its errors ours.
pub use deadpool_postgres::Pool;

/// A session that returns to its pool when dropped.
pub type PooledClient = deadpool_postgres::Object;

/// How long to wait for a session that others hold; a longer wait means that the pool is too small.
const WAIT: Duration = Duration::from_secs(30);

impl Connector {
    /// A pool of at most `pool_size` sessions, opened when first needed and kept until they break.
    ///
    /// Waiting for a session that others hold ends after 30 s, opening one when every server's
    /// `connect_timeout` has passed.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`] for a size of 0, or for a file that TLS needs and cannot read.
    pub fn pool(&self, pool_size: usize) -> Result<Pool> {
        if pool_size == 0 {
            return Err(
                Error::new(ErrorKind::Setting, "a pool needs at least one session")
                    .with_hint("set pool_size to 1 or more"),
            );
        }
        // Here the error can name it; a session that is opened later could not.
        self.tls_for_any()?;
        let config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager =
            Manager::from_connect(tokio_postgres::Config::new(), Opener(self.clone()), config);
        let count = u32::try_from(self.settings.endpoints.len()).unwrap_or(u32::MAX);
        // Twice, for the modes with a second try; the inner limits are to be met first.
        let create = self
            .settings
            .timeout
            .map(|limit| limit.saturating_mul(count).saturating_mul(2));
        Pool::builder(manager)
            .max_size(pool_size)
            // The one used last knows the catalogue and the tables already.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(create)
            .recycle_timeout(Some(WAIT))
            .build()
            .map_err(|error| {
                Error::new(
                    ErrorKind::Internal,
                    format!("cannot build the pool: {error}"),
                )
            })
    }

    /// A session from a pool of this connector, with an error that names the server.
    ///
    /// # Errors
    /// As [`Connector::connect`]; [`ErrorKind::PoolBusy`] when all sessions stayed in use.
    pub async fn client_of(&self, pool: &Pool) -> Result<PooledClient> {
        pool.get().await.map_err(|error| {
            let error = pool_error(error);
            match error.location() {
                None => error.with_location(self.describe()),
                Some(_) => error,
            }
        })
    }
}

/// A pool's error as ours.
pub fn pool_error(error: PoolError) -> Error {
    match error {
        PoolError::Backend(error) => failure::explain("cannot connect", None, error),
        PoolError::Timeout(TimeoutType::Wait) => Error::new(
            ErrorKind::PoolBusy,
            format!(
                "all sessions of the pool stayed in use for {} s",
                WAIT.as_secs()
            ),
        )
        .with_hint("raise pool_size"),
        PoolError::Timeout(_) => {
            Error::new(ErrorKind::Unreachable, "the server did not answer in time")
        }
        error => Error::new(ErrorKind::Internal, format!("the pool failed: {error}")),
    }
}

struct Opener(Connector);

type Connecting<'a> = std::pin::Pin<
    Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>,
>;

impl Connect for Opener {
    fn connect(&self, _: &tokio_postgres::Config) -> Connecting<'_> {
        Box::pin(async move {
            let opened = self.0.open().await;
            let (client, link) = opened.map_err(|failed| failed.into_driver_error(&self.0))?;
            Ok((client, drive(link)))
        })
    }
}

impl Failed {
    /// The driver's error where there is one. The pool passes on no other kind: the rest becomes a
    /// time-out, and its own message goes to the log.
    fn into_driver_error(self, connector: &Connector) -> tokio_postgres::Error {
        match self.0 {
            Some((_, Cause::Driver(error))) => error,
            other => {
                let error = Failed(other).explain(connector);
                tracing::warn!(error = %error, "cannot connect");
                tokio_postgres::Error::__private_api_timeout()
            }
        }
    }
}
