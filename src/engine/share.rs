//! Who runs how many partitions: the same answer in every instance that sees the same.
//!
//! The partitions of all projections, in the order of their names, are dealt out in turn to the
//! instances that can run them, in the order of their ids. What counts is only how many an instance
//! gets, not which: what is already held stays where it is.

use uuid::Uuid;

/// How many of `partitions` the instance `me` is to run, among those `able`, `dealt` partitions of
/// other projections having been dealt before.
pub(super) fn share(me: Uuid, able: &[Uuid], partitions: usize, dealt: usize) -> usize {
    let mut able = able.to_vec();
    able.sort_unstable();
    able.dedup();
    let Some(seat) = able.iter().position(|id| *id == me) else {
        return 0;
    };
    let turn = |card: &usize| card % able.len() == seat;
    (dealt..dealt + partitions).filter(turn).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u128) -> Vec<Uuid> {
        (1..=count).map(Uuid::from_u128).collect()
    }

    #[test]
    fn every_partition_is_dealt_to_somebody_and_nobody_gets_two_more_than_another() {
        for instances in 1..=7 {
            let able = ids(instances);
            for partitions in 0..=17 {
                for dealt in 0..=5 {
                    let shares: Vec<usize> = able
                        .iter()
                        .map(|me| share(*me, &able, partitions, dealt))
                        .collect();
                    assert_eq!(shares.iter().sum::<usize>(), partitions);
                    let (least, most) = (shares.iter().min(), shares.iter().max());
                    assert!(most.unwrap() - least.unwrap() <= 1, "{shares:?}");
                }
            }
        }
    }

    #[test]
    fn many_projections_of_one_partition_are_spread_over_the_instances() {
        let able = ids(3);
        let all = able.iter().map(|me| {
            let one_each = (0..9).map(|projection| share(*me, &able, 1, projection));
            one_each.sum::<usize>()
        });
        assert_eq!(all.collect::<Vec<_>>(), [3, 3, 3]);
    }

    #[test]
    fn who_cannot_run_it_gets_none() {
        assert_eq!(share(Uuid::from_u128(9), &ids(3), 5, 0), 0);
        assert_eq!(share(Uuid::from_u128(9), &[], 5, 0), 0);
    }
}
