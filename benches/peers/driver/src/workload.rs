//! The work, made once and the same for every peer: files of appends, in the kit's format.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use peer_kit::workload::{Append, Data, Event};

use crate::size::{CLIENTS, STREAM_EVENTS};

/// A log of orders as a busy shop has them: all orders advance together, five events an append.
pub fn backlog(dir: &Path, streams: usize) -> Result<PathBuf> {
    const STEP: usize = 5;
    let appends = (0..STREAM_EVENTS / STEP).flat_map(|round| {
        (0..streams).map(move |i| append(i % CLIENTS, stream("order", i), round * STEP, STEP))
    });
    save(dir, "backlog", appends)
}

/// `count` new orders, one event and one client.
pub fn placed(dir: &Path, name: &str, count: usize) -> Result<PathBuf> {
    save(
        dir,
        name,
        (0..count).map(|i| append(0, stream(name, i), 0, 1)),
    )
}

/// The stream of the `i`th of them.
pub fn stream(name: &str, i: usize) -> String {
    format!("{name}-{i:06}")
}

/// Each client fills order after order, one event an append.
pub fn one_by_one(dir: &Path, name: &str, appends_each: usize) -> Result<PathBuf> {
    by_client(dir, name, appends_each, |_| 1)
}

/// Each client fills order after order, one to three events an append.
pub fn one_to_three(dir: &Path, name: &str, appends_each: usize) -> Result<PathBuf> {
    by_client(dir, name, appends_each, |i| 1 + i % 3)
}

fn by_client(
    dir: &Path,
    name: &str,
    appends_each: usize,
    length: impl Fn(usize) -> usize + Copy,
) -> Result<PathBuf> {
    let appends = (0..CLIENTS).flat_map(|client| {
        let mut order = 0;
        let mut done = 0;
        (0..appends_each).map(move |i| {
            if done == STREAM_EVENTS {
                order += 1;
                done = 0;
            }
            let count = length(i).min(STREAM_EVENTS - done);
            let next = append(
                client,
                format!("{name}-{client:02}-{order:05}"),
                done,
                count,
            );
            done += count;
            next
        })
    });
    save(dir, name, appends)
}

fn append(client: usize, stream: String, done: usize, count: usize) -> Append {
    Append {
        client,
        first: done as u32 + 1,
        events: (done + 1..=done + count)
            .map(|n| event(&stream, n))
            .collect(),
        stream,
    }
}

/// The `n`th event of an order: placed, 18 items, shipped.
fn event(stream: &str, n: usize) -> Event {
    let kind = match n {
        1 => "OrderPlaced",
        STREAM_EVENTS => "OrderShipped",
        _ => "ItemAdded",
    };
    Event {
        kind: kind.to_owned(),
        data: Data {
            order: stream.to_owned(),
            n: n as i32,
            sku: format!("SKU-{:05}", n * 4_217 % 100_000),
            quantity: (n % 4 + 1) as i32,
            cents: (n * 137 % 10_000) as i64,
            note: "leave it with the neighbour if nobody is in".to_owned(),
        },
    }
}

fn save(dir: &Path, name: &str, appends: impl Iterator<Item = Append>) -> Result<PathBuf> {
    let file = dir.join(format!("{name}.ndjson"));
    let mut out = BufWriter::new(File::create(&file)?);
    for append in appends {
        serde_json::to_writer(&mut out, &append)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(file)
}
