//! Those who append to highwater's log: by a plain insert, which is a supported append, by its function, or by
//! its crate, whose store all clients of a process share and which wakes the engine after each commit.
//! `highwater init` and `highwater run` do the rest, see `highwater/peer`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use by_hand::{Columns, Insert, connect};
use highwater::internal::event_store;
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::{EventStore, ExpectedVersion, NewEvent};
use peer_kit::{Append, Peer, Writer};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Statement};

#[derive(Default)]
struct Highwater {
    store: OnceCell<EventStore>,
}

/// As many clients as any test has, and one for the wakes.
const SESSIONS_MAX: usize = 17;

enum Own {
    Insert(Insert),
    Function(Client, Statement),
    Store(EventStore),
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
            Own::Store(store) => {
                let events = append.events.iter();
                let events = events.map(|e| NewEvent::new(e.kind.as_str(), &e.data));
                let events = events.collect::<Result<Vec<_>, _>>()?;
                let before = ExpectedVersion::Exact(i64::from(append.first) - 1);
                store.append(&append.stream, before, &events).await?;
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
        if way == "EventStore::append" {
            let open = async || {
                let database = Database::new(Connector::parse(url)?, SESSIONS_MAX)?;
                anyhow::Ok(event_store::in_database(database))
            };
            return Ok(Own::Store(self.store.get_or_try_init(open).await?.clone()));
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
    peer_kit::run(Highwater::default()).await
}
