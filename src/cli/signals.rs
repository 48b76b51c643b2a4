//! SIGTERM and ctrl-c: the command decides whether its work is finished or abandoned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::ui::Ui;
use crate::error::{Error, ErrorKind, Result};

/// The command's future is dropped: nothing is lost by it.
const LEAVE: u8 = 0;
/// The command ends by itself when the token is cancelled.
const DRAIN: u8 = 1;
/// A child in the foreground gets ctrl-c too and handles it better.
const CHILD: u8 = 2;

/// What a signal does to the command that runs.
#[derive(Clone, Default)]
pub(super) struct Stop {
    manner: Arc<AtomicU8>,
    token: CancellationToken,
    abandoned: CancellationToken,
}

impl Stop {
    /// From now on a signal cancels this token, and the command ends by itself.
    pub(super) fn drain(&self) -> CancellationToken {
        self.manner.store(DRAIN, Ordering::SeqCst);
        self.token.clone()
    }

    /// From now on ctrl-c is left to a child, and SIGTERM cancels this token.
    pub(super) fn leave_to_child(&self) -> CancellationToken {
        self.manner.store(CHILD, Ordering::SeqCst);
        self.token.clone()
    }

    /// Waits until the command is to be dropped.
    pub(super) async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    /// Listens from now on.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub(super) fn listen(&self, ui: Ui) -> Result<()> {
        let interrupt = handler(SignalKind::interrupt())?;
        let terminate = handler(SignalKind::terminate())?;
        tokio::spawn(self.clone().obey(interrupt, terminate, ui));
        Ok(())
    }

    async fn obey(self, mut interrupt: Signal, mut terminate: Signal, ui: Ui) {
        loop {
            let is_interrupt = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => false,
            };
            let token = match self.manner.load(Ordering::SeqCst) {
                CHILD if is_interrupt => continue,
                LEAVE => &self.abandoned,
                _ => &self.token,
            };
            if token.is_cancelled() {
                ui.clear();
                ui.warn("stopped at once; what was not committed is rolled back");
                std::process::exit(i32::from(Exit::Failed as u8));
            }
            if self.manner.load(Ordering::SeqCst) == DRAIN {
                ui.say("finishing the work in flight; a second signal stops at once");
            }
            token.cancel();
        }
    }
}

fn handler(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| {
        Error::new(ErrorKind::Io, format!("cannot listen for signals: {e}")).with_source(e)
    })
}
