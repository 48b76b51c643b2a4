//! What an instance sees of the cluster: the living instances, and every projection with its checkpoints.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::engine::share::{self, assign};
use crate::name::ProjectionName;
use crate::pg::instance::{LivingInstance, ObservedCluster, ObservedProjection};

/// What an instance sees.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct ClusterView {
    /// Rises with each view; 0 before the first.
    pub(in crate::engine) revision: u64,
    /// Until when the lease is sure to hold, by our clock.
    trusted_until: Option<Instant>,
    cluster: ObservedCluster,
}

impl ClusterView {
    /// Stores what was read. `trusted_until` is set if the lease was renewed with it.
    pub(super) fn update(&mut self, cluster: ObservedCluster, trusted_until: Option<Instant>) {
        self.revision += 1;
        self.cluster = cluster;
        self.trusted_until = trusted_until.or(self.trusted_until);
    }

    /// Whether the lease is sure to hold.
    pub(in crate::engine) fn is_trusted(&self) -> bool {
        self.trusted_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Whether no living instance joined before `me`.
    pub(in crate::engine) fn is_eldest(&self, me: Uuid) -> bool {
        let eldest = self.cluster.living.first();
        eldest.is_some_and(|eldest| eldest.id == me)
    }

    pub(in crate::engine) fn projection(
        &self,
        name: &ProjectionName,
    ) -> Option<&ObservedProjection> {
        let mut all = self.cluster.projections.iter();
        all.find(|projection| projection.name == name.as_str())
    }

    /// The partitions of a projection that the instance `me` is to run.
    pub(in crate::engine) fn share(&self, me: Uuid, projection: &ObservedProjection) -> Vec<i32> {
        let living = &self.cluster.living;
        let instances: Vec<Uuid> = living.iter().map(|instance| instance.id).collect();
        let projections = &self.cluster.projections;
        let asked = projections.iter().position(|p| p.name == projection.name);
        let can_run = |instance: &LivingInstance, of: &ObservedProjection| {
            // A batch job does not announce this to others.
            let is_mine = instance.id == me && of.name == projection.name;
            is_mine || instance.projections.contains(&of.name)
        };
        let projections = projections.iter().map(|of| share::Projection {
            able: living.iter().map(|i| can_run(i, of)).collect(),
            owners: of.checkpoints.iter().map(|c| c.owner).collect(),
        });
        let assigned = assign(&instances, &projections.collect::<Vec<_>>());
        let hand = asked.and_then(|asked| assigned.into_iter().nth(asked));
        let numbered = projection.checkpoints.iter().zip(hand.unwrap_or_default());
        let mine = numbered.filter(|(_, owner)| *owner == Some(me));
        mine.map(|(checkpoint, _)| checkpoint.partition).collect()
    }

    /// How soon the first lease of another ends, if it is not renewed. `None` if there is no other.
    pub(super) fn next_lease_end(&self, me: Uuid) -> Option<Duration> {
        let living = self.cluster.living.iter();
        let others = living.filter(|instance| instance.id != me);
        let ends = others.map(|o| Duration::try_from_secs_f64(o.lease).unwrap_or_default());
        ends.min()
    }
}
