//! One hand-written SQL statement over the whole log: the reference for catching up.

use std::process::ExitCode;

use anyhow::Result;
use by_hand::{EVENT, Insert, connect};
use peer_kit::Peer;
use peer_kit::order::READ_MODEL;

struct OneStatement;

impl Peer for OneStatement {
    type Own = Insert;
    type Plain = Insert;

    async fn setup(&self, url: &str) -> Result<()> {
        let client = connect(url).await?;
        client.batch_execute(EVENT).await?;
        client.batch_execute(READ_MODEL).await?;
        Ok(())
    }

    async fn project(&self, url: &str) -> Result<()> {
        let client = connect(url).await?;
        client
            .batch_execute(include_str!("../../../sql/backfill.sql"))
            .await?;
        Ok(())
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
    peer_kit::run(OneStatement).await
}
