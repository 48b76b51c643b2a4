//! What a table answers in the server.

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::{TableSource, gap, log_state};
use crate::error::Result;
use crate::pg::database;
use crate::pg::sql::query;
use crate::pg::{self, Parameter};
use crate::position::{Position, Range};
use crate::source::{
    Batch, Blocker, BoxFuture, Filter, KeyedBatch, Keys, Midpoint, OpenGap, PostgresLog,
    ReadRequest, RemovedIn, Tally,
};

impl PostgresLog for TableSource {
    fn relation(&self) -> Option<&str> {
        (!self.is_elsewhere).then_some(self.table.relation.as_str())
    }

    fn records_removals(&self) -> bool {
        self.table.identity.is_none()
    }

    fn read_keys<'a>(
        &'a self,
        request: ReadRequest<'a>,
        keys: Keys<'a>,
    ) -> BoxFuture<'a, Result<Batch>> {
        Box::pin(self.read_keys_of(request, keys))
    }

    fn read_keyed<'a>(
        &'a self,
        request: ReadRequest<'a>,
        keys: Keys<'a>,
    ) -> BoxFuture<'a, Result<KeyedBatch>> {
        Box::pin(self.read_with_keys(request, keys))
    }

    fn first(&self, range: Range) -> BoxFuture<'_, Result<Option<Position>>> {
        Box::pin(self.first_in(range))
    }

    fn middle<'a>(
        &'a self,
        range: Range,
        filter: Filter<'a>,
    ) -> BoxFuture<'a, Result<Option<Midpoint>>> {
        Box::pin(self.middle_of(range, filter))
    }

    fn tally(&self, range: Range, events_max: u64) -> BoxFuture<'_, Result<(Position, Tally)>> {
        Box::pin(self.tally_of(range, events_max))
    }

    fn removed_in(&self, range: Range) -> BoxFuture<'_, Result<Option<RemovedIn>>> {
        Box::pin(async move {
            // Only our own table has the triggers that write it down.
            if self.table.identity.is_some() {
                return Ok(None);
            }
            let client = self.client().await?;
            let removed = client.within(log_state::removed_in(&client, range)).await?;
            Ok(Some(removed))
        })
    }

    fn server(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let client = self.client().await?;
            client.within(database::server(&client)).await
        })
    }

    fn blockers<'a>(&'a self, gap: &'a OpenGap) -> BoxFuture<'a, Result<Vec<Blocker>>> {
        Box::pin(async move {
            let client = self.client().await?;
            client.within(gap::explain(&client, &gap.blocked_by)).await
        })
    }

    fn recorded_after(&self, position: Position) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        Box::pin(self.first_recorded_after(position))
    }
}

impl TableSource {
    async fn middle_of(&self, range: Range, filter: Filter<'_>) -> Result<Option<Midpoint>> {
        let client = self.client().await?;
        client
            .answered(async {
                let (types, parked) = (filter.types, Keys::listed(filter.keys.named()));
                let query = query!("source/middle.sql");
                let sql = self.keyed_sql(query, &filter.keys, "$4", &[])?;
                let parameters: [(&Parameter<'_>, Type); 4] = [
                    (&range.after().get(), Type::INT8),
                    (&range.through().get(), Type::INT8),
                    (&types, Type::TEXT_ARRAY),
                    (&parked, Type::TEXT_ARRAY),
                ];
                let row = client.query_typed_one(&sql, &parameters).await;
                let row = row.map_err(|e| pg::error("cannot count the events of a range", e))?;
                let count: i64 = pg::column(&row, 0)?;
                if count == 0 {
                    return Ok(None);
                }
                Ok(Some(Midpoint {
                    count: count.unsigned_abs(),
                    first: Position::new(pg::column(&row, 1)?),
                    middle: Position::new(pg::column(&row, 2)?),
                }))
            })
            .await
    }

    async fn tally_of(&self, range: Range, events_max: u64) -> Result<(Position, Tally)> {
        let client = self.client().await?;
        let sql = self.sql(query!("source/tally.sql"))?;
        let most = i64::try_from(events_max).unwrap_or(i64::MAX);
        let parameters: [(&Parameter<'_>, Type); 3] = [
            (&range.after().get(), Type::INT8),
            (&range.through().get(), Type::INT8),
            (&most, Type::INT8),
        ];
        let counting = async {
            let row = client.query_typed_one(&sql, &parameters).await;
            row.map_err(|e| pg::error("cannot count the events of a range", e))
        };
        let row = client.within(counting).await?;
        let tally = Tally {
            events: pg::column::<i64>(&row, 0)?.cast_unsigned(),
            digest: pg::column::<i64>(&row, 1)?.cast_unsigned(),
        };
        let last = pg::column::<Option<i64>>(&row, 2)?.map(Position::new);
        let through = match last {
            Some(last) if tally.events >= events_max => last,
            _ => range.through(),
        };
        Ok((through, tally))
    }

    async fn first_in(&self, range: Range) -> Result<Option<Position>> {
        let client = self.client().await?;
        client
            .within(async {
                let sql = self.sql(query!("source/following.sql"))?;
                let parameters: [(&Parameter<'_>, Type); 2] = [
                    (&range.after().get(), Type::INT8),
                    (&range.through().get(), Type::INT8),
                ];
                let row = client.query_typed_one(&sql, &parameters).await;
                let row = row.map_err(|e| pg::error("cannot read the next position", e))?;
                Ok(pg::column::<Option<i64>>(&row, 0)?.map(Position::new))
            })
            .await
    }
}
