//! An event table of one's own, and the inserts into it.

use anyhow::Result;
use peer_kit::{Append, Writer};
use serde_json::Value;
use tokio_postgres::{Client, NoTls, Statement};

/// The events' table of those who have no library.
pub const EVENT: &str = include_str!("../../sql/event.sql");

/// Connects; the connection lives as long as its client.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            eprintln!("connection: {e}");
        }
    });
    Ok(client)
}

/// One client, one statement for each append, which commits by itself.
pub struct Insert {
    client: Client,
    one: Statement,
    many: Statement,
}

impl Insert {
    /// Into any table with the columns stream, version, type and data.
    pub async fn into(url: &str, table: &str) -> Result<Insert> {
        let client = connect(url).await?;
        let columns = format!("insert into {table} (stream, version, type, data)");
        let one = format!("{columns} values ($1, $2, $3, $4)");
        let many = format!(
            "{columns} select $1, version, type, data
             from unnest($2::bigint[], $3::text[], $4::jsonb[]) as e (version, type, data)"
        );
        Ok(Insert {
            one: client.prepare(&one).await?,
            many: client.prepare(&many).await?,
            client,
        })
    }
}

impl Writer for Insert {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let columns = Columns::of(append)?;
        let stream = &append.stream;
        if let ([version], [kind], [data]) =
            (&columns.versions[..], &columns.kinds[..], &columns.data[..])
        {
            self.client
                .execute(&self.one, &[stream, version, kind, data])
                .await?;
            return Ok(());
        }
        self.client
            .execute(
                &self.many,
                &[stream, &columns.versions, &columns.kinds, &columns.data],
            )
            .await?;
        Ok(())
    }
}

/// An append as arrays, one for each column.
pub struct Columns {
    pub versions: Vec<i64>,
    pub kinds: Vec<String>,
    pub data: Vec<Value>,
}

impl Columns {
    pub fn of(append: &Append) -> Result<Columns> {
        let first = i64::from(append.first);
        Ok(Columns {
            versions: (first..).take(append.events.len()).collect(),
            kinds: append.events.iter().map(|e| e.kind.clone()).collect(),
            data: append
                .events
                .iter()
                .map(|e| serde_json::to_value(&e.data))
                .collect::<Result<_, _>>()?,
        })
    }
}
