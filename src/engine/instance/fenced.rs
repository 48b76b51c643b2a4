//! The partitions that a renewal found under another epoch; their runners read their checkpoints again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::name::ProjectionName;

#[derive(Clone, Default)]
pub(in crate::engine) struct FencedPartitions(Arc<Inner>);

#[derive(Default)]
struct Inner {
    partitions: Mutex<HashSet<(String, i32)>>,
    changed: Notify,
}

impl FencedPartitions {
    pub(super) fn add(&self, name: String, partition: i32) {
        self.lock().insert((name, partition));
        self.0.changed.notify_waiters();
    }

    pub(in crate::engine) fn take(&self, name: &ProjectionName, partition: i32) -> bool {
        self.lock().remove(&(name.to_string(), partition))
    }

    pub(in crate::engine) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(String, i32)>> {
        let partitions = self.0.partitions.lock();
        partitions.unwrap_or_else(PoisonError::into_inner)
    }
}
