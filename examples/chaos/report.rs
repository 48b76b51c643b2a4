//! The table at the end.

use std::fmt::{Result, Write};
use std::time::Duration;

use crate::arena::{Arena, Tally};
use crate::journal::{Journal, locked};
use crate::ledger::Verdict;

/// So many faults of a stand-still are named.
const NAMED: usize = 6;

pub(crate) fn render(arena: &Arena, verdict: &Verdict) -> String {
    let tally = locked(&arena.tally);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = log(&mut text, verdict)
        .and_then(|()| faults(&mut text, &tally))
        .and_then(|()| ledgers(&mut text, verdict))
        .and_then(|()| stand_stills(&mut text, &tally, &arena.journal))
        .and_then(|()| instances(&mut text, &tally, verdict));
    text
}

fn log(text: &mut String, verdict: &Verdict) -> Result {
    let (unknown, kept) = verdict.unknown;
    writeln!(
        text,
        "\nevents in the log             {:>9}",
        verdict.events
    )?;
    writeln!(
        text,
        "  acknowledged                {:>9}",
        verdict.acknowledged
    )?;
    writeln!(text, "  rolled back                 {:>9}", verdict.undone)?;
    writeln!(text, "transactions, answer lost     {unknown:>9}")?;
    writeln!(text, "  committed all the same      {kept:>9}")
}

fn faults(text: &mut String, tally: &Tally) -> Result {
    let all: u64 = tally.faults.values().sum();
    writeln!(text, "\nfaults                        {all:>9}")?;
    for (kind, count) in &tally.faults {
        writeln!(text, "  {kind:<28}{count:>9}")?;
    }
    Ok(())
}

fn ledgers(text: &mut String, verdict: &Verdict) -> Result {
    writeln!(
        text,
        "\nprojection  expected   applied discarded   lost doubled foreign out of order"
    )?;
    for found in &verdict.projections {
        writeln!(
            text,
            "{:<10}{:>10}{:>10}{:>10}{:>7}{:>8}{:>8}{:>13}",
            found.name,
            found.expected,
            found.applied,
            found.discarded,
            found.lost,
            found.doubled,
            found.foreign,
            found.out_of_order,
        )?;
    }
    Ok(())
}

fn stand_stills(text: &mut String, tally: &Tally, journal: &Journal) -> Result {
    writeln!(
        text,
        "\nlongest stand-still while events waited; with the server there all the time"
    )?;
    for (name, still) in &tally.stand_stills {
        let (began, ended) = (still.began, still.began + still.length);
        let faults = journal.faults_between(began, ended);
        let more = match faults.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        writeln!(
            text,
            "{name:<10}{:>10}{:>10}  from {}: {}{more}",
            seconds(still.length),
            seconds(still.with_server),
            seconds(began),
            faults
                .into_iter()
                .take(NAMED)
                .collect::<Vec<_>>()
                .join("; "),
        )?;
    }
    Ok(())
}

fn instances(text: &mut String, tally: &Tally, verdict: &Verdict) -> Result {
    writeln!(
        text,
        "\ntake-overs with the server there      times    half   longest"
    )?;
    for (how, times) in &tally.take_overs {
        let mut times = times.clone();
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        let (middle, longest) = (seconds(middle), seconds(longest));
        writeln!(
            text,
            "  {how:<34}{:>7}{middle:>8}{longest:>10}",
            times.len()
        )?;
    }
    let ended = &tally.ended_by_themselves;
    writeln!(
        text,
        "instances that ended by themselves   {:>7}",
        ended.len()
    )?;
    for what in ended {
        writeln!(text, "  {what}")?;
    }
    writeln!(text, "drained in {}", seconds(verdict.drained_in))?;
    writeln!(text, "\nhighwater audit:\n{}", verdict.audit.trim_end())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
