//! Blocks and their changes, in the database of the read models.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::block::{Block, Change, Tally};
use crate::error::{Error, Result};
use crate::name::ProjectionName;
use crate::pg::{self, Parameter, column};
use crate::position::{Position, Range};

/// Stores blocks of a log.
pub(crate) async fn record(client: &Client, identity: &str, blocks: &[Block]) -> Result<()> {
    let sql = include_str!("../../sql/queries/block/record.sql");
    let of = |number: fn(&Block) -> i64| blocks.iter().map(number).collect::<Vec<i64>>();
    let later: Vec<bool> = blocks.iter().map(|b| b.counted_later).collect();
    let parameters: [(&Parameter<'_>, Type); 6] = [
        (&identity, Type::TEXT),
        (&of(|b| b.range.after().get()), Type::INT8_ARRAY),
        (&of(|b| b.range.through().get()), Type::INT8_ARRAY),
        (&of(|b| b.tally.events.cast_signed()), Type::INT8_ARRAY),
        (&of(|b| b.tally.digest.cast_signed()), Type::INT8_ARRAY),
        (&later, Type::BOOL_ARRAY),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot record what the log holds", e))
}

/// The first part of `range` that no block covers.
pub(crate) async fn first_gap(
    client: &Client,
    identity: &str,
    range: Range,
) -> Result<Option<Range>> {
    let sql = include_str!("../../sql/queries/block/first_gap.sql");
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&identity, Type::TEXT),
        (&range.after().get(), Type::INT8),
        (&range.through().get(), Type::INT8),
    ];
    let row = client.query_typed_opt(sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot read the blocks", e))?;
    row.map(|row| {
        let position = |at| Ok::<_, Error>(Position::new(column(&row, at)?));
        Ok(Range::new(position(0)?, position(1)?))
    })
    .transpose()
}

/// At most `most` blocks that begin after `after`, in their order.
pub(crate) async fn list(
    client: &Client,
    identity: &str,
    after: Option<Position>,
    most: i64,
) -> Result<Vec<Block>> {
    let sql = include_str!("../../sql/queries/block/list.sql");
    // The first block begins at 0.
    let after = after.map_or(-1, Position::get);
    let parameters: [(&Parameter<'_>, Type); 3] = [
        (&identity, Type::TEXT),
        (&after, Type::INT8),
        (&most, Type::INT8),
    ];
    let rows = client.query_typed(sql, &parameters).await;
    let rows = rows.map_err(|e| pg::own_error("cannot read the blocks", e))?;
    rows.iter().map(block).collect()
}

fn block(row: &Row) -> Result<Block> {
    let position = |at| Ok::<_, Error>(Position::new(column(row, at)?));
    Ok(Block {
        range: Range::new(position(0)?, position(1)?),
        tally: Tally {
            events: column::<i64>(row, 2)?.cast_unsigned(),
            digest: column::<i64>(row, 3)?.cast_unsigned(),
        },
        counted_later: column(row, 4)?,
    })
}

/// Records that a block has changed.
pub(crate) async fn changed(
    client: &Client,
    identity: &str,
    block: &Block,
    expected: Tally,
    now: Tally,
) -> Result<()> {
    let sql = include_str!("../../sql/queries/block/changed.sql");
    let parameters: [(&Parameter<'_>, Type); 6] = [
        (&identity, Type::TEXT),
        (&block.range.after().get(), Type::INT8),
        (&block.range.through().get(), Type::INT8),
        (&now.events.cast_signed(), Type::INT8),
        (&now.digest.cast_signed(), Type::INT8),
        (&expected.events.cast_signed(), Type::INT8),
    ];
    let done = client.execute_typed(sql, &parameters).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot record that a block has changed", e))
}

/// How far a generation has read its source.
#[derive(Clone, Debug)]
pub(crate) struct GenerationPosition {
    pub(crate) projection: ProjectionName,
    pub(crate) generation: i32,
    pub(crate) source: String,
    pub(crate) identity: String,
    pub(crate) position: Position,
}

/// How far the generations of one projection, or of all, have read.
pub(crate) async fn passed(
    client: &Client,
    name: Option<&ProjectionName>,
) -> Result<Vec<GenerationPosition>> {
    let sql = include_str!("../../sql/queries/block/passed.sql");
    let name = name.map(ProjectionName::as_str);
    let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await;
    let rows = rows.map_err(|e| pg::own_error("cannot read the checkpoints", e))?;
    let passed = rows.iter().map(|row| {
        Ok(GenerationPosition {
            projection: column::<String>(row, 0)?.parse()?,
            generation: column(row, 1)?,
            source: column(row, 2)?,
            identity: column(row, 3)?,
            position: Position::new(column(row, 4)?),
        })
    });
    passed.collect()
}

/// A block that changed, and a generation that had read it before that was found.
#[derive(Clone, Debug)]
pub(crate) struct AffectedGeneration {
    pub(crate) projection: ProjectionName,
    pub(crate) generation: i32,
    pub(crate) change: Change,
}

/// The recorded changes that affect a generation of one projection, or of all.
pub(crate) async fn concerns(
    client: &Client,
    name: Option<&ProjectionName>,
) -> Result<Vec<AffectedGeneration>> {
    let sql = include_str!("../../sql/queries/block/changes.sql");
    let name = name.map(ProjectionName::as_str);
    let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await;
    let rows = rows.map_err(|e| pg::own_error("cannot read what has changed", e))?;
    let concerns = rows.iter().map(|row| {
        Ok(AffectedGeneration {
            projection: column::<String>(row, 0)?.parse()?,
            generation: column(row, 1)?,
            change: Change {
                range: Range::new(
                    Position::new(column(row, 2)?),
                    Position::new(column(row, 3)?),
                ),
                events_before: column::<i64>(row, 4)?.cast_unsigned(),
                events_now: column::<i64>(row, 5)?.cast_unsigned(),
                found_at: column(row, 6)?,
            },
        })
    });
    concerns.collect()
}
