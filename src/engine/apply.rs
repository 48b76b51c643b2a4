//! One batch, one transaction: the fence first, the read model, then the commit.
//!
//! An [`Executor`] brings the events to the projection: where source and read model share a
//! database, everything goes to the server in one message and no event leaves it. A session whose
//! transaction did not end is not returned to the pool.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::failpoint;
use crate::pg::checkpoint::{self, Epoch, Fence, Key, LastEvent};
use crate::pg::connect::PooledClient;
use crate::pg::database::Database;
use crate::pg::dead_letter::ParkingLimits;
use crate::pg::sql::{Sql, sql};
use crate::pg::transaction::Prologue;
use crate::position::{Position, Range};
use crate::projection::DynProjection;
use crate::source::{EventKey, Filter, Keys, Parked, Partition, Source};

pub(super) mod batch;
mod executor;
mod in_server;
mod pace;
mod park;
mod read_ahead;
mod session;
mod streamed;
mod timing;

use executor::{Executor, Work};
use in_server::InServer;
use streamed::Streamed;
use timing::PhaseTimer;

pub(super) use executor::Limits;
pub(super) use pace::EVENTS_MAX;
pub(super) use session::{InFlight, Session};

/// What applying batches needs, the same for every batch of a claim.
#[derive(Clone)]
pub(super) struct Applier {
    pub(super) target: Database,
    pub(super) source: Arc<dyn Source>,
    pub(super) projection: Arc<dyn DynProjection>,
    pub(super) key: Key,
    pub(super) epoch: Epoch,
    pub(super) partition_filter: PartitionFilter,
    /// How much may be parked.
    pub(super) parking: ParkingLimits,
    /// The schema that holds this generation.
    pub(super) schema: String,
    /// How each batch's transaction begins.
    pub(super) prologue: Prologue,
    /// What a large batch may take of the server's memory for each sort or hash, at least.
    /// How long a transaction takes further batches.
    pub(super) transaction_time: Duration,
    pub(super) in_flight: InFlight,
    /// How long the session of a batch may be silent before a keepalive is sent.
    pub(super) silence: Duration,
}

/// The events of this runner, as the row of its checkpoint said when it was last read. The fence
/// compares `parking`, so a runner with an old filter cannot commit.
#[derive(Clone, Debug)]
pub(super) struct PartitionFilter {
    /// The number of partitions of the projection.
    pub(super) partitions: i32,
    /// Rises whenever a key is parked or released.
    pub(super) parking: i64,
    /// The keys of this partition that are parked.
    pub(super) parked: Arc<[EventKey]>,
}

impl PartitionFilter {
    fn filter<'a>(&'a self, key: &Key, projection: &'a dyn DynProjection) -> Filter<'a> {
        let definition = projection.definition();
        Filter {
            types: definition.events.as_deref(),
            keys: Keys {
                key: &definition.key,
                partition: Partition {
                    number: key.partition,
                    of: self.partitions,
                },
                parked: Parked::Without(&self.parked),
            },
        }
    }
}

/// Whether events are read out of the source for a projection, not inside the server.
pub(super) fn is_read(projection: &dyn DynProjection, source: &dyn Source) -> bool {
    projection.statements().is_none() || source.relation().is_none()
}

impl Applier {
    /// A session to apply on, with the moment it was opened.
    pub(super) async fn session(&self) -> Result<(PooledClient, Instant)> {
        let client = self.target.client().await?;
        let opened = PooledClient::metrics(&client).created;
        Ok((client, opened))
    }

    /// How events get to the projection.
    fn executor(&self) -> Box<dyn Executor<'_> + '_> {
        match self.projection.statements().zip(self.source.relation()) {
            Some((statements, relation)) => Box::new(InServer {
                applier: self,
                statements,
                relation,
            }),
            None => Box::new(Streamed(self)),
        }
    }

    /// Reads what `range` holds, up to the limits, unless the server can do so by itself.
    pub(super) async fn prepare<'a>(
        &'a self,
        range: Range,
        limits: Limits<'a>,
    ) -> Result<Box<dyn Work + 'a>> {
        self.executor().prepare(range, limits).await
    }

    /// Applies what was prepared and moves the checkpoint to the end of it. Returns how far it
    /// went: less than the range where the limits cut what was read.
    ///
    /// `client` is covered by the mark ([`super::progress::Subscriber::covers`]), so the server did
    /// not crash since the mark was proven, and what was read meanwhile is still true.
    pub(super) async fn apply(
        &self,
        client: PooledClient,
        work: Box<dyn Work + '_>,
    ) -> Result<Position> {
        let session = Session::new(client, &self.in_flight);
        let through = work.apply(&session).await;
        session.finish(through.as_ref().err()).await;
        let through = through?;
        failpoint!("batch.committed");
        Ok(through)
    }

    /// The last event at or before the end of a range, where it is not `known` from the reader's rows.
    pub(super) async fn last_event(
        &self,
        range: Range,
        known: Option<LastEvent>,
    ) -> Result<LastEvent> {
        match known {
            Some(last) => Ok(last),
            None => self.source.last_at(range.through()).await,
        }
    }

    /// Moves the checkpoint over a range that holds nothing for this projection.
    pub(super) async fn skip(
        &self,
        client: PooledClient,
        range: Range,
        last: LastEvent,
    ) -> Result<()> {
        checkpoint::skip(&client, &self.fence(), range, last).await
    }

    /// Which events a batch holds: those of the wanted types and the partition's keys, without
    /// the parked ones.
    pub(super) fn filter(&self) -> Filter<'_> {
        self.partition_filter.filter(&self.key, &*self.projection)
    }

    fn fence(&self) -> Fence<'_> {
        Fence {
            key: &self.key,
            epoch: self.epoch,
            parking: self.partition_filter.parking,
            schema: &self.schema,
        }
    }

    fn phase_timer(&self) -> PhaseTimer<'_> {
        PhaseTimer::of(&self.key.projection)
    }

    /// The statement that sets where unqualified names are found.
    fn set_search_path(&self) -> Sql {
        let path = sql!("{schema}, public", schema = Sql::identifier(&self.schema));
        sql!(
            "select set_config('search_path', {path}, true)",
            path = Sql::literal(&path)
        )
    }
}

/// The error of a projection whose code panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let what = format!(
        "the projection's code panicked: {}",
        text.unwrap_or("without a message")
    );
    Error::new(ErrorKind::Internal, what)
        .with_hint("fix it and run again; nothing of the batch was committed")
}
