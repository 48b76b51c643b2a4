//! The loop that most people write first: read what is above the checkpoint, upsert event by event. It
//! commits the checkpoint with the rows and does not know that positions can appear late.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use by_hand::{EVENT, Insert, connect};
use peer_kit::Peer;
use peer_kit::order::{Change, READ_MODEL, UPSERT};
use tokio::time::sleep;

const CHECKPOINT: &str =
    "create table checkpoint (position bigint not null); insert into checkpoint values (0)";
const BATCH: i64 = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

struct Polling;

impl Peer for Polling {
    type Own = Insert;
    type Plain = Insert;

    async fn setup(&self, url: &str) -> Result<()> {
        let client = connect(url).await?;
        client.batch_execute(EVENT).await?;
        client.batch_execute(READ_MODEL).await?;
        client.batch_execute(CHECKPOINT).await?;
        Ok(())
    }

    async fn project(&self, url: &str) -> Result<()> {
        let mut client = connect(url).await?;
        let read = client
            .prepare(
                "select position, stream, type, data from event
                 where position > (select position from checkpoint) order by position limit $1",
            )
            .await?;
        let upsert = client.prepare(UPSERT).await?;
        let advance = client
            .prepare("update checkpoint set position = $1")
            .await?;
        loop {
            let transaction = client.transaction().await?;
            let rows = transaction.query(&read, &[&BATCH]).await?;
            for row in &rows {
                let kind: String = row.get(2);
                let change = Change::of(&kind, &serde_json::from_value(row.get(3))?);
                let stream: String = row.get(1);
                transaction
                    .execute(
                        &upsert,
                        &[
                            &stream,
                            &change.items,
                            &change.cents,
                            &change.status,
                            &change.last,
                        ],
                    )
                    .await?;
            }
            match rows.last() {
                Some(last) => {
                    transaction
                        .execute(&advance, &[&last.get::<_, i64>(0)])
                        .await?;
                    transaction.commit().await?;
                }
                None => {
                    drop(transaction);
                    sleep(PAUSE).await;
                }
            }
        }
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
    peer_kit::run(Polling).await
}
