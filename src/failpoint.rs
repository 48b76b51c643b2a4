//! Named points between two durable acts, at which a test ends the process, fails or holds.
//!
//! They are there with the feature `faults` only, which nothing but highwater's own tests turns on;
//! without it a point compiles to nothing. The variable `HIGHWATER_FAILPOINT` sets what happens
//! where, as `POINT@PASS=ACTION`, several separated by commas:
//!
//! - `batch.committed@3=abort`: at the third pass the process ends as in a power cut.
//! - `claim.done@1=error`: that pass fails as if the connection was lost.
//! - `batch.fenced@1=hold:/tmp/x`: it creates that file and waits until it is removed.

/// A point in async code, by its name in `POINTS`.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "faults")]
        $crate::failpoint::reached($name).await?;
    };
    // A point that cannot fail, only end or hold.
    ($name:literal, infallible) => {
        #[cfg(feature = "faults")]
        let _ = $crate::failpoint::reached($name).await;
    };
}
pub(crate) use failpoint;

#[cfg(feature = "faults")]
pub use active::POINTS;
#[cfg(feature = "faults")]
pub(crate) use active::reached;

#[cfg(feature = "faults")]
mod active {
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use crate::error::{Error, ErrorKind, Result};

    /// Every point, named after what has just happened. Each has a crash test.
    pub const POINTS: &[&str] = &[
        // A batch of a file of events is read, and was not sent.
        "append.read",
        // It is stored, and not reported yet.
        "append.committed",
        // A wake after an append is about to be sent.
        "wake.begun",
        // A migration has run in its transaction.
        "migrate.applied",
        "migrate.committed",
        // Rows, schema and tables of a new read model are made in their transaction.
        "create.filled",
        "create.committed",
        // The epoch is raised.
        "claim.done",
        // A batch that the server applies by itself is on its way there.
        "batch.sent",
        // The fence of a batch that a projection in Rust applies has run.
        "batch.fenced",
        // Its rows are written, or what writes the last of them is on its way.
        "batch.applied",
        // A batch is stored, and the runner does not know.
        "batch.committed",
        // An event is parked in the transaction that moves the checkpoint over it.
        "park.inserted",
        "park.committed",
        // A retry of dead letters is requested, and its runner was not woken.
        "retry.requested",
        // A dead letter is applied.
        "retry.committed",
        // A retry failed, and that is recorded.
        "retry.refused",
        // Dead letters are discarded in their transaction.
        "discard.settled",
        "discard.committed",
        // The checkpoint is about to move over a range without wanted events.
        "flush.begun",
        "flush.committed",
        // Rows and schema of the next generation are made in their transaction.
        "rebuild.begun",
        "rebuild.committed",
        // The next generation is at the head.
        "rebuild.filled",
        // Schemas are renamed in their transaction.
        "swap.renamed",
        // Readers see the new generation; the old one is still there.
        "swap.committed",
        "accept.changed",
        "accept.committed",
        "drop.deleted",
        "drop.committed",
        // The runner is done, and the checkpoint is still its own.
        "release.begun",
        // One of the two steps in which the number of partitions is changed.
        "repartition.begun",
        "repartition.committed",
        // Everything is done, and the instance is still in its table.
        "leave.begun",
    ];

    struct Fault {
        point: String,
        pass: u64,
        passed: AtomicU64,
        action: FaultAction,
    }

    enum FaultAction {
        Abort,
        Fail,
        Hold(PathBuf),
    }

    static FAULTS: LazyLock<Result<Vec<Fault>, String>> = LazyLock::new(|| {
        let text = std::env::var("HIGHWATER_FAILPOINT").unwrap_or_default();
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts
            .map(|part| fault(part).ok_or_else(|| part.to_owned()))
            .collect()
    });

    fn fault(text: &str) -> Option<Fault> {
        let (place, action) = text.split_once('=')?;
        let (point, pass) = place.split_once('@')?;
        let action = match action.split_once(':') {
            None if action == "abort" => FaultAction::Abort,
            None if action == "error" => FaultAction::Fail,
            Some(("hold", file)) => FaultAction::Hold(file.into()),
            _ => return None,
        };
        POINTS.contains(&point).then_some(Fault {
            point: point.to_owned(),
            pass: pass.parse().ok()?,
            passed: AtomicU64::new(0),
            action,
        })
    }

    /// Does what the environment sets for this point.
    pub(crate) async fn reached(point: &'static str) -> Result<()> {
        let faults = FAULTS.as_ref().map_err(|part| {
            let what = format!("HIGHWATER_FAILPOINT holds {part:?}, which is no fault");
            Error::new(ErrorKind::Usage, what).with_hint("write POINT@PASS=ACTION")
        })?;
        for fault in faults.iter().filter(|fault| fault.point == point) {
            if fault.passed.fetch_add(1, Ordering::Relaxed) + 1 == fault.pass {
                fault.action.happen(point).await?;
            }
        }
        Ok(())
    }

    impl FaultAction {
        async fn happen(&self, point: &str) -> Result<()> {
            match self {
                // No destructor runs and nothing is flushed.
                FaultAction::Abort => std::process::abort(),
                FaultAction::Fail => Err(Error::new(
                    ErrorKind::ConnectionLost,
                    format!("the failpoint {point} was told to fail"),
                )
                .with_hint("take it out of HIGHWATER_FAILPOINT")),
                FaultAction::Hold(file) => hold(file).await,
            }
        }
    }

    async fn hold(file: &Path) -> Result<()> {
        std::fs::write(file, b"").map_err(|e| {
            Error::new(ErrorKind::Io, format!("cannot hold: {e}"))
                .with_location(file.display().to_string())
                .with_hint("give a file that can be written")
        })?;
        while file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
