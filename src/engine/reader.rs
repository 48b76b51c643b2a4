//! One reader per source and process: follows the head and publishes it to the runners.
//!
//! It takes a step on a wake, when the source asks for it, and by polling: often for a second after
//! the last event, then ever less often. While much is written its steps are 10 ms apart, because
//! each takes time from the writers. A wake carries nothing; it only causes a step. When the source
//! fails, everything it knew is void and it begins again from the highest checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Settings;
use super::divergence;
use super::progress::Publisher;
use super::recorder::SharedBlocks;
use crate::config::format_duration;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics;
use crate::pg::database::{self, Database};
use crate::retry::{Verdict, delays, verdict};
use crate::source::pacing::{self, Pause, PollFacts};
use crate::source::{Follower, Source, Step};

pub(super) struct Reader {
    pub(super) source: Arc<dyn Source>,
    pub(super) target: Database,
    pub(super) settings: Settings,
    pub(super) publisher: Publisher,
    /// The rows that it read when the mark passed them.
    pub(super) blocks: SharedBlocks,
    pub(super) stop: CancellationToken,
}

impl Reader {
    /// Follows the source until `stop`, or until an error that no retry can fix.
    pub(super) async fn run(mut self) {
        let wake = Arc::new(WakeSignal::default());
        let _listening = self.settings.listen.then(|| {
            let listening = listen(self.source.clone(), wake.clone(), self.settings.clone());
            AbortOnDropHandle::new(tokio::spawn(listening))
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
    async fn session(&mut self, wake: &WakeSignal) -> Error {
        let (source, settings) = (&*self.source, &self.settings);
        let limit = settings.answer_timeout;
        let beginning = Box::pin(begin(source, &self.target));
        let mut follower = match in_time(source, limit * BEGIN_STATEMENTS, beginning).await {
            Ok(follower) => follower,
            Err(error) => return error,
        };
        self.publisher.begin();
        self.blocks.lock().end();
        let mut schedule = PollSchedule::new(settings.poll_slowest);
        loop {
            let began = Instant::now();
            let step = match in_time(source, limit, follower.step()).await {
                Ok(step) => step,
                Err(error) => return error,
            };
            metrics::step(source.name(), began.elapsed());
            let is_awaited = self.publisher.is_awaited();
            let pause = schedule.pause(&step, wake.is_connected(), is_awaited);
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
    /// Records what the step's rows show about the range that the mark passed.
    fn keep(&self, step: &Step) {
        let mut blocks = self.blocks.lock();
        match &step.occurred {
            Some(occurred) => blocks.passed(step.passed, occurred.tally),
            None => blocks.end(),
        }
    }
}

/// The statements until a source is followed, one after the other, each with a limit of its own,
/// opening sessions included.
const BEGIN_STATEMENTS: u32 = 6;

/// A source that does not keep its own limits is given up too.
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
    let proven = client
        .within(divergence::proven_position(&client, source))
        .await?;
    let mut follower = source.follow(proven).await?;
    if let Some(log) = source.postgres()
        && let server = log.server().await?
        && server != client.within(database::server(&client)).await?
    {
        follower.until_durable();
    }
    // Still the same session: the server did not crash between the two, which could have undone the
    // commits that the proven position relies on.
    client
        .within(divergence::proven_position(&client, source))
        .await?;
    Ok(follower)
}

/// Wakes, as the reader receives them.
#[derive(Default)]
struct WakeSignal {
    arrived: Notify,
    is_connected: AtomicBool,
}

impl WakeSignal {
    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    fn connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
        self.arrived.notify_one();
    }
}

/// Decides after each step when to poll again, by the rules of [`pacing`].
struct PollSchedule {
    slowest: Duration,
    last_event: Instant,
    idle: Duration,
}

impl PollSchedule {
    fn new(slowest: Duration) -> PollSchedule {
        PollSchedule {
            slowest,
            last_event: Instant::now(),
            idle: Duration::ZERO,
        }
    }

    fn pause(&mut self, step: &Step, is_woken: bool, is_awaited: bool) -> Pause {
        if !step.passed.is_empty() {
            self.last_event = Instant::now();
        }
        let stepped = PollFacts {
            positions: step.passed.width(),
            follower_poll: step.again,
            since_event: self.last_event.elapsed(),
            is_woken,
            is_awaited,
        };
        if step.again.is_none() {
            self.idle = pacing::idle_poll(&stepped, self.idle, self.slowest);
        }
        pacing::reader_pause(&stepped, self.idle, self.slowest)
    }
}

/// Keeps a connection for wakes. Each (re)connection is a wake too: wakes sent meanwhile are lost.
async fn listen(source: Arc<dyn Source>, wake: Arc<WakeSignal>, settings: Settings) {
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
                    "the wake connection was lost; polling continues"
                );
            }
            Err(error) => {
                tracing::debug!(source = source.name(), error = %error, "cannot listen for wakes; polling continues");
            }
        }
        tokio::time::sleep(pauses.next().unwrap_or(settings.retry_delay_max)).await;
    }
}
