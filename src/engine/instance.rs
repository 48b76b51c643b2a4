//! The instance: this process in the database, and what it sees of the others.
//!
//! One statement in each third of a lease renews it and looks who is alive, who has which checkpoint,
//! and what operators asked for. It looks again when a notification says that there is something to be
//! seen, when another's lease ends, and every [`LOOK_PAUSE`] where it cannot listen and is not alone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::progress::Following;
use super::share::share;
use super::state::Board;
use crate::error::Result;
use crate::name::ProjectionName;
use crate::pg::connect::Connector;
use crate::pg::database::Database;
use crate::pg::instance::{self, Around, Living, Observed, Renewal};
use crate::retry::delays;

/// How often an instance looks that cannot listen, while there are others that may leave.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// The same while it is alone: only operators and instances that come want something of it.
const LOOK_PAUSE_ALONE: Duration = Duration::from_secs(2);
/// How far nudges are answered apart, in the long run: those that arrive meanwhile are answered by one.
const NUDGE_PAUSE: Duration = Duration::from_millis(20);

/// What an instance sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Rises with each look; 0 before the first.
    pub(super) look: u64,
    /// Until when the lease is sure to hold, by our clock.
    pub(super) trusted_until: Option<Instant>,
    living: Vec<Living>,
    projections: Vec<Observed>,
}

impl Seen {
    /// Whether the lease is sure to hold.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted_until
            .is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn projection(&self, name: &ProjectionName) -> Option<&Observed> {
        let mut all = self.projections.iter();
        all.find(|projection| projection.name == name.as_str())
    }

    /// How many partitions of a projection the instance `me` is to run.
    pub(super) fn share(&self, me: Uuid, projection: &Observed) -> usize {
        let others = self.projections.iter();
        let before = others.take_while(|other| other.name != projection.name);
        let dealt = before.map(|other| other.checkpoints.len()).sum();
        let able = self.living.iter().filter(|living| {
            let mut names = living.projections.iter();
            living.id == me || names.any(|name| *name == projection.name)
        });
        let able: Vec<Uuid> = able.map(|living| living.id).collect();
        share(me, &able, projection.checkpoints.len(), dealt)
    }

    /// When the first lease of another ends, if it is not renewed.
    fn next_end(&self, me: Uuid) -> Duration {
        let others = self.living.iter().filter(|living| living.id != me);
        let ends =
            others.map(|living| Duration::try_from_secs_f64(living.lease).unwrap_or_default());
        ends.min().unwrap_or(Duration::MAX)
    }
}

/// Renews the instance and looks, until it is dropped.
pub(super) struct Heartbeat {
    pub(super) instance: Uuid,
    pub(super) target: Database,
    pub(super) lease: Duration,
    pub(super) listen: bool,
    pub(super) boards: Vec<Board>,
    pub(super) readers: Vec<(String, Following)>,
    pub(super) fenced: Fenced,
    pub(super) seen: watch::Sender<Seen>,
    pub(super) nudge: Arc<Notify>,
}

impl Heartbeat {
    pub(super) async fn run(self) {
        let host = crate::host::name();
        let listening = Listening::start(&self.target, self.listen, self.nudge.clone());
        let mut nudges = Nudges::default();
        let mut renewals = tokio::time::interval(self.lease / 3);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let look_at = self.next_look(listening.is_connected());
            let renewed = tokio::select! {
                _ = renewals.tick() => true,
                () = self.nudged(&mut nudges) => false,
                () = tokio::time::sleep(look_at) => false,
            };
            let limit = self.lease;
            let done = async {
                match renewed {
                    true => self.renew(&host).await,
                    false => self.look().await,
                }
            };
            match tokio::time::timeout(limit, done).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "the instance was not renewed");
                    tokio::time::sleep(NUDGE_PAUSE).await;
                    self.nudge_overtaken_by(renewed);
                }
                Err(_) => {
                    tracing::warn!("the instance was not renewed in time");
                    self.nudge_overtaken_by(renewed);
                }
            }
        }
    }

    /// A renewal that failed may have come before the answer to a nudge: that is still to be given.
    fn nudge_overtaken_by(&self, renewed: bool) {
        if renewed {
            self.nudge.notify_one();
        }
    }

    /// Waits for a nudge, and until it is due. What else arrives by then is answered with it.
    async fn nudged(&self, nudges: &mut Nudges) {
        self.nudge.notified().await;
        tokio::time::sleep_until(nudges.due(Instant::now()).into()).await;
        let _ = self.nudge.notified().now_or_never();
        nudges.answered(Instant::now());
    }

    /// A little after the first lease of another ends: then what it had is free.
    fn next_look(&self, listens: bool) -> Duration {
        let end = self.seen.borrow().next_end(self.instance);
        let is_alone = end == Duration::MAX;
        let end = end.saturating_add(NUDGE_PAUSE);
        match (listens, is_alone) {
            (true, _) => end,
            (false, true) => LOOK_PAUSE_ALONE,
            (false, false) => end.min(LOOK_PAUSE),
        }
    }

    async fn renew(&self, host: &str) -> Result<()> {
        let began = Instant::now();
        let client = self.target.short().await?;
        let renewal = Renewal {
            instance: self.instance,
            host,
            lease: self.lease,
            marks: self.marks(),
            runners: self.runners(),
            projections: self.boards.iter().filter_map(Board::able).collect(),
        };
        let renewed = client.within(instance::renew(&client, renewal)).await?;
        for (projection, partition) in renewed.lost {
            self.fenced.add(projection, partition);
        }
        self.sees(renewed.around, Some(began + self.lease));
        Ok(())
    }

    async fn look(&self) -> Result<()> {
        let client = self.target.short().await?;
        let observing = instance::observe(&client, self.instance);
        let around = client.within(observing).await?;
        self.sees(around, None);
        Ok(())
    }

    fn sees(&self, around: Around, trusted_until: Option<Instant>) {
        self.seen.send_modify(|seen| {
            seen.look += 1;
            seen.living = around.living;
            seen.projections = around.projections;
            seen.trusted_until = trusted_until.or(seen.trusted_until);
        });
    }

    fn marks(&self) -> Value {
        let marks = self.readers.iter().map(|(name, following)| {
            let mark = following.progress.borrow().mark.get();
            (name.clone(), Value::from(mark))
        });
        Value::Object(marks.collect::<Map<_, _>>())
    }

    fn runners(&self) -> Value {
        let statuses = self.boards.iter().flat_map(Board::runners);
        statuses
            .filter(|status| status.epoch > 0)
            .map(|status| {
                json!({
                    "projection": status.name.as_str(),
                    "generation": status.generation,
                    "partition": status.partition,
                    "epoch": status.epoch,
                    "state": status.state.as_str(),
                    "rate": status.rate,
                })
            })
            .collect()
    }
}

/// When nudges are answered: two at once, as a start has them (somebody listens, a read model is there),
/// and then [`NUDGE_PAUSE`] apart. The generic cell rate algorithm.
#[derive(Default)]
struct Nudges {
    /// When the next would be answered if all were that far apart.
    next: Option<Instant>,
}

impl Nudges {
    /// When a nudge of now is to be answered.
    fn due(&self, now: Instant) -> Instant {
        let due = self.next.and_then(|next| next.checked_sub(NUDGE_PAUSE));
        due.map_or(now, |due| due.max(now))
    }

    fn answered(&mut self, now: Instant) {
        let next = self.next.map_or(now, |next| next.max(now));
        self.next = Some(next + NUDGE_PAUSE);
    }
}

/// Listens for nudges of other instances and of operators.
struct Listening {
    connected: watch::Receiver<bool>,
    _task: super::reader::Aborting,
}

impl Listening {
    fn start(target: &Database, listen: bool, nudge: Arc<Notify>) -> Listening {
        let (connected, is_connected) = watch::channel(false);
        let connector = target.connector().clone();
        let task = tokio::spawn(async move {
            if listen {
                hear(connector, nudge, connected).await;
            }
        });
        Listening {
            connected: is_connected,
            _task: super::reader::Aborting(task),
        }
    }

    fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

async fn hear(connector: Connector, nudge: Arc<Notify>, connected: watch::Sender<bool>) {
    const PAUSE_MAX: Duration = Duration::from_secs(30);
    let mut pauses = delays(PAUSE_MAX);
    loop {
        match connector.listen(instance::CHANNEL).await {
            Ok(mut notifications) => {
                pauses = delays(PAUSE_MAX);
                connected.send_replace(true);
                // What came before it listened is lost.
                nudge.notify_one();
                while notifications.recv().await.is_ok() {
                    nudge.notify_one();
                }
                connected.send_replace(false);
                nudge.notify_one();
            }
            Err(error) => tracing::debug!(error = %error, "cannot listen to other instances"),
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
    }
}

/// The partitions that the heartbeat found under another epoch; their runners take a look.
#[derive(Clone, Default)]
pub(super) struct Fenced(Arc<Inner>);

#[derive(Default)]
struct Inner {
    partitions: Mutex<HashSet<(String, i32)>>,
    changed: Notify,
}

impl Fenced {
    fn add(&self, name: String, partition: i32) {
        let mut partitions = self.0.lock();
        partitions.insert((name, partition));
        drop(partitions);
        self.0.changed.notify_waiters();
    }

    pub(super) fn take(&self, name: &ProjectionName, partition: i32) -> bool {
        let mut partitions = self.0.lock();
        partitions.remove(&(name.to_string(), partition))
    }

    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<(String, i32)>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nudges_are_answered_at_once_and_more_of_them_twenty_milliseconds_apart() {
        let (mut nudges, begin) = (Nudges::default(), Instant::now());
        let mut due = |after: u64| {
            let due = nudges.due(begin + Duration::from_millis(after));
            nudges.answered(due);
            due.duration_since(begin).as_millis()
        };
        assert_eq!([due(0), due(1), due(2), due(20)], [0, 1, 20, 40]);
        assert_eq!([due(100), due(101)], [100, 101], "the allowance is back");
    }
}
