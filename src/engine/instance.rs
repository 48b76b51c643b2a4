//! The instance: this process in the database.
//!
//! One statement in each third of a lease renews it, reports its runners, and reads which instances
//! are alive, which has which checkpoint, and what operators requested. Between two renewals it
//! polls the cluster when it is woken, when another's lease ends, and at short intervals where it
//! cannot listen. If it has changes to report, it renews instead: other instances and `status` see
//! them at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::progress::Subscriber;
use super::state::{RunnerStatus, SharedProgress};
use crate::error::Result;
use crate::pg::database::Database;
use crate::pg::instance::{self, ObservedCluster, Renewal};
use crate::runner_state::RunnerState;

mod fenced;
mod listening;
mod pacing;
mod view;

pub(super) use fenced::FencedPartitions;
pub(super) use view::ClusterView;

use listening::Listening;
use pacing::{WAKE_PAUSE, WakePacer, next_poll};

/// Renews the instance and polls the cluster, until it is dropped.
pub(super) struct Heartbeat {
    pub(super) instance: Uuid,
    pub(super) target: Database,
    pub(super) lease: Duration,
    pub(super) listen: bool,
    pub(super) progress: Vec<SharedProgress>,
    pub(super) readers: Vec<(String, Subscriber)>,
    pub(super) fenced: FencedPartitions,
    pub(super) view: watch::Sender<ClusterView>,
    pub(super) wake: Arc<Notify>,
}

/// What other instances and operators need to know at once: a change is reported before the next
/// renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Announcement {
    /// The projections it can run.
    able: Vec<String>,
    /// The epochs of the runners that are at the head.
    live: Vec<(String, i32, i64)>,
}

impl Heartbeat {
    /// Runs until it is stopped, and finishes what is under way.
    pub(super) async fn run(self, stop: CancellationToken) {
        let host = crate::host::name();
        let connector = self.listen.then(|| self.target.connector().clone());
        let listening = Listening::start(connector, self.wake.clone());
        let mut pacer = WakePacer::default();
        let mut reported = Announcement::default();
        let mut renewals = tokio::time::interval(self.lease / 3);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next_lease_end = self.view.borrow().next_lease_end(self.instance);
            let poll_at = next_poll(listening.is_connected(), next_lease_end);
            let is_due = tokio::select! {
                () = stop.cancelled() => return,
                _ = renewals.tick() => true,
                () = self.woken(&mut pacer) => false,
                () = tokio::time::sleep(poll_at.unwrap_or(Duration::MAX)) => false,
            };
            let news = self.news();
            let renews = is_due || reported.is_outdated_by(&news);
            let done = async {
                match renews {
                    true => self.renew(&host, &news, reported.able != news.able).await,
                    false => self.poll().await,
                }
            };
            match tokio::time::timeout(self.lease, done).await {
                Ok(Ok(())) if renews => reported = news,
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "the instance was not renewed");
                    tokio::time::sleep(WAKE_PAUSE).await;
                    self.answer_later(is_due);
                }
                Err(_) => {
                    tracing::warn!("the instance was not renewed in time");
                    self.answer_later(is_due);
                }
            }
        }
    }

    /// A wake that arrived while a renewal failed still needs an answer.
    fn answer_later(&self, was_due: bool) {
        if was_due {
            self.wake.notify_one();
        }
    }

    /// Waits for a wake, and until it is due. Wakes that arrive meanwhile are answered with it.
    async fn woken(&self, pacer: &mut WakePacer) {
        self.wake.notified().await;
        tokio::time::sleep_until(pacer.due(Instant::now()).into()).await;
        let _ = self.wake.notified().now_or_never();
        pacer.answered(Instant::now());
    }

    /// Wakes the others if the partitions to share among them change.
    async fn renew(&self, host: &str, news: &Announcement, wakes_others: bool) -> Result<()> {
        let began = Instant::now();
        let client = self.target.short().await?;
        let renewal = Renewal {
            instance: self.instance,
            host,
            lease: self.lease,
            marks: self.marks(),
            runners: self.claimed().map(|runner| report(&runner)).collect(),
            projections: news.able.clone(),
        };
        let renewed = client.within(instance::renew(&client, renewal)).await?;
        for (projection, partition) in renewed.lost {
            self.fenced.add(projection, partition);
        }
        self.publish(renewed.cluster, Some(began + self.lease));
        if wakes_others {
            instance::wake(&client).await;
        }
        Ok(())
    }

    async fn poll(&self) -> Result<()> {
        let client = self.target.short().await?;
        let observing = instance::observe(&client, self.instance);
        let cluster = client.within(observing).await?;
        self.publish(cluster, None);
        Ok(())
    }

    fn publish(&self, cluster: ObservedCluster, trusted_until: Option<Instant>) {
        let update = |view: &mut ClusterView| view.update(cluster, trusted_until);
        self.view.send_modify(update);
    }

    fn marks(&self) -> Value {
        let marks = self.readers.iter().map(|(name, subscriber)| {
            let mark = subscriber.progress.borrow().mark.get();
            (name.clone(), Value::from(mark))
        });
        Value::Object(marks.collect::<Map<_, _>>())
    }

    fn news(&self) -> Announcement {
        let live = self.claimed().filter(|r| r.state == RunnerState::Live);
        Announcement {
            able: self
                .progress
                .iter()
                .filter_map(SharedProgress::able)
                .collect(),
            live: live
                .map(|r| (r.name.to_string(), r.partition, r.epoch))
                .collect(),
        }
    }

    /// The runners that have claimed their checkpoints.
    fn claimed(&self) -> impl Iterator<Item = RunnerStatus> {
        let all = self.progress.iter().flat_map(SharedProgress::runners);
        all.filter(|runner| runner.epoch > 0)
    }
}

impl Announcement {
    /// A runner that is behind is not worth a renewal of its own: the next one reports it, as it
    /// reports every state.
    fn is_outdated_by(&self, now: &Announcement) -> bool {
        self.able != now.able || now.live.iter().any(|runner| !self.live.contains(runner))
    }
}

fn report(runner: &RunnerStatus) -> Value {
    json!({
        "projection": runner.name.as_str(),
        "generation": runner.generation,
        "partition": runner.partition,
        "epoch": runner.epoch,
        "state": runner.state.as_str(),
        "rate": runner.rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_news() {
        let news = |able: &[&str], live: &[i64]| Announcement {
            able: able.iter().map(ToString::to_string).collect(),
            live: live.iter().map(|e| ("p".to_owned(), 0, *e)).collect(),
        };
        let reported = news(&["p"], &[7]);
        for (what, now, is_news) in [
            ("the same", news(&["p"], &[7]), false),
            ("it can run another one", news(&["p", "q"], &[7]), true),
            ("it cannot run it any more", news(&[], &[7]), true),
            ("a runner is at the head", news(&["p"], &[7, 8]), true),
            ("one that claimed it again is", news(&["p"], &[8]), true),
            ("one is behind", news(&["p"], &[]), false),
        ] {
            assert_eq!(reported.is_outdated_by(&now), is_news, "{what}");
        }
    }
}
