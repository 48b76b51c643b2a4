//! Listens for wakes of other instances and of operators.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::pg::connect::Connector;
use crate::pg::instance;
use crate::retry::delays;

/// How long to wait at most before the next try to listen.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The connection that listens, until it is dropped.
pub(super) struct Listening {
    connected: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Listening {
    /// Notifies `wake` whenever there may be news; without a connector never.
    pub(super) fn start(connector: Option<Connector>, wake: Arc<Notify>) -> Listening {
        let (connected, is_connected) = watch::channel(false);
        let task = tokio::spawn(async move {
            if let Some(connector) = connector {
                listen(connector, wake, connected).await;
            }
        });
        Listening {
            connected: is_connected,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

async fn listen(connector: Connector, wake: Arc<Notify>, connected: watch::Sender<bool>) {
    let mut pauses = delays(PAUSE_MAX);
    loop {
        match connector.listen(instance::CHANNEL).await {
            Ok(mut notifications) => {
                pauses = delays(PAUSE_MAX);
                connected.send_replace(true);
                // Earlier notifications are lost.
                wake.notify_one();
                while notifications.recv().await.is_ok() {
                    wake.notify_one();
                }
                connected.send_replace(false);
                wake.notify_one();
            }
            Err(error) => tracing::debug!(error = %error, "cannot listen to other instances"),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
    }
}
