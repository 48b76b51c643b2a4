//! Who runs which partitions: the same answer in every instance with the same view.
//!
//! 1. The instance that runs a partition keeps it. 2. A free one goes to the instance with the fewest;
//!    among equals, to the one that joined first. 3. While one instance has too many beside another,
//!    one partition moves.
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
    let id = |seat: Option<usize>| seat.map(|seat| instances[seat]);
    let hands = table.hands.into_iter();
    hands
        .map(|hand| hand.seats.into_iter().map(id).collect())
        .collect()
}

/// Partitions that are being shared. A seat is an instance, in the order of joining.
struct Table {
    hands: Vec<Hand>,
    /// How many partitions each seat has, of all projections.
    totals: Vec<usize>,
}

/// The partitions of one projection.
struct Hand {
    able: Vec<usize>,
    seats: Vec<Option<usize>>,
    /// The instance that runs each partition now, if it can continue.
    kept: Vec<Option<usize>>,
    /// How many of them each seat has.
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
        let hands = projections.iter().map(|projection| {
            let can_run = |seat: &usize| projection.able.get(*seat) == Some(&true);
            let seat = |owner: Uuid| instances.iter().position(|id| *id == owner);
            let owners = projection.owners.iter();
            let kept: Vec<_> = owners.map(|o| o.and_then(seat).filter(can_run)).collect();
            let mut counts = vec![0; instances.len()];
            for seat in kept.iter().flatten() {
                counts[*seat] += 1;
                totals[*seat] += 1;
            }
            Hand {
                able: (0..instances.len()).filter(can_run).collect(),
                seats: kept.clone(),
                kept,
                counts,
            }
        });
        Table {
            hands: hands.collect(),
            totals,
        }
    }

    fn assign_free(&mut self) {
        for hand in &mut self.hands {
            for partition in 0..hand.seats.len() {
                if hand.seats[partition].is_none()
                    && let Some(seat) = hand.poorest(&self.totals)
                {
                    hand.seats[partition] = Some(seat);
                    hand.counts[seat] += 1;
                    self.totals[seat] += 1;
                }
            }
        }
    }

    /// A partition moves to a seat with two less of the projection, or one less of it and two less
    /// in total.
    fn next_transfer(&self) -> Option<Transfer> {
        let mut hands = self.hands.iter().enumerate().rev();
        hands.find_map(|(projection, hand)| {
            let (from, to) = (hand.richest(&self.totals)?, hand.poorest(&self.totals)?);
            let too_many = match hand.counts[from] - hand.counts[to] {
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
        let hand = &mut self.hands[transfer.projection];
        let theirs = (0..hand.seats.len()).filter(|n| hand.seats[*n] == Some(from));
        // A partition that no instance runs yet, if there is one.
        let last = theirs.max_by_key(|n| (hand.kept[*n].is_none(), *n));
        if let Some(partition) = last {
            hand.seats[partition] = Some(to);
            hand.counts[from] -= 1;
            hand.counts[to] += 1;
            self.totals[from] -= 1;
            self.totals[to] += 1;
        }
    }
}

impl Hand {
    /// The seat with the fewest of it; among equals, with the fewest in total, and then the first
    /// that joined.
    fn poorest(&self, totals: &[usize]) -> Option<usize> {
        let able = self.able.iter().copied();
        able.min_by_key(|seat| (self.counts[*seat], totals[*seat], *seat))
    }

    /// The seat with the most of it; among equals, with the most in total, and then the last that
    /// joined.
    fn richest(&self, totals: &[usize]) -> Option<usize> {
        let able = self.able.iter().copied();
        able.max_by_key(|seat| (self.counts[*seat], totals[*seat], *seat))
    }
}
