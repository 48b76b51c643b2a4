//! `events`: the log as lines of JSON, never past the mark.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::exit::{Done, Exit};
use crate::engine::divergence;
use crate::error::{Error, ErrorKind, Result};
use crate::event_store::EventStore;
use crate::ndjson::to_line;
use crate::position::Position;
use crate::source::{Follower, HeldBy, OpenGap, Source, Step};
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
    let (floor, reported) = {
        let client = database.client().await?;
        let floor = divergence::floor(&client, &*source).await?;
        let (_, marks) = status::reported(&client).await?;
        (floor, marks.get(source.name()).copied())
    };
    let mut printer = Printer {
        store: EventStore::new(database),
        after: Position::new(args.after),
        left: args.limit.unwrap_or(usize::MAX),
        stream: args.stream,
        types: args.types,
    };
    if !args.follow
        && let Some(head) = status::proven_head(&*source, reported, floor).await?
    {
        return printer.print_through(head, ctx).await;
    }
    let mut follower = source.follow(floor).await?;
    if args.follow {
        let slowest = ctx.config()?.engine.poll_slowest;
        return follow(&mut printer, &*source, &mut *follower, slowest, ctx).await;
    }
    let step = settle(&mut *follower).await?;
    printer.print_through(step.mark, ctx).await?;
    if let Some(gap) = step
        .gap
        .filter(|_| step.mark < step.head && printer.left > 0)
    {
        tell_held_back(&gap, &*source, ctx).await?;
    }
    Ok(())
}

/// Steps until the mark is at the head of the first step.
async fn settle(follower: &mut dyn Follower) -> Result<Step> {
    let began = Instant::now();
    let mut step = follower.step().await?;
    let head = step.head;
    while step.mark < head && began.elapsed() < MARK_LIMIT {
        tokio::time::sleep(step.again.unwrap_or(Duration::from_millis(2))).await;
        step = follower.step().await?;
    }
    Ok(step)
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

async fn tell_held_back(gap: &OpenGap, source: &dyn Source, ctx: &Context) -> Result<()> {
    let holders = match source.postgres() {
        Some(log) => log.holders(gap).await?,
        None => Vec::new(),
    };
    let holders: Vec<String> = holders.iter().map(describe).collect();
    let error = Error::new(
        ErrorKind::TimedOut,
        format!("events after {} are not shown", gap.from.previous()),
    );
    let error = match holders.as_slice() {
        [] => error,
        holders => error.with_hint(format!(
            "a lower position may still come from {}",
            holders.join(", ")
        )),
    };
    ctx.ui().warn(&error.to_string());
    Ok(())
}

fn describe(holder: &HeldBy) -> String {
    let who = match (&holder.prepared, holder.pid) {
        (Some(name), _) => format!("the prepared transaction \"{name}\""),
        (None, Some(pid)) => format!("the transaction of process {pid}"),
        (None, None) => "a transaction".to_owned(),
    };
    let details = [
        holder.user.as_ref().map(|user| format!("user {user}")),
        holder
            .application
            .as_ref()
            .map(|name| format!("application {name}")),
        holder.since.map(|since| format!("since {since}")),
    ];
    let details: Vec<String> = details.into_iter().flatten().collect();
    if details.is_empty() {
        return who;
    }
    format!("{who} ({})", details.join(", "))
}
