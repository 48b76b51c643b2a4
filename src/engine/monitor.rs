//! Watching an engine from outside of it.

use std::fmt;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::state::{ProjectionProgress, SharedProgress};

/// Watches an engine from outside of it.
#[derive(Clone)]
pub struct Monitor {
    progress: Vec<SharedProgress>,
    ended: CancellationToken,
}

impl Monitor {
    /// `ended` is cancelled when the engine has ended.
    pub(super) fn new(progress: Vec<SharedProgress>, ended: CancellationToken) -> Monitor {
        Monitor { progress, ended }
    }

    /// The progress of each projection now.
    pub fn projections(&self) -> Vec<ProjectionProgress> {
        self.progress.iter().map(SharedProgress::get).collect()
    }

    /// The progress of all projections as it changes from now on.
    pub fn subscribe(&self) -> Changes {
        Changes {
            receivers: self.progress.iter().map(SharedProgress::changes).collect(),
            monitor: self.clone(),
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.projections()).finish()
    }
}

/// The progress of projections as it changes.
pub struct Changes {
    monitor: Monitor,
    receivers: Vec<watch::Receiver<()>>,
}

impl Changes {
    /// Waits for a change and returns the progress of each projection then; `None` when the engine
    /// has ended. Changes between two calls are seen as one.
    pub async fn next(&mut self) -> Option<Vec<ProjectionProgress>> {
        if self.receivers.is_empty() {
            self.monitor.ended.cancelled().await;
            return None;
        }
        let changed = self
            .receivers
            .iter_mut()
            .map(|receiver| Box::pin(receiver.changed()));
        tokio::select! {
            biased;
            _ = select_all(changed) => {}
            () = self.monitor.ended.cancelled() => return None,
        }
        for receiver in &mut self.receivers {
            receiver.mark_unchanged();
        }
        Some(self.monitor.projections())
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Changes").field(&self.monitor).finish()
    }
}
