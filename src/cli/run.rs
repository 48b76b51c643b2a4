//! `run`: projections, for ever or until they have caught up.

mod late;
mod watch;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Done, Exit, Failure, to_json};
use super::text::{count, thousands};
use crate::config::parse_duration;
use crate::dead_letters::{self, Counts};
use crate::engine::{Engine, Outcome, ProjectionProgress, Report, Until};
use crate::error::{Error, ErrorKind};
use crate::name::ProjectionName;
use crate::pg::database::Database;
use crate::position::Position;

use late::{Clock, Obstacles};
pub(super) use watch::Watch;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
After SIGTERM or ctrl-c, run finishes the batch in flight and exits with 0; a second signal ends \
it at once. If a projection stops, the others continue; when all have stopped, run exits with 4.")]
pub(super) struct Args {
    /// The projections to run; all of them, if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// End when each projection has passed the head that was there at the start
    #[arg(long)]
    until_caught_up: bool,
    /// End with 124 after this time, for example 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// For clap: a duration as the configuration has it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) async fn run(args: Args, ctx: &Context) -> Done {
    let stop = ctx.stop().drain();
    let clock = Clock::start(args.timeout);
    let (engine, target) = tokio::select! {
        engine = engine(&args.names, ctx) => engine?,
        () = stop.cancelled() => return Ok(Exit::Done),
        () = clock.over() => {
            ctx.ui().warn("the time ran out before anything was run; give it more with --timeout");
            return Ok(Exit::TimedOut);
        }
    };
    let until = if args.until_caught_up {
        Until::CaughtUp
    } else {
        Until::Stopped
    };
    let monitor = engine.monitor();
    let watch = Watch::start(monitor.clone(), ctx.ui());
    let running = engine.run(until, stop.clone());
    tokio::pin!(running);
    // Read before the end, because afterwards nothing blocks the projections any more.
    let mut looking = Box::pin(async {
        clock.over().await;
        let late = match until {
            Until::CaughtUp => Obstacles::read(ctx, &monitor).await,
            Until::Stopped | Until::Passed(_) => Obstacles::default(),
        };
        stop.cancel();
        late
    });
    let (mut server_ended, mut late) = (false, None);
    let report = loop {
        tokio::select! {
            report = &mut running => break report,
            found = &mut looking, if late.is_none() => late = Some(found),
            () = ctx.private_server_ended(), if !server_ended => {
                server_ended = true;
                stop.cancel();
            }
        }
    };
    watch.end();
    let report = report?;
    let parked = parked(&target, until).await?;
    let late = late.filter(|_| until == Until::CaughtUp);
    tell(
        ctx,
        &report,
        &monitor.projections(),
        parked.as_ref(),
        late.as_ref(),
    )?;
    if server_ended {
        let what = "the private PostgreSQL was stopped while projections ran";
        let error = Error::new(ErrorKind::ConnectionLost, what);
        return Err(error.with_hint("run it again to start it again").into());
    }
    Ok(exit(&report, until, &parked.unwrap_or_default(), &clock))
}

/// How much is parked of each projection that has parked keys.
type ParkedCounts = HashMap<ProjectionName, Counts>;

/// How long a stopped run waits for a database that does not answer.
const PARKED_LIMIT: Duration = Duration::from_secs(2);

/// What is parked. `None` if a run that was stopped cannot tell: it may have been stopped because
/// the database is gone. A catch-up must know it for its exit code.
async fn parked(target: &Database, until: Until) -> crate::Result<Option<ParkedCounts>> {
    let counting = dead_letters::counts(target);
    let counts = match until {
        Until::CaughtUp => Some(counting.await?),
        Until::Stopped | Until::Passed(_) => {
            let counted = tokio::time::timeout(PARKED_LIMIT, counting).await;
            counted.ok().and_then(Result::ok)
        }
    };
    Ok(counts.map(HashMap::from_iter))
}

/// The engine, and the database of the read models, whose sessions it shares.
async fn engine(names: &[String], ctx: &Context) -> Result<(Engine, Database), Failure> {
    // First, so that a fault in a file is reported before a server is started.
    let projections = ctx.projections(names)?;
    ctx.migrated().await?;
    let settings = ctx.config()?.engine.clone();
    let target = ctx.target().await?;
    let engine = Engine::new(target.clone(), settings).source(ctx.source().await?);
    let engine = projections.into_iter().fold(engine, Engine::projection);
    Ok((engine, target))
}

fn exit(report: &Report, until: Until, parked: &ParkedCounts, clock: &Clock) -> Exit {
    let mut outcomes = report.outcomes.iter().map(|(_, outcome)| outcome);
    let has_stopped = |outcome: &Outcome| outcome.error().is_some();
    let cut_short = outcomes.clone().any(|o| matches!(o, Outcome::Drained));
    let stopped = match until {
        Until::Stopped => outcomes.all(has_stopped),
        Until::CaughtUp | Until::Passed(_) => outcomes.any(has_stopped),
    };
    let mut names = report.outcomes.iter().map(|(name, _)| name);
    match (cut_short, clock.exit()) {
        (true, Exit::TimedOut) => Exit::TimedOut,
        _ if stopped => Exit::Stopped,
        _ if !cut_short && names.any(|name| parked.contains_key(name)) => Exit::Parked,
        _ => Exit::Done,
    }
}

/// The outcome of each projection: on stderr, and as JSON on stdout.
fn tell(
    ctx: &Context,
    report: &Report,
    statuses: &[ProjectionProgress],
    parked: Option<&ParkedCounts>,
    late: Option<&Obstacles>,
) -> crate::Result<()> {
    let parked_of = |name| parked.map(|parked| parked.get(name).copied().unwrap_or_default());
    let position = |name| {
        let status = statuses.iter().find(|status| status.name == name);
        status.map_or(Position::START, |status| status.position)
    };
    if ctx.wants_json() {
        let projections: Vec<Value> = report
            .outcomes
            .iter()
            .map(|(name, outcome)| {
                let counts = parked_of(name);
                let mut row = json!({
                    "name": name,
                    "outcome": word(outcome),
                    "position": position(name.clone()),
                    "parked_keys": counts.map(|counts| counts.parked_keys),
                    "dead_letters": counts.map(|counts| counts.dead_letters),
                    "error": outcome.error().map(to_json),
                });
                if let (Some(late), Outcome::Drained) = (late, outcome) {
                    row["why"] = late.why(name).into();
                }
                row
            })
            .collect();
        return ctx.json(&json!({ "projections": projections }));
    }
    if report.outcomes.is_empty() && late.is_some() {
        ctx.ui()
            .warn("the time ran out before anything was run; give it more with --timeout");
    }
    for (name, outcome) in &report.outcomes {
        let at = thousands(position(name.clone()).since(Position::START));
        match outcome {
            Outcome::CaughtUp => ctx.ui().say(&format!("{name}: caught up at position {at}")),
            Outcome::Drained => match late {
                None => ctx.ui().say(&format!("{name}: ended at position {at}")),
                Some(late) => {
                    let why = late.why(name);
                    ctx.ui()
                        .warn(&format!("{name}: the time ran out at position {at}: {why}"));
                }
            },
            Outcome::Stopped(error) => {
                let kind = error.kind();
                ctx.ui().warn(&format!(
                    "{name}: stopped ({kind}) at position {at}: {error}"
                ));
            }
        }
        if let Some(counts) = parked_of(name).filter(|counts| counts.parked_keys > 0) {
            let letters = count(counts.dead_letters.unsigned_abs(), "event");
            let keys = count(counts.parked_keys.unsigned_abs(), "key");
            ctx.ui().warn(&format!(
                "{name}: {letters} of {keys} parked; highwater dead-letters list {name} shows why"
            ));
        }
    }
    Ok(())
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::CaughtUp => "caught_up",
        Outcome::Drained => "drained",
        Outcome::Stopped(_) => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: Vec<Outcome>) -> Report {
        let name: crate::ProjectionName = "files".parse().unwrap();
        let outcomes = outcomes.into_iter().map(|outcome| (name.clone(), outcome));
        Report {
            outcomes: outcomes.collect(),
        }
    }

    fn stopped() -> Outcome {
        Outcome::Stopped(Error::new(ErrorKind::Apply, "x"))
    }

    #[test]
    fn the_exit_code_follows_from_the_outcomes_the_parked_keys_and_the_time() {
        use Outcome::{CaughtUp, Drained};
        let counts = Counts {
            parked_keys: 1,
            dead_letters: 2,
        };
        let parked = |name: &str| ParkedCounts::from([(name.parse().unwrap(), counts)]);
        let (none, files, other) = (ParkedCounts::new(), parked("files"), parked("other"));
        let (in_time, late) = (Clock::start(None), Clock::run_out());
        let (live, catch_up) = (Until::Stopped, Until::CaughtUp);
        for (outcomes, until, parked, clock, expected) in [
            (
                vec![stopped(), stopped()],
                live,
                &none,
                &in_time,
                Exit::Stopped,
            ),
            (vec![stopped(), Drained], live, &none, &in_time, Exit::Done),
            (
                vec![stopped(), CaughtUp],
                catch_up,
                &none,
                &in_time,
                Exit::Stopped,
            ),
            (vec![CaughtUp], catch_up, &none, &in_time, Exit::Done),
            (
                vec![Drained, stopped()],
                catch_up,
                &none,
                &late,
                Exit::TimedOut,
            ),
            (vec![CaughtUp], catch_up, &none, &late, Exit::Done),
            (vec![stopped()], live, &none, &late, Exit::Stopped),
            (vec![CaughtUp], catch_up, &files, &in_time, Exit::Parked),
            (vec![Drained], catch_up, &files, &in_time, Exit::Done),
            (
                vec![CaughtUp, stopped()],
                catch_up,
                &files,
                &in_time,
                Exit::Stopped,
            ),
            (vec![CaughtUp], catch_up, &other, &in_time, Exit::Done),
        ] {
            let report = report(outcomes);
            let found = exit(&report, until, parked, clock);
            assert_eq!(found, expected, "{report:?} {until:?} {parked:?}");
        }
    }
}
