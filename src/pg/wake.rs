//! Sends wakes: after the commit of an append, coalesced.
//!
//! A NOTIFY inside the append's transaction would take a lock of the whole cluster until its
//! commit. So each wake is a small transaction of its own, on a connection of its own, that waits
//! for no disk; at most one wake is in flight and one is pending, however many appends end
//! meanwhile. A wake is a hint: the engine polls too, so one that fails is logged and forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::pg;
use crate::pg::database::Database;
use crate::position::Position;

const SEND: &str = include_str!("../../sql/queries/wake/send.sql");

/// A wake that takes longer is useless.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two wakes where appends ended while the first was in flight: an engine that
/// was just woken polls by itself for a while, and each wake costs its session time.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends the wakes of one store. Clones share what is in flight.
#[derive(Clone)]
pub(crate) struct Waker {
    database: Database,
    state: Arc<watch::Sender<WakeState>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct WakeState {
    in_flight: bool,
    pending: Option<Position>,
}

impl Waker {
    pub(crate) fn new(database: Database) -> Waker {
        Waker {
            database,
            state: Arc::new(watch::Sender::new(WakeState::default())),
        }
    }

    /// Sends a wake soon, in the background. Must be called inside a tokio runtime.
    pub(crate) fn wake(&self, position: Position) {
        let idle = self.state.send_if_modified(|state| {
            state.pending = state.pending.max(Some(position));
            !std::mem::replace(&mut state.in_flight, true)
        });
        if idle {
            tokio::spawn(self.clone().send_pending());
        }
    }

    /// Returns when no wake is pending or in flight.
    pub(crate) async fn idle(&self) {
        let mut state = self.state.subscribe();
        // An error means that the sender is gone, and then nothing is in flight.
        let _ = state.wait_for(|state| !state.in_flight).await;
    }

    async fn send_pending(self) {
        while let Some(position) = self.take_pending() {
            match tokio::time::timeout(PATIENCE, self.send(position)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a wake was not sent"),
                Err(_) => {
                    let error = Error::new(ErrorKind::TimedOut, "no connection in time");
                    tracing::warn!(%error, "a wake was not sent");
                }
            }
            if self.state.borrow().pending.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Sends the pending wake next; without one nothing is in flight any more.
    fn take_pending(&self) -> Option<Position> {
        let mut taken = None;
        self.state.send_modify(|state| {
            taken = state.pending.take();
            state.in_flight = taken.is_some();
        });
        taken
    }

    async fn send(&self, position: Position) -> Result<()> {
        let client = self.database.client().await?;
        failpoint!("wake.begun");
        client
            .query_typed(SEND, &[(&position.get(), Type::INT8)])
            .await
            .map_err(|e| pg::own_statement_error("cannot wake", e))?;
        Ok(())
    }
}
