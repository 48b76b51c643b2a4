//! Those who append to highwater's log: by a plain insert, which is a supported append, or by its function.
//! `highwater init` and `highwater run` do the rest, see `highwater/peer`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use by_hand::{Columns, Insert, connect};
use peer_kit::{Append, Peer, Writer};
use tokio_postgres::{Client, Statement};

struct Highwater;

enum Own {
    Insert(Insert),
    Function(Client, Statement),
}

impl Writer for Own {
    async fn append(&mut self, append: &Append) -> Result<()> {
        match self {
            Own::Insert(insert) => insert.append(append).await,
            Own::Function(client, statement) => {
                let columns = Columns::of(append)?;
                client
                    .query(statement, &[&append.stream, &columns.kinds, &columns.data])
                    .await?;
                Ok(())
            }
        }
    }
}

impl Peer for Highwater {
    type Own = Own;
    type Plain = Insert;

    async fn setup(&self, _url: &str) -> Result<()> {
        bail!("highwater init does it")
    }

    async fn project(&self, _url: &str) -> Result<()> {
        bail!("highwater run does it")
    }

    async fn own(&self, url: &str, way: &str) -> Result<Own> {
        if way == "insert" {
            return Ok(Own::Insert(Insert::into(url, "highwater.event").await?));
        }
        let client = connect(url).await?;
        let statement = client
            .prepare(
                "select highwater.append($1, type, data)
                 from unnest($2::text[], $3::jsonb[]) as e (type, data)",
            )
            .await?;
        Ok(Own::Function(client, statement))
    }

    async fn plain(&self, url: &str) -> Result<Insert> {
        Insert::into(url, "plain_event").await
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    peer_kit::run(Highwater).await
}
