//! What the append path costs the writers: the peer's own append, without and with its projection running,
//! against a plain insert of the same row by the same client library.

use std::path::PathBuf;

use anyhow::Result;
use peer_kit::writers::Report;
use serde::{Deserialize, Serialize};

use super::{Bench, RUN};
use crate::cluster::connect;
use crate::peer::{AtWork, Writing};
use crate::process::stop;
use crate::workload;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AppendCost {
    pub way: String,
    /// Appends a second, one for each round.
    pub own: Vec<f64>,
    /// While its projection runs; empty where there is none.
    pub own_live: Vec<f64>,
    pub plain: Vec<f64>,
    /// Attempts that its own append refused, over all rounds.
    pub failed: usize,
}

/// Of each client, before anything is measured.
const APPENDS_BEFORE: usize = 300;
/// More than any client gets done in a second.
const APPENDS_A_SECOND: usize = 1_200;

pub async fn take(bench: &Bench<'_>, way: &str) -> Result<AppendCost> {
    let peer = bench.set_up(RUN).await?;
    let client = connect(&peer.url).await?;
    let events = &bench.peer.about.events;
    client
        .batch_execute(&format!(
            "create table plain_event (like {events} including all)"
        ))
        .await?;
    // A log that has some events, and statistics of them, as every log but a new one has.
    let first = workload::one_by_one(&bench.dir, "first", APPENDS_BEFORE)?;
    peer.write(&first, &Writing::default()).await?;
    client.batch_execute("vacuum analyze").await?;

    let mut cost = AppendCost {
        way: way.to_owned(),
        own: Vec::new(),
        own_live: Vec::new(),
        plain: Vec::new(),
        failed: 0,
    };
    for round in 0..bench.size.append_rounds {
        let own = own(bench, &peer, way, &format!("own{round}")).await?;
        cost.own.push(rate(&own));
        cost.failed += own.failed;
        if let Some(projection) = peer.project()? {
            bench
                .warm_up(&peer, &client, &format!("warm{round}"))
                .await?;
            let live = self::own(bench, &peer, way, &format!("live{round}")).await?;
            cost.own_live.push(rate(&live));
            cost.failed += live.failed;
            stop(Some(projection)).await?;
        }
        let file = work(bench, &format!("plain{round}"))?;
        cost.plain
            .push(rate(&peer.plain(&file, bench.size.append).await?));
    }
    Ok(cost)
}

async fn own(bench: &Bench<'_>, peer: &AtWork<'_>, way: &str, name: &str) -> Result<Report> {
    let writing = Writing {
        way: Some(way),
        limit: Some(bench.size.append),
        ..Writing::default()
    };
    peer.write(&work(bench, name)?, &writing).await
}

fn work(bench: &Bench<'_>, name: &str) -> Result<PathBuf> {
    let each = bench.size.append.as_secs() as usize * APPENDS_A_SECOND;
    workload::one_by_one(&bench.dir, name, each)
}

fn rate(report: &Report) -> f64 {
    report.committed as f64 / report.seconds
}
