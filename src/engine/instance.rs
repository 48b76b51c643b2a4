//! The instance: this process in the database, renewed every third of a lease in one statement.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::progress::Following;
use super::state::Shared;
use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg::checkpoint::{self, Renewal};
use crate::pg::database::Database;

/// Renews the instance until it is dropped.
pub(super) struct Heartbeat {
    pub(super) instance: Uuid,
    pub(super) target: Database,
    pub(super) lease: Duration,
    pub(super) statuses: Vec<Shared>,
    pub(super) readers: Vec<(String, Following)>,
    pub(super) fenced: Fenced,
}

impl Heartbeat {
    pub(super) async fn run(self) {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let host = host.to_string_lossy().into_owned();
        let mut ticks = tokio::time::interval(self.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match tokio::time::timeout(self.lease, self.renew(&host)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = %error, "the instance was not renewed"),
                Err(_) => tracing::warn!("the instance was not renewed in time"),
            }
        }
    }

    async fn renew(&self, host: &str) -> Result<()> {
        let client = self.target.short().await?;
        let renewal = Renewal {
            instance: self.instance,
            host,
            lease: self.lease,
            marks: self.marks(),
            runners: self.runners(),
        };
        for (projection, _partition) in client.within(checkpoint::renew(&client, renewal)).await? {
            self.fenced.add(projection);
        }
        Ok(())
    }

    fn marks(&self) -> Value {
        let marks = self.readers.iter().map(|(name, following)| {
            let mark = following.progress.borrow().mark.get();
            (name.clone(), Value::from(mark))
        });
        Value::Object(marks.collect::<Map<_, _>>())
    }

    fn runners(&self) -> Value {
        let statuses = self.statuses.iter().map(Shared::get);
        statuses
            .filter(|status| status.epoch > 0)
            .map(|status| {
                json!({
                    "projection": status.name.as_str(),
                    "generation": status.generation,
                    "partition": 0,
                    "epoch": status.epoch,
                    "state": status.state.as_str(),
                    "rate": status.rate,
                })
            })
            .collect()
    }
}

/// The projections that the heartbeat found under another epoch; their runners take a look.
#[derive(Clone, Default)]
pub(super) struct Fenced(Arc<Inner>);

#[derive(Default)]
struct Inner {
    names: Mutex<HashSet<String>>,
    changed: Notify,
}

impl Fenced {
    fn add(&self, name: String) {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name);
        drop(names);
        self.0.changed.notify_waiters();
    }

    pub(super) fn take(&self, name: &ProjectionName) -> bool {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(name.as_str())
    }

    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}
