//! `dead-letters`: list, show, retry and discard.

mod show;

use uuid::Uuid;

use super::context::Context;
use super::exit::{Done, Exit, Failure};
use super::text::{count, thousands};
use crate::dead_letters::{self, Discarded, Selection};
use crate::error::{Error, ErrorKind, Printable};
use crate::name::ProjectionName;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With on_error = \"park\" an event that cannot be applied becomes a dead letter, and so do the \
later events of its key; other keys continue. A key stays parked until all of its dead letters are \
applied or discarded.")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the parked keys, or their errors
    List(List),
    /// Show dead letters with event, error and attempts, and how many follow
    Show(Show),
    /// Retry all dead letters of the named keys, in order
    Retry(Retry),
    /// Discard dead letters; their events are never applied
    Discard(Discard),
}

#[derive(Debug, clap::Args)]
struct List {
    /// The projection
    #[arg(value_name = "NAME")]
    name: ProjectionName,
    #[command(flatten)]
    which: SelectionArgs,
    /// Group by error fingerprint; the one that parks most keys comes first
    #[arg(long)]
    by_error: bool,
    /// The most keys or errors to list
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The projection
    #[arg(value_name = "NAME")]
    name: ProjectionName,
    #[command(flatten)]
    which: RequiredSelection,
    /// The most dead letters to show
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Requests a retry: the instance that runs the projection does it within a second. It retries all \
dead letters of a key in the order of their positions. If one fails again, the key stays parked.")]
struct Retry {
    /// The projection
    #[arg(value_name = "NAME")]
    name: ProjectionName,
    #[command(flatten)]
    which: RequiredSelection,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Takes effect at once and is recorded in highwater.discarded. Only the named dead letters are \
discarded: later events of the key stay parked until they are retried or discarded too. --key names \
all dead letters of the key, --fingerprint those that failed with this error themselves.")]
struct Discard {
    /// The projection
    #[arg(value_name = "NAME")]
    name: ProjectionName,
    #[command(flatten)]
    which: RequiredSelection,
    /// Why they are discarded; the reason is recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct SelectionArgs {
    /// All dead letters
    #[arg(long)]
    all: bool,
    /// Dead letters of this key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    key: Option<String>,
    /// Dead letters of the key null
    #[arg(long)]
    null_key: bool,
    /// The dead letter of this event
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,
    /// Dead letters with this error fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
}

#[derive(Debug, clap::Args)]
struct RequiredSelection {
    #[command(flatten)]
    which: SelectionArgs,
}

impl SelectionArgs {
    /// The selection, if there is one.
    fn selection(self) -> Option<Selection> {
        if self.all {
            return Some(Selection::All);
        }
        if self.null_key {
            return Some(Selection::Key(None));
        }
        let key = self.key.map(|key| Selection::Key(Some(key)));
        let event = || self.event.map(Selection::Event);
        let fingerprint = || self.fingerprint.clone().map(Selection::Fingerprint);
        key.or_else(event).or_else(fingerprint)
    }
}

impl RequiredSelection {
    fn selection(self) -> Result<Selection, Error> {
        let missing = || {
            Error::new(ErrorKind::Usage, "no dead letters are named")
                .with_hint("give one of --all, --key, --null-key, --event and --fingerprint")
        };
        self.which.selection().ok_or_else(missing)
    }
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let done = match args.action {
        Command::List(args) => list(args, ctx).await,
        Command::Show(args) => show(args, ctx).await,
        Command::Retry(args) => retry(args, ctx).await,
        Command::Discard(args) => discard(args, ctx).await,
    };
    // An unknown name is a usage error, as for every command.
    done.map_err(|Failure(errors)| {
        let usage = |error: Error| match error.kind() {
            ErrorKind::NotFound => error.with_kind(ErrorKind::Usage),
            _ => error,
        };
        Failure(errors.into_iter().map(usage).collect())
    })
}

async fn list(args: List, ctx: &Context) -> Done {
    ctx.verified().await?;
    let target = ctx.target().await?;
    let (name, limit) = (&args.name, args.limit);
    let selection = args.which.selection().unwrap_or(Selection::All);
    if args.by_error {
        let listed = dead_letters::by_error(&target, name, &selection, limit).await?;
        if ctx.wants_json() {
            ctx.json(&listed)?;
        } else {
            write(&show::by_error(&listed), ctx)?;
        }
        return Ok(Exit::Done);
    }
    let listed = dead_letters::by_key(&target, name, &selection, limit).await?;
    if ctx.wants_json() {
        ctx.json(&listed)?;
    } else {
        write(&show::by_key(&listed), ctx)?;
    }
    Ok(Exit::Done)
}

async fn show(args: Show, ctx: &Context) -> Done {
    let selection = args.which.selection()?;
    ctx.verified().await?;
    let target = ctx.target().await?;
    let shown = dead_letters::show(&target, &args.name, &selection, args.limit).await?;
    if ctx.wants_json() {
        ctx.json(&shown)?;
    } else {
        write(&show::dead_letters(&shown), ctx)?;
    }
    Ok(Exit::Done)
}

async fn retry(args: Retry, ctx: &Context) -> Done {
    let selection = args.which.selection()?;
    ctx.verified().await?;
    let name = &args.name;
    let requested = dead_letters::retry(&ctx.target().await?, name, &selection).await?;
    if ctx.wants_json() {
        ctx.json(&requested)?;
        return Ok(Exit::Done);
    }
    if requested.dead_letters == 0 {
        ctx.line(&format!("{name}: nothing is parked"))?;
        return Ok(Exit::Done);
    }
    let who = match requested.is_run {
        true => "by the instance that runs it now".to_owned(),
        false => format!("by the next highwater run {name}"),
    };
    ctx.line(&format!(
        "{name}: {} of {} will be retried in order {who}",
        events(requested.dead_letters),
        keys(requested.parked_keys),
    ))?;
    Ok(Exit::Done)
}

async fn discard(args: Discard, ctx: &Context) -> Done {
    let selection = args.which.selection()?;
    ctx.verified().await?;
    let (name, reason) = (&args.name, &args.reason);
    let target = ctx.target().await?;
    let discarded = dead_letters::discard(&target, name, &selection, reason).await?;
    if ctx.wants_json() {
        ctx.json(&discarded)?;
        return Ok(Exit::Done);
    }
    let number = i64::try_from(discarded.discarded).unwrap_or(i64::MAX);
    ctx.line(&format!("{name}: {} discarded", events(number)))?;
    if discarded.left_behind > 0 {
        ctx.line(&left_behind(&discarded))?;
    }
    Ok(Exit::Done)
}

/// What is still parked of the keys with discarded events, and what to do.
fn left_behind(discarded: &Discarded) -> String {
    let name = &discarded.projection;
    let retry = format!(
        "highwater dead-letters retry {name} {}",
        flags(discarded.key.as_ref())
    );
    let left = format!(
        "{name}: {} of {} stay parked",
        events(discarded.left_behind),
        keys(discarded.still_parked_keys)
    );
    match discarded.still_failing {
        0 => format!("{left} behind what was discarded; {retry} applies them in order"),
        failing => format!(
            "{left}, {} of them with an error of their own: fix its cause or discard these too; then \
             {retry} applies the others in order",
            thousands(failing.unsigned_abs())
        ),
    }
}

/// The options that name the dead letters of a key in a shell.
fn flags(key: Option<&Option<String>>) -> String {
    match key {
        Some(None) => "--null-key".to_owned(),
        // Such a one cannot be printed so that it is read back.
        Some(Some(key)) if !key.chars().any(char::is_control) => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
            match !key.is_empty() && key.chars().all(is_plain) {
                true => format!("--key {key}"),
                false => format!("--key '{}'", key.replace('\'', "'\\''")),
            }
        }
        _ => "--all".to_owned(),
    }
}

fn write(text: &str, ctx: &Context) -> Result<(), Error> {
    ctx.write(Printable(text).to_string().as_bytes())
}

fn events(number: i64) -> String {
    count(number.unsigned_abs(), "event")
}

fn keys(number: i64) -> String {
    count(number.unsigned_abs(), "key")
}
