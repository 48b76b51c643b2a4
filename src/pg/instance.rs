//! Instances: the processes that run projections, their leases, and the view that each has of the cluster.
//!
//! **Who is authoritative.** The database's clock: an instance is alive while `seen_at + lease` lies
//! in its future. One renewal covers all that an instance runs.
//!
//! **Consequences.** A lease decides who may claim, never who may commit: that is the fence of
//! [`super::checkpoint`].

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result, StoredError};
use crate::pg::sql::{Sql, Template, query};
use crate::pg::{self, Parameter, column};
use crate::position::Position;

/// The channel on which instances are woken.
pub(crate) const CHANNEL: &str = "highwater_control";

/// An instance in the table of instances, and its runners' states, renewed in one statement.
pub(crate) struct Renewal<'a> {
    pub(crate) instance: Uuid,
    pub(crate) host: &'a str,
    pub(crate) lease: Duration,
    pub(crate) marks: Value,
    /// An array of `{projection, generation, partition, epoch, state, rate}`.
    pub(crate) runners: Value,
    /// The projections it can run.
    pub(crate) projections: Vec<String>,
}

/// What a renewal answers.
pub(crate) struct Renewed {
    pub(crate) cluster: ObservedCluster,
    /// The projections and partitions that it no longer owns.
    pub(crate) lost: Vec<(String, i32)>,
}

/// The living instances in the order in which they joined, and every projection.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObservedCluster {
    pub(crate) living: Vec<LivingInstance>,
    pub(crate) projections: Vec<ObservedProjection>,
}

/// Renews an instance and reads the cluster, in one statement.
pub(crate) async fn renew(client: &Client, renewal: Renewal<'_>) -> Result<Renewed> {
    let observed = OBSERVE.fill(&[("instances", &Sql::trusted("living"))])?;
    let sql = query!("instance/renew.sql").fill(&[("observed", &observed)])?;
    let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let lease = renewal.lease.as_secs_f64();
    let parameters: [(&Parameter<'_>, Type); 7] = [
        (&renewal.instance, Type::UUID),
        (&renewal.host, Type::TEXT),
        (&pid, Type::INT4),
        (&lease, Type::FLOAT8),
        (&renewal.marks, Type::JSONB),
        (&renewal.runners, Type::JSONB),
        (&renewal.projections, Type::TEXT_ARRAY),
    ];
    let row = client.query_typed_one(&sql, &parameters).await;
    let row = row.map_err(|e| pg::own_error("cannot renew the instance", e))?;
    Ok(Renewed {
        cluster: cluster(&row)?,
        lost: parsed(column(&row, 2)?)?,
    })
}

/// Deletes an instance; its runners are idle from then on.
pub(crate) async fn leave(client: &Client, instance: Uuid) -> Result<()> {
    let sql = include_str!("../../sql/queries/instance/leave.sql");
    let done = client.execute_typed(sql, &[(&instance, Type::UUID)]).await;
    done.map(drop)
        .map_err(|e| pg::own_error("cannot sign the instance off", e))
}

/// A living instance.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LivingInstance {
    pub(crate) id: Uuid,
    /// What it can run.
    pub(crate) projections: Vec<String>,
    /// Seconds until it counts as gone.
    pub(crate) lease: f64,
}

/// A projection with the checkpoints of its live generation.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ObservedProjection {
    pub(crate) name: String,
    pub(crate) generation: i32,
    pub(crate) hash: String,
    /// How many partitions it is to have.
    pub(crate) partitions: i32,
    pub(crate) paused: bool,
    pub(crate) checkpoints: Vec<ObservedCheckpoint>,
}

/// A checkpoint as other instances see it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ObservedCheckpoint {
    pub(crate) partition: i32,
    pub(crate) partitions: i32,
    /// Rises with each change of the number of partitions.
    pub(crate) partitioning: i32,
    pub(crate) position: Position,
    pub(crate) drain_at: Option<Position>,
    /// The living instance that owns it.
    pub(crate) owner: Option<Uuid>,
    /// An error has stopped it since the asking instance began.
    pub(crate) stopped: bool,
    /// An error had stopped it before the asking instance began.
    pub(crate) stopped_before: bool,
    /// A retry of its dead letters was requested.
    pub(crate) retries: bool,
    /// Why it stopped.
    pub(crate) error: Option<StoredError>,
}

const OBSERVE: Template = query!("instance/observe.sql");

/// Reads the cluster between two renewals.
pub(crate) async fn observe(client: &Client, instance: Uuid) -> Result<ObservedCluster> {
    let sql = OBSERVE.fill(&[("instances", &Sql::trusted("highwater.instance"))])?;
    let row = client
        .query_typed_one(&sql, &[(&instance, Type::UUID)])
        .await;
    let row = row.map_err(|e| pg::own_error("cannot read the other instances", e))?;
    cluster(&row)
}

fn cluster(row: &Row) -> Result<ObservedCluster> {
    Ok(ObservedCluster {
        living: parsed(column(row, 0)?)?,
        projections: parsed(column(row, 1)?)?,
    })
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        let what = format!("the tables of schema highwater were changed by somebody else: {e}");
        Error::new(ErrorKind::Database, what).with_hint("run highwater init")
    })
}

/// Wakes the instances, so that they poll the cluster. Best effort, because they poll too.
pub(crate) async fn wake(client: &Client) {
    let sql = include_str!("../../sql/queries/instance/wake.sql");
    if let Err(error) = client.execute_typed(sql, &[]).await {
        tracing::debug!(error = %error, "the other instances were not woken");
    }
}
