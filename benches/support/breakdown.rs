//! Where time goes, from the engine's own metrics.

use std::collections::BTreeMap;

use highwater::Result;
use highwater::internal::metrics::{self, Phase};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::{Report, failed};

/// Collects what the engines of this process say of themselves. One for each process.
#[derive(Clone)]
pub(crate) struct Breakdown(Snapshotter);

/// Count and sum of what was recorded.
#[derive(Clone, Copy, Default)]
struct Sum {
    count: u64,
    seconds: f64,
}

impl Breakdown {
    pub(crate) fn install() -> Result<Breakdown> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().map_err(failed)?;
        Ok(Breakdown(snapshotter))
    }

    /// Forgets what was recorded so far.
    pub(crate) fn begin(&self) {
        drop(self.0.snapshot());
    }

    /// How often a reader has stepped since [`Breakdown::begin`].
    pub(crate) fn steps(&self) -> u64 {
        let all = self.0.snapshot().into_vec();
        let steps = all
            .into_iter()
            .filter_map(|(key, _, _, value)| match value {
                DebugValue::Histogram(samples) if key.key().name() == metrics::STEP_SECONDS => {
                    Some(samples.len() as u64)
                }
                _ => None,
            });
        steps.sum()
    }

    /// Says below the report where the time went since [`Breakdown::begin`].
    pub(crate) fn report(&self, what: &str, report: &mut Report) {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (key, _, _, value) in self.0.snapshot().into_vec() {
            let key = key.key();
            let phase = key.labels().find(|label| label.key() == "phase");
            let name = phase.map_or(key.name(), |label| label.value()).to_owned();
            match value {
                DebugValue::Histogram(samples) => {
                    let sum = sums.entry(name).or_default();
                    sum.count += samples.len() as u64;
                    sum.seconds += samples.iter().map(|s| s.into_inner()).sum::<f64>();
                }
                DebugValue::Counter(count) => *counts.entry(name).or_default() += count,
                DebugValue::Gauge(_) => {}
            }
        }
        let of = |name: &str| sums.get(name).copied().unwrap_or_default();
        let batches = of(metrics::BATCH_SECONDS);
        let per_batch = |seconds: f64| seconds * 1e3 / batches.count.max(1) as f64;
        let mut parts = Vec::new();
        let mut known = 0.0;
        for phase in Phase::ALL {
            let seconds = of(phase.as_str()).seconds;
            known += seconds;
            parts.push(format!("{} {:.2} ms", phase.as_str(), per_batch(seconds)));
        }
        let rest = (batches.seconds - known).max(0.0);
        let steps = of(metrics::STEP_SECONDS);
        let trips = counts.get(metrics::ROUND_TRIPS).copied().unwrap_or(0);
        report.note(format!(
            "where time goes, {what}: {} batches of {:.2} ms each: {}, the rest (session, runner) {:.2} ms; \
             round trips for a batch {:.1}; mark: {} steps of {:.2} ms each",
            batches.count,
            per_batch(batches.seconds),
            parts.join(", "),
            per_batch(rest),
            trips as f64 / batches.count.max(1) as f64,
            steps.count,
            steps.seconds * 1e3 / steps.count.max(1) as f64,
        ));
    }
}
