//! Who runs which partitions: the same answer in every instance with the same view.
//!
//! 1. The instance that runs a partition keeps it. 2. A free one goes to the instance with the fewest;
//!    among equals, to the one that joined first. 3. While one instance has too many compared with
//!    another, one partition moves.
//!
//! So an instance that joins gets its share from those that have most, the partitions of an
//! instance that leaves go to those that have fewest, and all others stay where they are.

use uuid::Uuid;

#[cfg(test)]
mod tests;

/// A projection whose partitions are shared.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    /// Whether each instance can run it.
    pub(super) able: Vec<bool>,
    /// The instance that runs each partition now.
    pub(super) owners: Vec<Option<Uuid>>,
}

/// Shares the partitions of all projections among `instances`, which are in the order in which they
/// joined. Returns which instance is to run each partition of each projection.
pub(super) fn assign(instances: &[Uuid], projections: &[Projection]) -> Vec<Vec<Option<Uuid>>> {
    let mut table = Table::kept(instances, projections);
    table.assign_free();
    while let Some(transfer) = table.next_transfer() {
        table.move_one(transfer);
    }
    let id = |instance: Option<usize>| instance.map(|instance| instances[instance]);
    let assignments = table.projections.into_iter();
    assignments
        .map(|assignment| assignment.instances.into_iter().map(id).collect())
        .collect()
}

/// Partitions that are being shared. An instance is its index in the order of joining.
struct Table {
    projections: Vec<Assignment>,
    /// How many partitions each instance has, of all projections.
    totals: Vec<usize>,
}

/// The partitions of one projection.
struct Assignment {
    able: Vec<usize>,
    /// The instance that is to run each partition.
    instances: Vec<Option<usize>>,
    /// The instance that runs each partition now, if it can continue.
    kept: Vec<Option<usize>>,
    /// How many of them each instance has.
    counts: Vec<usize>,
}

/// A partition that is to move.
struct Transfer {
    projection: usize,
    from: usize,
    to: usize,
}

impl Table {
    /// The instance that runs a partition keeps it, if it can continue.
    fn kept(instances: &[Uuid], projections: &[Projection]) -> Table {
        let mut totals = vec![0; instances.len()];
        let assignments = projections.iter().map(|projection| {
            let can_run = |instance: &usize| projection.able.get(*instance) == Some(&true);
            let place = |owner: Uuid| instances.iter().position(|id| *id == owner);
            let owners = projection.owners.iter();
            let kept: Vec<_> = owners.map(|o| o.and_then(place).filter(can_run)).collect();
            let mut counts = vec![0; instances.len()];
            for instance in kept.iter().flatten() {
                counts[*instance] += 1;
                totals[*instance] += 1;
            }
            Assignment {
                able: (0..instances.len()).filter(can_run).collect(),
                instances: kept.clone(),
                kept,
                counts,
            }
        });
        Table {
            projections: assignments.collect(),
            totals,
        }
    }

    fn assign_free(&mut self) {
        for assignment in &mut self.projections {
            for partition in 0..assignment.instances.len() {
                if assignment.instances[partition].is_none()
                    && let Some(instance) = assignment.least_loaded(&self.totals)
                {
                    assignment.instances[partition] = Some(instance);
                    assignment.counts[instance] += 1;
                    self.totals[instance] += 1;
                }
            }
        }
    }

    /// A partition moves to an instance with two less of the projection, or one less of it and two
    /// less in total.
    fn next_transfer(&self) -> Option<Transfer> {
        let mut assignments = self.projections.iter().enumerate().rev();
        assignments.find_map(|(projection, assignment)| {
            let from = assignment.most_loaded(&self.totals)?;
            let to = assignment.least_loaded(&self.totals)?;
            let too_many = match assignment.counts[from] - assignment.counts[to] {
                0 => false,
                1 => self.totals[from] >= self.totals[to] + 2,
                _ => true,
            };
            too_many.then_some(Transfer {
                projection,
                from,
                to,
            })
        })
    }

    fn move_one(&mut self, transfer: Transfer) {
        let Transfer { from, to, .. } = transfer;
        let assignment = &mut self.projections[transfer.projection];
        let partitions = 0..assignment.instances.len();
        let theirs = partitions.filter(|n| assignment.instances[*n] == Some(from));
        // A partition that no instance runs yet, if there is one.
        let last = theirs.max_by_key(|n| (assignment.kept[*n].is_none(), *n));
        if let Some(partition) = last {
            assignment.instances[partition] = Some(to);
            assignment.counts[from] -= 1;
            assignment.counts[to] += 1;
            self.totals[from] -= 1;
            self.totals[to] += 1;
        }
    }
}

impl Assignment {
    /// The instance with the fewest of it; among equals, with the fewest in total, and then the
    /// first that joined.
    fn least_loaded(&self, totals: &[usize]) -> Option<usize> {
        let able = self.able.iter().copied();
        able.min_by_key(|instance| (self.counts[*instance], totals[*instance], *instance))
    }

    /// The instance with the most of it; among equals, with the most in total, and then the last
    /// that joined.
    fn most_loaded(&self, totals: &[usize]) -> Option<usize> {
        let able = self.able.iter().copied();
        able.max_by_key(|instance| (self.counts[*instance], totals[*instance], *instance))
    }
}
