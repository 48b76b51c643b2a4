//! The table, as Markdown: medians, with the lowest and the highest where there was more than one run.

use std::fmt::Write;

use crate::measure::{AppendCost, CatchUp, Exactness, Figures, Latency, Test};
use crate::results::{Measurement, Results};

pub fn render(results: &Results) -> String {
    let mut out = String::new();
    let machine = &results.machine;
    let dates = results
        .measurements
        .iter()
        .map(|m| m.at.strftime("%Y-%m-%d").to_string());
    let last = dates.max().unwrap_or_default();
    line(
        &mut out,
        &format!(
            "{}, {} cores, {} GiB; {}; {}. Last measured {last}.\n",
            machine.cpu, machine.cores, machine.memory_gib, machine.server, machine.settings
        ),
    );
    peers(&mut out, results);
    section(&mut out, results, Test::CatchUp, CATCH_UP, catch_up);
    section(&mut out, results, Test::Latency, LATENCY, latency);
    section(&mut out, results, Test::Exactness, EXACTNESS, exactness);
    section(
        &mut out,
        results,
        Test::SlowCommits,
        SLOW_COMMITS,
        exactness,
    );
    append_cost(&mut out, results);
    out
}

const CATCH_UP: &str = "\
## Catch-up from zero

| peer | events/s | runs | of the log when it was stopped |
|---|---|---|---|";

const LATENCY: &str = "\
## Live latency at 100 events/s, append returned → row visible

| peer | p50 ms | p99 ms | max ms | lost |
|---|---|---|---|---|";

const EXACTNESS: &str = "\
## Exactness, 16 writers that take 0 to 200 ms to commit, 10 % rolled back

| peer | runs | committed events | missed | doubled | out of order | commits/s | behind, p50 / max s | longest standstill s |
|---|---|---|---|---|---|---|---|---|";

const SLOW_COMMITS: &str = "\
## The same with writers that take 0 to 3 s to commit

| peer | runs | committed events | missed | doubled | out of order | commits/s | behind, p50 / max s | longest standstill s |
|---|---|---|---|---|---|---|---|---|";

const APPEND_COST: &str = "\
## What the append path costs, 16 clients, one event an append

| peer, way | own append/s | with its projection live | plain insert/s | own / plain | live / plain | refused attempts |
|---|---|---|---|---|---|---|";

fn peers(out: &mut String, results: &Results) {
    line(out, "| peer | version | how it is used |\n|---|---|---|");
    for m in latest(results) {
        line(
            out,
            &format!("| {} | {} | {} |", m.peer, m.version, m.settings),
        );
    }
    line(out, "");
}

/// The last measurement of each peer, in the order of their names.
fn latest(results: &Results) -> Vec<&Measurement> {
    let mut latest: Vec<&Measurement> = Vec::new();
    for name in names(results) {
        latest.extend(results.measurements.iter().rfind(|m| m.peer == name));
    }
    latest
}

fn names(results: &Results) -> Vec<String> {
    let mut names: Vec<String> = results
        .measurements
        .iter()
        .map(|m| m.peer.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn section(
    out: &mut String,
    results: &Results,
    test: Test,
    head: &str,
    row: fn(&[&Figures]) -> String,
) {
    line(out, head);
    for name in names(results) {
        let runs: Vec<&Figures> = results
            .measurements
            .iter()
            .filter(|m| m.peer == name && m.figures.test() == test)
            .map(|m| &m.figures)
            .collect();
        if !runs.is_empty() {
            line(out, &format!("| {name} | {} |", row(&runs)));
        }
    }
    line(out, "");
}

fn catch_up(runs: &[&Figures]) -> String {
    let runs: Vec<&CatchUp> = runs
        .iter()
        .filter_map(|f| match f {
            Figures::CatchUp(c) => Some(c),
            _ => None,
        })
        .collect();
    let complete = runs.iter().filter(|r| r.applied == r.events).count();
    let end = match (complete, runs.first()) {
        (n, _) if n == runs.len() => "all of it".to_owned(),
        (_, Some(run)) => format!(
            "{:.0} % after {:.0} s",
            100.0 * run.applied as f64 / run.events as f64,
            run.seconds
        ),
        (_, None) => String::new(),
    };
    format!(
        "{} | {} | {end}",
        spread(runs.iter().map(|r| r.rate())),
        runs.len(),
    )
}

fn latency(runs: &[&Figures]) -> String {
    let runs: Vec<&Latency> = runs
        .iter()
        .filter_map(|f| match f {
            Figures::Latency(l) => Some(l),
            _ => None,
        })
        .collect();
    let lost: usize = runs.iter().map(|r| r.lost).sum();
    let events: usize = runs.iter().map(|r| r.events).sum();
    format!(
        "{} | {} | {} | {} of {events}",
        spread(runs.iter().map(|r| r.p50_ms)),
        spread(runs.iter().map(|r| r.p99_ms)),
        spread(runs.iter().map(|r| r.max_ms)),
        bold_unless_zero(lost as i64),
    )
}

fn exactness(runs: &[&Figures]) -> String {
    let runs: Vec<&Exactness> = runs
        .iter()
        .filter_map(|f| match f {
            Figures::Exactness(e) | Figures::SlowCommits(e) => Some(e),
            _ => None,
        })
        .collect();
    let sum = |of: fn(&Exactness) -> i64| runs.iter().map(|r| of(r)).sum::<i64>();
    format!(
        "{} | {} | {} | {} | {} | {} | {} / {} | {}",
        runs.len(),
        sum(|r| r.events),
        bold_unless_zero(sum(|r| r.missed)),
        bold_unless_zero(sum(|r| r.doubled + r.unknown)),
        bold_unless_zero(sum(|r| r.out_of_order)),
        spread(runs.iter().map(|r| r.transactions as f64 / r.seconds)),
        spread(runs.iter().map(|r| r.behind_p50_seconds)),
        spread(runs.iter().map(|r| r.behind_max_seconds)),
        spread(runs.iter().map(|r| r.standstill_seconds)),
    )
}

fn append_cost(out: &mut String, results: &Results) {
    line(out, APPEND_COST);
    for name in names(results) {
        let mut ways: Vec<(&str, Vec<&AppendCost>)> = Vec::new();
        for m in results.measurements.iter().filter(|m| m.peer == name) {
            if let Figures::AppendCost(cost) = &m.figures {
                match ways.iter_mut().find(|(way, _)| *way == cost.way) {
                    Some((_, runs)) => runs.push(cost),
                    None => ways.push((&cost.way, vec![cost])),
                }
            }
        }
        for (way, runs) in ways {
            line(out, &format!("| {name}, {way} | {} |", cost(&runs)));
        }
    }
    line(out, "");
}

fn cost(runs: &[&AppendCost]) -> String {
    let all = |of: fn(&AppendCost) -> &Vec<f64>| -> Vec<f64> {
        runs.iter().flat_map(|r| of(r)).copied().collect()
    };
    let (own, live, plain) = (all(|r| &r.own), all(|r| &r.own_live), all(|r| &r.plain));
    let ratio = |of: &[f64]| match median(of) {
        Some(middle) => median(&plain).map_or(String::new(), |p| format!("{:.2}", middle / p)),
        None => "–".to_owned(),
    };
    let failed: usize = runs.iter().map(|r| r.failed).sum();
    format!(
        "{} | {} | {} | {} | {} | {failed}",
        spread(own.iter().copied()),
        spread(live.iter().copied()),
        spread(plain.iter().copied()),
        ratio(&own),
        ratio(&live),
    )
}

fn bold_unless_zero(n: i64) -> String {
    if n == 0 {
        "0".to_owned()
    } else {
        format!("**{n}**")
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

fn spread(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let Some(middle) = median(&values) else {
        return "–".to_owned();
    };
    if values.len() == 1 {
        return short(middle);
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({}–{})", short(middle), short(low), short(high))
}

/// Three digits, as many as two cores can promise.
fn short(value: f64) -> String {
    match value {
        v if v >= 1_000.0 => thousands(
            (v / 10f64.powf(v.log10().floor() - 2.0)).round() * 10f64.powf(v.log10().floor() - 2.0),
        ),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
