//! Runs projections to the head.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Report, Settings, Until};
use crate::error::Result;
use crate::projection::DynProjection;
use crate::source::Source;
use crate::testing::TestDatabase;

/// Runs `projections` over `source` until each has passed its head or stopped.
///
/// # Errors
/// As [`Engine::run`]; the failure of one projection is in the report.
pub async fn run_to_head(
    database: &TestDatabase,
    source: Arc<dyn Source>,
    projections: Vec<Arc<dyn DynProjection>>,
) -> Result<Report> {
    let engine = Engine::new(database.pooled(), Settings::default()).source(source);
    let engine = projections.into_iter().fold(engine, Engine::projection);
    engine.run(Until::CaughtUp, CancellationToken::new()).await
}
