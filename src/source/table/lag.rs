//! The age of the first event after a position.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::TableSource;
use crate::error::Result;
use crate::pg::sql::query;
use crate::pg::{self, Parameter, column};
use crate::position::Position;
use crate::source::Lag;

impl TableSource {
    /// The head and the ages after `positions`, in one statement that only uses the index.
    pub(super) async fn lag_behind(&self, positions: &[Position]) -> Result<Lag> {
        let client = self.client().await?;
        client
            .within(async {
                let sql = self.sql(query!("status/lag.sql"))?;
                let numbers: Vec<i64> = positions.iter().map(|p| p.get()).collect();
                let row = client
                    .query_typed_one(&sql, &[(&numbers, Type::INT8_ARRAY)])
                    .await
                    .map_err(|e| pg::error("cannot read the head of the log", e))?;
                let ages: Vec<Option<f64>> = column(&row, 1)?;
                Ok(Lag {
                    head: Position::new(column(&row, 0)?),
                    // No event is younger than now, even if the clock went back.
                    ages: ages
                        .iter()
                        .map(|a| Some(a.unwrap_or(0.0).max(0.0)))
                        .collect(),
                })
            })
            .await
    }

    /// When the first event after `position` was recorded.
    pub(super) async fn first_recorded_after(
        &self,
        position: Position,
    ) -> Result<Option<Timestamp>> {
        let client = self.client().await?;
        client
            .within(async {
                let sql = self.sql(query!("status/recorded_after.sql"))?;
                let parameters: [(&Parameter<'_>, Type); 1] = [(&position.get(), Type::INT8)];
                let row = client.query_typed_opt(&sql, &parameters).await;
                let row = row.map_err(|e| pg::error("cannot read the event beyond the gap", e))?;
                row.map_or(Ok(None), |row| column(&row, 0))
            })
            .await
    }
}
