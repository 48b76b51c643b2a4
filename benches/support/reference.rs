//! What the figures are held against, on the same server in the same run.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, pin_mut};
use highwater::Result;
use serde_json::Value;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::types::Type;

use super::{Db, events, failed};

/// The read model by one statement over the event table, in a transaction of its own.
pub(crate) async fn one_statement(db: &Db) -> Result<Duration> {
    one_statement_over(db, "highwater.event").await
}

/// The same over a part of the events: what stands behind `from`.
pub(crate) async fn one_statement_over(db: &Db, relation: &str) -> Result<Duration> {
    let table = format!(
        "drop table if exists by_hand; create table by_hand {}",
        events::TABLE
    );
    db.time(&table).await?;
    let sums = events::sums_of(relation);
    db.time(&format!("insert into by_hand {sums}")).await
}

/// All rows drained by COPY, and their JSON parsed.
pub(crate) async fn copy_drained(db: &Db) -> Result<Duration> {
    let client = db.client().await?;
    let sql =
        "copy (select position, stream, version, type, data::text, metadata::text, id, recorded_at
                       from highwater.event order by position) to stdout (format binary)";
    let types = [
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::UUID,
        Type::TIMESTAMPTZ,
    ];
    let began = Instant::now();
    let rows = client.copy_out(sql).await.map_err(failed)?;
    let rows = BinaryCopyOutStream::new(rows, &types);
    pin_mut!(rows);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let data: Value = serde_json::from_str(row.get(4)).map_err(failed)?;
        bytes += data.as_object().map_or(0, serde_json::Map::len);
    }
    std::hint::black_box(bytes);
    Ok(began.elapsed())
}
