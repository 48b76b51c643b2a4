//! Who runs which partitions: the same answer in every instance that sees the same.
//!
//! 1. Whoever runs a partition keeps it. 2. A free one goes to whoever has fewest; among equals, to whoever
//!    joined first. 3. While one instance has too many beside another, one partition moves.
//!
//! So an instance that joins gets its part from those that have most, what an instance leaves behind goes to
//! those that have least, and everything else stays where it is.

use uuid::Uuid;

#[cfg(test)]
mod tests;

/// A projection whose partitions are dealt.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    /// Whether each instance can run it.
    pub(super) able: Vec<bool>,
    /// The instance that runs each partition now.
    pub(super) owners: Vec<Option<Uuid>>,
}

/// Deals the partitions of all projections to `instances`, which are in the order in which they joined.
/// Returns who is to run each partition of each projection.
pub(super) fn deal(instances: &[Uuid], projections: &[Projection]) -> Vec<Vec<Option<Uuid>>> {
    let mut table = Table::kept(instances, projections);
    table.deal_free();
    while let Some(transfer) = table.next_transfer() {
        table.move_one(transfer);
    }
    let id = |seat: Option<usize>| seat.map(|seat| instances[seat]);
    let hands = table.hands.into_iter();
    hands
        .map(|hand| hand.seats.into_iter().map(id).collect())
        .collect()
}

/// Partitions that are being dealt. A seat is an instance, by the order in which these joined.
struct Table {
    hands: Vec<Hand>,
    /// How many partitions each seat has, of all projections.
    totals: Vec<usize>,
}

/// The partitions of one projection.
struct Hand {
    able: Vec<usize>,
    seats: Vec<Option<usize>>,
    /// Who runs each partition now, and can go on.
    kept: Vec<Option<usize>>,
    /// How many of them each seat has.
    counts: Vec<usize>,
}

/// One partition of a projection that is to change its seat.
struct Transfer {
    projection: usize,
    from: usize,
    to: usize,
}

impl Table {
    /// Whoever runs a partition and can go on keeps it.
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

    fn deal_free(&mut self) {
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

    /// A partition moves to who has two less of the projection, or one less of it and two less in all.
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
        // One that nobody runs yet, if there is one.
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
    /// Who has fewest of it; among equals, fewest in all, and then whoever joined first.
    fn poorest(&self, totals: &[usize]) -> Option<usize> {
        let able = self.able.iter().copied();
        able.min_by_key(|seat| (self.counts[*seat], totals[*seat], *seat))
    }

    /// Who has most of it; among equals, most in all, and then whoever joined last.
    fn richest(&self, totals: &[usize]) -> Option<usize> {
        let able = self.able.iter().copied();
        able.max_by_key(|seat| (self.counts[*seat], totals[*seat], *seat))
    }
}
