//! `events`: the log as lines of JSON, never past the mark.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::engine::divergence;
use crate::error::{Error, ErrorKind, Result};
use crate::event_store::{self, EventStore};
use crate::ndjson::to_line;
use crate::position::Position;
use crate::source::{Follower, Source};
use crate::status;

/// Events read at once.
const PAGE: usize = 1_000;
/// How long to wait for the mark to reach the head without --follow: long enough for writers that
/// are about to commit, not for idle transactions.
const MARK_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
One JSON object a line: position, stream, version, type, data, metadata, id, recorded_at. \
Shows only the events below which nothing can still appear. --follow waits for the others; \
without it, stderr names what is not shown.")]
pub(super) struct Args {
    /// Begin after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
    /// Only the events of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// End after this many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Keep printing new events until ctrl-c
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let stop = ctx.stop().drain();
    tokio::select! {
        shown = show(args, ctx) => shown?,
        // Whole lines are written at once, so none is cut.
        () = stop.cancelled() => {}
    }
    Ok(Exit::Done)
}

async fn show(args: Args, ctx: &Context) -> Result<()> {
    ctx.verified().await?;
    let source = ctx.source().await?;
    let database = ctx.target().await?;
    let (at, proven, reported) = {
        let client = database.client().await?;
        let proven = divergence::proven_position(&client, &*source).await?;
        let (at, marks) = status::reported(&client).await?;
        (at, proven, marks.get(source.name()).copied())
    };
    let mut printer = Printer {
        store: event_store::in_database(database),
        after: Position::new(args.after),
        left: args.limit.unwrap_or(usize::MAX),
        stream: args.stream,
        types: args.types,
    };
    if !args.follow
        && let Some(head) = status::proven_head(&*source, reported, proven).await?
    {
        return printer.print_through(head, ctx).await;
    }
    if args.follow {
        let mut follower = source.follow(proven).await?;
        let slowest = ctx.config()?.engine.poll_slowest;
        return follow(&mut printer, &*source, &mut *follower, slowest, ctx).await;
    }
    let (mark, gap) = status::follow(&*source, proven, MARK_LIMIT).await?;
    printer.print_through(mark, ctx).await?;
    if let Some(gap) = gap.filter(|_| printer.left > 0) {
        let what = format!("events after {mark} are not shown");
        let error = Error::new(ErrorKind::TimedOut, what).with_hint(status::gap_text(&gap, at));
        ctx.ui().warn(&error.to_string());
    }
    Ok(())
}

async fn follow(
    printer: &mut Printer,
    source: &dyn Source,
    follower: &mut dyn Follower,
    slowest: Duration,
    ctx: &Context,
) -> Result<()> {
    // Without wakes it is only slower.
    let mut wakes = source.wakes().await.unwrap_or_default();
    let ended = CancellationToken::new();
    loop {
        let step = follower.step().await?;
        printer.print_through(step.mark, ctx).await?;
        if printer.left == 0 {
            return Ok(());
        }
        let woken = async {
            match &mut wakes {
                Some(wakes) => wakes.next().await,
                None => {
                    ended.cancelled().await;
                    Ok(())
                }
            }
        };
        let lost = tokio::select! {
            woken = woken => woken.is_err(),
            () = tokio::time::sleep(step.again.unwrap_or(slowest)) => false,
        };
        if lost {
            wakes = None;
        }
    }
}

/// Prints what was not printed yet.
struct Printer {
    store: EventStore,
    after: Position,
    left: usize,
    stream: Option<String>,
    types: Vec<String>,
}

impl Printer {
    async fn print_through(&mut self, mark: Position, ctx: &Context) -> Result<()> {
        while self.after < mark && self.left > 0 {
            let limit = PAGE.min(self.left);
            let stream = self.stream.as_deref();
            let read = self.store.read(self.after, limit, stream, &self.types);
            let mut events = read.await?;
            let was_all = events.len() < limit;
            let count = events.len();
            events.retain(|event| event.position <= mark);
            let past_mark = events.len() < count;
            let mut page = String::new();
            for event in &events {
                page.push_str(&to_line(event)?);
                page.push('\n');
            }
            ctx.write(page.as_bytes())?;
            self.left -= events.len();
            match events.last() {
                Some(last) if !was_all && !past_mark => self.after = last.position,
                _ => self.after = mark,
            }
        }
        Ok(())
    }
}
