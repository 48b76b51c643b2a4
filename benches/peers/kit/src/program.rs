//! The verbs of a peer, as the driver calls them:
//!
//! ```text
//! setup                                             its schema and the read model, in an empty database
//! project                                           keep the read model, until killed
//! write FILE [--way W] [--rate R] [--seconds S] [--log F]     append FILE by its own API
//! plain FILE --seconds S                            the same rows as autocommit inserts into plain_event
//! ```
//!
//! `PEER_DATABASE_URL` names the database. `write` and `plain` print a [`Report`](crate::writers::Report)
//! as JSON.

use std::env;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::writers::{self, Plan, Writer};

/// A library, used as its documentation says is best.
pub trait Peer {
    /// Appends by its own API.
    type Own: Writer;
    /// Inserts the same row into `plain_event`, with the same client library.
    type Plain: Writer;

    fn setup(&self, url: &str) -> impl Future<Output = Result<()>>;
    fn project(&self, url: &str) -> impl Future<Output = Result<()>>;
    /// `way` is one of those that the peer's `about` names.
    fn own(&self, url: &str, way: &str) -> impl Future<Output = Result<Self::Own>>;
    fn plain(&self, url: &str) -> impl Future<Output = Result<Self::Plain>>;
}

/// The `main` of a peer.
pub async fn run(peer: impl Peer) -> ExitCode {
    match dispatch(peer).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(peer: impl Peer) -> Result<()> {
    let url = env::var("PEER_DATABASE_URL").context("PEER_DATABASE_URL is not set")?;
    let args: Vec<String> = env::args().skip(1).collect();
    let report = match args.first().map(String::as_str) {
        Some("setup") => return peer.setup(&url).await,
        Some("project") => return peer.project(&url).await,
        Some("write") => {
            let way = option(&args, "--way").unwrap_or("append");
            writers::write(&plan(&args)?, async || peer.own(&url, way).await).await?
        }
        Some("plain") => writers::write(&plan(&args)?, async || peer.plain(&url).await).await?,
        _ => bail!("usage: setup | project | write FILE [OPTIONS] | plain FILE [OPTIONS]"),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn plan(args: &[String]) -> Result<Plan> {
    let seconds = option(args, "--seconds").map(str::parse).transpose()?;
    Ok(Plan {
        file: args.get(1).context("which file?")?.into(),
        rate: option(args, "--rate").map(str::parse).transpose()?,
        limit: seconds.map(Duration::from_secs_f64),
        log: option(args, "--log").map(Into::into),
    })
}

fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).map(String::as_str)
}
