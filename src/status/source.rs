//! The status of one source, and how far the checkpoints are behind it.

use std::collections::HashMap;
use std::sync::Arc;

use super::stored::StoredStatus;
use super::{Measured, SourceStatus, mark};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::source::Source;

/// Measures a source. The status says what failed, and what could be read.
pub(super) async fn measure(source: &dyn Source, stored: &StoredStatus) -> Measured {
    let mut status = SourceStatus {
        name: source.name().to_owned(),
        head: None,
        mark: None,
        gap: None,
        problem: None,
    };
    match follow(source, stored).await {
        Ok((mark, gap)) => {
            status.mark = Some(mark);
            status.gap = gap;
        }
        Err(error) => status.problem = Some(Arc::new(error)),
    }
    // After the mark, so that it is not above the head.
    let positions = stored.positions(source.name());
    let ages = match source.lag(&positions).await {
        Ok(lag) => {
            status.head = Some(lag.head);
            let ages = positions.into_iter().zip(lag.ages);
            ages.filter_map(|(position, age)| Some((position, age?)))
                .collect()
        }
        Err(error) => {
            status.problem.get_or_insert_with(|| Arc::new(error));
            HashMap::new()
        }
    };
    Measured { status, ages }
}

async fn follow(
    source: &dyn Source,
    stored: &StoredStatus,
) -> Result<(Position, Option<super::Gap>), Error> {
    let name = source.name();
    let identity = source.identity().await?;
    let proven = stored.proven_position(name, &identity);
    if let Some(head) = mark::proven_head(source, stored.reported(name), proven).await? {
        return Ok((head, None));
    }
    mark::follow(source, proven, mark::PATIENCE).await
}
