//! Sessions that hold the transaction of a batch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use scopeguard::ScopeGuard;
use tokio::time::timeout;
use tokio_postgres::CancelToken;

use crate::error::{Error, Result};
use crate::pg;
use crate::pg::connect::PooledClient;
use crate::retry::{Verdict, verdict};

/// How a batch in flight can be cancelled in the server.
#[derive(Clone, Default)]
pub(in crate::engine) struct InFlight(Arc<Mutex<Option<CancelToken>>>);

impl InFlight {
    fn set(&self, token: Option<CancelToken>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    pub(in crate::engine) fn get(&self) -> Option<CancelToken> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// How long the server may take to roll a batch back that it has refused already.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(10);

/// A pooled session that is closed, not returned, unless its transaction ended.
pub(in crate::engine) struct Session {
    // Before the client, which another batch may get as soon as it is dropped.
    cancellable: Cancellable,
    client: ScopeGuard<PooledClient, fn(PooledClient)>,
}

/// The batch of a session, while it can be cancelled.
struct Cancellable(InFlight);

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Session {
    pub(in crate::engine) fn new(client: PooledClient, in_flight: &InFlight) -> Session {
        in_flight.set(Some(client.cancel_token()));
        Session {
            cancellable: Cancellable(in_flight.clone()),
            client: scopeguard::guard(client, |client| drop(PooledClient::take(client))),
        }
    }

    pub(in crate::engine) fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }

    /// Ends the transaction if it failed; a session that cannot even roll back is closed. So is a
    /// session with a transient failure: the next attempt gets the server's settings of that time.
    pub(in crate::engine) async fn finish(self, failed: Option<&Error>) {
        if let Some(error) = failed {
            if verdict(error.kind()) == Verdict::Transient {
                return;
            }
            let rolled_back = self.client().batch_execute("rollback");
            if !matches!(timeout(ROLLBACK_LIMIT, rolled_back).await, Ok(Ok(()))) {
                return;
            }
        }
        drop(self.cancellable);
        drop(ScopeGuard::into_inner(self.client));
    }
}

/// Sends a keepalive on a session before it was silent for too long.
pub(super) struct Keepalive<'a> {
    session: &'a Session,
    pause: Duration,
    due: Instant,
}

impl<'a> Keepalive<'a> {
    pub(super) fn new(session: &'a Session, pause: Duration) -> Keepalive<'a> {
        Keepalive {
            session,
            pause,
            due: Instant::now() + pause,
        }
    }

    pub(super) async fn during<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(waiting);
        loop {
            if self.due <= Instant::now() {
                self.beat().await?;
            }
            tokio::select! {
                done = &mut waiting => return Ok(done),
                () = tokio::time::sleep_until(self.due.into()) => {}
            }
        }
    }

    async fn beat(&mut self) -> Result<()> {
        let said = self.session.client().batch_execute("").await;
        self.due = Instant::now() + self.pause;
        said.map_err(|e| pg::error("cannot keep the transaction of the batch open", e))
    }
}
