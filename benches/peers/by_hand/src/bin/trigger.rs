//! A trigger that keeps the read model inside the append: no lag, and the writers pay.

use std::process::ExitCode;

use anyhow::{Result, bail};
use by_hand::{EVENT, Insert, connect};
use peer_kit::Peer;
use peer_kit::order::READ_MODEL;

struct Trigger;

impl Peer for Trigger {
    type Own = Insert;
    type Plain = Insert;

    async fn setup(&self, url: &str) -> Result<()> {
        let client = connect(url).await?;
        client.batch_execute(EVENT).await?;
        client.batch_execute(READ_MODEL).await?;
        client
            .batch_execute(include_str!("../../../sql/trigger.sql"))
            .await?;
        Ok(())
    }

    async fn project(&self, _url: &str) -> Result<()> {
        bail!("the appends do it")
    }

    async fn own(&self, url: &str, _way: &str) -> Result<Insert> {
        Insert::into(url, "event").await
    }

    async fn plain(&self, url: &str) -> Result<Insert> {
        Insert::into(url, "plain_event").await
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    peer_kit::run(Trigger).await
}
