//! One reader per source and process: follows the head and tells the runners.
//!
//! It steps on a wake, when the source says so, and by polling: often for a second after the last
//! event, then ever less often. While much is written it steps 10 ms apart, for each step is then taken
//! from the writers. A wake carries nothing; each is only a reason to step. When the
//! source fails, everything it knew is void and it begins again from the highest checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::divergence;
use super::progress::Publisher;
use super::recorder::SharedBlocks;
use crate::config::format_duration;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics;
use crate::pg::database::{self, Database};
use crate::retry::{Verdict, delays, verdict};
use crate::source::{BUSY_FROM, Follower, Source, Step};

/// How often an active source is polled that wakes arrive from, and one that is only polled; timers
/// are late by up to a millisecond and a half. And for how long after its last event.
const POLL_WOKEN: Duration = Duration::from_millis(1);
const POLL_ACTIVE: Duration = Duration::from_micros(500);
const ACTIVE_FOR: Duration = Duration::from_secs(1);
/// How often a busy source is looked at, whatever wakes arrive. 600 times a second took 12 % of two cores
/// from its 32 writers; 90 times take 3 %.
const POLL_BUSY: Duration = Duration::from_millis(10);

pub(super) struct Reader {
    pub(super) source: Arc<dyn Source>,
    pub(super) target: Database,
    pub(super) settings: Settings,
    pub(super) publisher: Publisher,
    /// What it had in hand when the mark passed it.
    pub(super) blocks: SharedBlocks,
    pub(super) stop: CancellationToken,
}

impl Reader {
    /// Follows the source until `stop`, or until an error that no retry mends.
    pub(super) async fn run(mut self) {
        let wake = Arc::new(Wake::default());
        let _listening = self.settings.listen.then(|| {
            let listening = listen(self.source.clone(), wake.clone(), self.settings.clone());
            Aborting(tokio::spawn(listening))
        });
        let stop = self.stop.clone();
        let mut pauses = delays(self.settings.retry_delay_max);
        loop {
            let before = self.publisher.mark();
            let error = tokio::select! {
                () = stop.cancelled() => return,
                error = self.session(&wake) => error,
            };
            if verdict(error.kind()) != Verdict::Transient {
                tracing::error!(source = self.source.name(), error = %error, "the source cannot be read");
                self.publisher.fail(error);
                return;
            }
            tracing::warn!(source = self.source.name(), error = %error, "reading the source again");
            self.publisher.trouble(&error);
            if self.publisher.mark() > before {
                pauses = delays(self.settings.retry_delay_max);
            }
            let pause = pauses.next().unwrap_or(self.settings.retry_delay_max);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Steps until something fails.
    async fn session(&mut self, wake: &Wake) -> Error {
        let (source, settings) = (&*self.source, &self.settings);
        let limit = settings.answer_timeout;
        let beginning = Box::pin(begin(source, &self.target));
        let mut follower = match in_time(source, limit * BEGIN_STATEMENTS, beginning).await {
            Ok(follower) => follower,
            Err(error) => return error,
        };
        self.publisher.begin();
        self.blocks.lock().end();
        let mut cadence = Cadence::new(settings.poll_slowest);
        loop {
            let began = Instant::now();
            let step = match in_time(source, limit, follower.step()).await {
                Ok(step) => step,
                Err(error) => return error,
            };
            metrics::step(source.name(), began.elapsed());
            let is_awaited = self.publisher.is_awaited();
            let pause = cadence.pause(&step, wake.is_connected(), is_awaited);
            self.keep(&step);
            self.publisher.step(step, began);
            match pause {
                Pause::Whole(pause) => tokio::time::sleep(pause).await,
                Pause::UntilNews(pause) => tokio::select! {
                    () = wake.arrived.notified() => {}
                    () = self.publisher.awaited() => {}
                    () = tokio::time::sleep(pause) => {}
                },
            }
        }
    }
}

impl Reader {
    /// Keeps what the step's rows say of the range that the mark passed.
    fn keep(&self, step: &Step) {
        let mut blocks = self.blocks.lock();
        match &step.occurred {
            Some(occurred) => blocks.passed(step.passed, occurred.tally),
            None => blocks.end(),
        }
    }
}

/// What is sent one after the other until a source is followed, each within a limit of its own, the
/// opening of sessions included.
const BEGIN_STATEMENTS: u32 = 6;

/// A source that does not keep to its own limits is given up all the same.
async fn in_time<T>(
    source: &dyn Source,
    limit: Duration,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Ok(answer) = tokio::time::timeout(limit, answer).await else {
        let limit = format_duration(limit);
        let what = format!("source \"{}\" did not answer within {limit}", source.name());
        return Err(Error::new(ErrorKind::TimedOut, what));
    };
    answer
}

async fn begin(source: &dyn Source, target: &Database) -> Result<Box<dyn Follower>> {
    // Of its own: the source may need one from the same pool meanwhile.
    let client = target.own().await?;
    let floor = client.within(divergence::floor(&client, source)).await?;
    let mut follower = source.follow(floor).await?;
    if let Some(log) = source.postgres()
        && let server = log.server().await?
        && server != client.within(database::server(&client)).await?
    {
        follower.until_durable();
    }
    // Still the same session: the server did not crash between the two, which could have taken
    // back what the floor counts on.
    client.within(divergence::floor(&client, source)).await?;
    Ok(follower)
}

/// Wakes, as the reader hears of them.
#[derive(Default)]
struct Wake {
    arrived: Notify,
    is_connected: AtomicBool,
}

impl Wake {
    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    fn connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
        self.arrived.notify_one();
    }
}

/// What lies between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// So long, whatever arrives.
    Whole(Duration),
    /// So long at most.
    UntilNews(Duration),
}

/// When to step again: at most 2 ms apart for a second after the last event, 10 ms while many write, then
/// slowing down.
struct Cadence {
    slowest: Duration,
    last_event: Instant,
    pause: Duration,
}

impl Cadence {
    fn new(slowest: Duration) -> Cadence {
        Cadence {
            slowest,
            last_event: Instant::now(),
            pause: POLL_WOKEN,
        }
    }

    fn pause(&mut self, step: &Step, is_woken: bool, is_awaited: bool) -> Pause {
        let pause = self.until_next(step, is_woken);
        if pause.is_zero() {
            return Pause::UntilNews(pause);
        }
        if !is_awaited && step.again.is_none() {
            return Pause::UntilNews(self.slowest);
        }
        match step.passed.width() >= BUSY_FROM {
            true => Pause::Whole(POLL_BUSY.min(self.slowest)),
            false => Pause::UntilNews(pause),
        }
    }

    fn until_next(&mut self, step: &Step, is_woken: bool) -> Duration {
        if !step.passed.is_empty() {
            self.last_event = Instant::now();
        }
        if let Some(again) = step.again {
            return again;
        }
        self.pause = if self.last_event.elapsed() < ACTIVE_FOR {
            if is_woken { POLL_WOKEN } else { POLL_ACTIVE }
        } else {
            (self.pause * 2).min(self.slowest)
        };
        self.pause.min(self.slowest)
    }
}

/// Keeps a connection for wakes. Each (re)connection is a wake too: what came meanwhile is lost.
async fn listen(source: Arc<dyn Source>, wake: Arc<Wake>, settings: Settings) {
    let mut pauses = delays(settings.retry_delay_max);
    loop {
        match source.wakes().await {
            Ok(None) => return,
            Ok(Some(mut wakes)) => {
                pauses = delays(settings.retry_delay_max);
                wake.connected(true);
                while wakes.next().await.is_ok() {
                    wake.arrived.notify_one();
                }
                wake.connected(false);
                tracing::debug!(
                    source = source.name(),
                    "the wake connection was lost; polling goes on"
                );
            }
            Err(error) => {
                tracing::debug!(source = source.name(), error = %error, "cannot listen for wakes; polling goes on");
            }
        }
        tokio::time::sleep(pauses.next().unwrap_or(settings.retry_delay_max)).await;
    }
}

/// Ends a task when dropped.
pub(super) struct Aborting(pub(super) tokio::task::JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Position, Range};

    const SLOWEST: Duration = Duration::from_millis(200);

    fn step(passed: i64) -> Step {
        let mark = Position::new(100 + passed);
        Step {
            mark,
            head: mark,
            passed: Range::new(Position::new(100), mark),
            occurred: None,
            gap: None,
            again: None,
        }
    }

    #[test]
    fn a_busy_source_is_looked_at_ten_milliseconds_apart_whatever_wakes_arrive() {
        let mut cadence = Cadence::new(SLOWEST);
        assert_eq!(
            cadence.pause(&step(15), true, true),
            Pause::UntilNews(POLL_WOKEN)
        );
        assert_eq!(
            cadence.pause(&step(16), true, true),
            Pause::Whole(POLL_BUSY)
        );
        let gap = Step {
            again: Some(Duration::from_millis(2)),
            ..step(16)
        };
        assert_eq!(cadence.pause(&gap, true, true), Pause::Whole(POLL_BUSY));
    }

    #[test]
    fn what_can_be_known_at_once_waits_for_nothing() {
        let more = Step {
            again: Some(Duration::ZERO),
            ..step(10_000)
        };
        let pause = Cadence::new(SLOWEST).pause(&more, true, true);
        assert_eq!(pause, Pause::UntilNews(Duration::ZERO));
    }

    #[test]
    fn a_source_that_nobody_waits_for_is_looked_at_as_if_it_were_idle() {
        let mut cadence = Cadence::new(SLOWEST);
        assert_eq!(
            cadence.pause(&step(1), false, false),
            Pause::UntilNews(SLOWEST)
        );
        assert_eq!(
            cadence.pause(&step(99), false, false),
            Pause::UntilNews(SLOWEST)
        );
        assert_eq!(
            cadence.pause(&step(1), false, true),
            Pause::UntilNews(POLL_ACTIVE)
        );
    }
}
