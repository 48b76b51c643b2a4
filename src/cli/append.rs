//! `append`: events from a file or standard input into the log.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::json;

use super::context::Context;
use super::exit::{Done, Exit};
use super::text::{count, thousands};
use crate::append::{BATCH_EVENTS, Progress, Summary, append_ndjson_until};
use crate::error::Result;
use crate::event_store::{self, EventStore};
use crate::ndjson::NdjsonReader;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An event is {\"id\"?: uuid, \"stream\": text, \"version\"?: number, \"type\": text, \"data\": any \
JSON, \
\"metadata\"?: object, \"occurred_at\"?: time}. Events with ids are never appended twice, even if \
the file is appended again.")]
pub(super) struct Args {
    /// The file of events, plain or gz; - is standard input
    #[arg(default_value = "-")]
    file: String,
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let stop = ctx.stop().drain();
    // First, so that a wrong path is reported before a server is started.
    let (reader, size) = open(&args.file)?;
    let store = tokio::select! {
        store = store(ctx) => store?,
        () = stop.cancelled() => return Ok(Exit::Done),
    };
    let is_typed = args.file == "-" && std::io::stdin().is_terminal();
    let bar = if is_typed {
        ctx.ui()
            .say("reading events from the terminal, one a line; ctrl-d ends them");
        ProgressBar::hidden()
    } else {
        bar(ctx, &args.file, size)
    };
    let show = |progress: Progress| {
        bar.set_position(progress.bytes_read);
        bar.set_message(count(progress.appended + progress.duplicates, "event"));
    };
    let appended = append_ndjson_until(&store, reader, BATCH_EVENTS, show, &stop).await;
    bar.finish_and_clear();
    store.wakes_sent().await;
    tell(ctx, &appended?, stop.is_cancelled())?;
    Ok(Exit::Done)
}

fn open(file: &str) -> Result<(NdjsonReader, Option<u64>)> {
    if file == "-" {
        return Ok((NdjsonReader::stdin(), None));
    }
    let path = Path::new(file);
    let size = path.metadata().ok().filter(|found| found.is_file());
    Ok((NdjsonReader::open(path)?, size.map(|found| found.len())))
}

async fn store(ctx: &Context) -> Result<EventStore> {
    ctx.migrated().await?;
    Ok(event_store::in_database(ctx.target().await?))
}

fn bar(ctx: &Context, file: &str, size: Option<u64>) -> ProgressBar {
    let bar = match size {
        Some(size) => {
            let bar = ctx
                .ui()
                .bar("{prefix} {bar:30} {percent:>3}% {msg} {elapsed} eta {eta}");
            bar.set_length(size);
            bar
        }
        None => ctx.ui().bar("{spinner} {prefix} {msg} {elapsed}"),
    };
    bar.set_prefix(if file == "-" {
        "standard input".to_owned()
    } else {
        file.to_owned()
    });
    bar
}

fn tell(ctx: &Context, summary: &Summary, cut_short: bool) -> Result<()> {
    if cut_short {
        ctx.ui()
            .warn("stopped before the end of the input; the events counted here are appended");
    }
    if summary.without_id > 0 {
        let events = count(summary.without_id, "event");
        ctx.ui().warn(&format!(
            "{events} had no id; appending this file again duplicates them"
        ));
    }
    if ctx.wants_json() {
        return ctx.json(&json!({
            "appended": summary.appended,
            "duplicates": summary.duplicates,
            "first": summary.first,
            "last": summary.last,
        }));
    }
    let duplicates = match summary.duplicates {
        0 => String::new(),
        number => format!("; {} there already", were(number)),
    };
    match (summary.first, summary.last) {
        (Some(first), Some(last)) => ctx.line(&format!(
            "appended {} at positions {first} to {last}{duplicates}",
            count(summary.appended, "event")
        )),
        _ => ctx.line(&format!("appended nothing{duplicates}")),
    }
}

fn were(number: u64) -> String {
    let verb = if number == 1 { "was" } else { "were" };
    format!("{} {verb}", thousands(number))
}
