//! LISTEN on a connection of its own: a pooled one would keep listening for its next user.

use std::future::poll_fn;

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client};

use crate::Connector;
use crate::connector::Link;
use crate::error::{Error, ErrorKind, Result};

/// The most notifications that wait to be received; further ones are dropped, because a waiting
/// wake already says everything.
const WAITING_MAX: usize = 64;

/// The notifications of one channel. Dropping it ends the connection.
#[derive(Debug)]
pub struct Notifications {
    arrived: mpsc::Receiver<Option<String>>,
    place: String,
    // The server ends the session when the client is gone.
    _client: Client,
}

impl Notifications {
    /// The next notification: its payload, none where it is empty.
    ///
    /// Safe to drop and call again. Of more than 64 that wait, the rest is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] when the connection is lost; notifications may then have been
    /// missed, so listen again and poll.
    pub async fn recv(&mut self) -> Result<Option<String>> {
        match self.arrived.recv().await {
            Some(payload) => Ok(payload),
            None => Err(
                Error::new(ErrorKind::Unreachable, "the listening connection was lost")
                    .with_location(self.place.clone())
                    .with_hint("listen again and read what may have come meanwhile"),
            ),
        }
    }
}

impl Connector {
    /// Listens on a channel, over a connection of its own to [`Connector::direct`]: a pooler in
    /// transaction mode would hand the session to others.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn listen(&self, channel: &str) -> Result<Notifications> {
        let direct = self.direct();
        let opened = direct.open().await;
        let (client, link) = opened.map_err(|failed| failed.explain(&direct))?;
        let (sender, arrived) = mpsc::channel(WAITING_MAX);
        tokio::spawn(forward(link, sender));
        let listen = format!("listen \"{}\"", channel.replace('"', "\"\""));
        client
            .batch_execute(&listen)
            .await
            .map_err(|error| Error::from_driver("cannot listen for notifications", error))?;
        Ok(Notifications {
            arrived,
            place: direct.describe(),
            _client: client,
        })
    }
}

async fn forward(mut link: Link, sender: mpsc::Sender<Option<String>>) {
    while let Some(message) = poll_fn(|cx| link.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => {
                let payload = notification.payload();
                let payload = (!payload.is_empty()).then(|| payload.to_owned());
                if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(payload) {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = %error, "listening connection ended");
                return;
            }
        }
    }
}
