//! Runs every peer on the same work against one PostgreSQL and writes the table. Called by `../run`.

mod cluster;
mod machine;
mod measure;
mod options;
mod peer;
mod process;
mod results;
mod size;
mod table;
mod workload;

use std::process::ExitCode;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::measure::Bench;
use crate::options::{Home, Options};
use crate::peer::Peer;
use crate::results::Results;

#[tokio::main]
async fn main() -> ExitCode {
    // Dropping the work ends every process that it began.
    let done = tokio::select! {
        done = work() => done,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn work() -> Result<()> {
    let options = Options::from_args()?;
    let home = Home::from_env()?;
    let mut results = Results::open(&home, options.quick)?;
    if options.table_only {
        return results.save();
    }

    let mut peers = Vec::new();
    for name in options.peers(&home)? {
        eprintln!("{name}: building");
        peers.push(Peer::build(&home, &name).await?);
    }
    if options.build_only {
        return Ok(());
    }

    let cluster = Cluster::start(&home).await?;
    results.machine = machine::describe(&cluster).await?;
    let mut failures = 0;
    for peer in &peers {
        let bench = Bench::new(&home, &cluster, peer, options.size());
        for test in peer.tests(&options.only) {
            if options.replace {
                results.forget(&peer.name, test);
            }
            eprintln!("{}: {test}", peer.name);
            let taken = bench
                .take(test, options.runs, |found| results.add(found))
                .await;
            if let Err(e) = taken {
                eprintln!("{}: {test}: {e:#}", peer.name);
                failures += 1;
            }
        }
    }
    cluster.stop().await?;
    if failures > 0 {
        bail!("{failures} tests did not run");
    }
    Ok(())
}
