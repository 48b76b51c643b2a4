use super::*;

/// Instances by letters, in the order of joining.
fn ids(letters: &str) -> Vec<Uuid> {
    letters.bytes().map(id).collect()
}

fn id(letter: u8) -> Uuid {
    Uuid::from_u128(u128::from(letter))
}

/// Who has which partition, a projection a word: "A" runs one, "." is free.
fn owners(text: &str) -> Vec<Vec<Option<Uuid>>> {
    let owner = |letter: u8| (letter != b'.').then(|| id(letter));
    let words = text.split_whitespace();
    words
        .map(|word| word.bytes().map(owner).collect())
        .collect()
}

fn text(assigned: &[Vec<Option<Uuid>>]) -> String {
    let letter = |owner: &Option<Uuid>| owner.map_or('.', |owner| char::from(owner.as_bytes()[15]));
    let words = assigned
        .iter()
        .map(|owners| owners.iter().map(letter).collect());
    words.collect::<Vec<String>>().join(" ")
}

/// Deals where every instance can run every projection.
fn assigned(instances: &str, before: &str) -> String {
    let able = vec![true; instances.len()];
    let projections = owners(before).into_iter().map(|owners| Projection {
        able: able.clone(),
        owners,
    });
    text(&assign(&ids(instances), &projections.collect::<Vec<_>>()))
}

#[test]
fn who_runs_what_after_a_join_or_a_leave() {
    let rows = [
        // What happens, instances in the order in which they joined, before, after.
        ("the first takes all", "A", "....", "AAAA"),
        ("two begin at once", "AB", ".....", "ABABA"),
        ("a newcomer gets half of it", "AB", "AAAA", "AABB"),
        ("whatever its id is", "BA", "BBBB", "BBAA"),
        (
            "a partition that only one runs stays where it is",
            "AB",
            "A",
            "A",
        ),
        ("also with an older instance that is back", "AB", "B", "B"),
        ("the one with most gives", "ABC", "AABA", "AABC"),
        ("equals give in turn", "ABC", "AAABBB", "AACBBC"),
        ("three of five", "ABC", "AABAB", "AABCB"),
        ("nothing moves among enough instances", "ABCD", "ABC", "ABC"),
        (
            "what the oldest leaves goes to those with least",
            "BC",
            ".BC.B",
            "CBCBB",
        ),
        ("what nobody living runs is free", "AB", "ABXX", "ABAB"),
        (
            "a leaver's part goes to those that are left",
            "AC",
            "AA..CC",
            "AAACCC",
        ),
        ("many of one partition each", "AB", "A A A A A", "A A A B B"),
        (
            "the third takes one of each",
            "ABC",
            "A B A B A B",
            "A B A B C C",
        ),
        (
            "nothing of them moves when one leaves",
            "AC",
            "A . C",
            "A A C",
        ),
        (
            "a new projection goes to who has least",
            "AB",
            "A A B .",
            "A A B B",
        ),
        (
            "a dropped projection moves nothing",
            "AB",
            "B A B A",
            "B A B A",
        ),
        ("nobody lives", "", "A.", ".."),
    ];
    for (what, instances, before, after) in rows {
        assert_eq!(assigned(instances, before), after, "{what}");
        assert_eq!(assigned(instances, after), after, "{what}: it stays so");
    }
}

#[test]
fn an_instance_gets_only_what_it_can_run() {
    let rows = [
        // Who can run what, before, after.
        ("AB A", ".. ..", "AB AA"),
        ("AB B", ". .", "A B"),
        ("B AB", "AA AA", "BB AB"),
        ("AB AB B", "A A B", "A A B"),
        ("AB A A", "A A A", "B A A"),
        ("- AB", "A A", ". A"),
    ];
    let instances = ids("AB");
    for (able, before, after) in rows {
        let able = able.split_whitespace().map(|word| {
            let able = instances.iter().map(|id| ids(word).contains(id));
            able.collect::<Vec<_>>()
        });
        let projections = able.zip(owners(before));
        let projections = projections.map(|(able, owners)| Projection { able, owners });
        let projections: Vec<Projection> = projections.collect();
        assert_eq!(text(&assign(&instances, &projections)), after, "{before}");
    }
}

#[test]
fn after_any_join_or_leave_all_have_alike_and_what_need_not_move_stays() {
    let all = ids("ABCDEFG");
    for partitions in 1..=17 {
        for first in 1..=6 {
            let before = assign(&all[..first], &[free(partitions, first)]);
            for (living, what) in [
                (&all[..=first], "one joins"),
                (&all[1..first], "the oldest leaves"),
                (&all[..first - 1], "the youngest leaves"),
            ] {
                let able = vec![true; living.len()];
                let owners = before[0].clone();
                let after = assign(living, &[Projection { able, owners }]);
                let has = |owners: &[Option<Uuid>], id: Uuid| {
                    owners.iter().filter(|owner| **owner == Some(id)).count()
                };
                let counts: Vec<_> = living.iter().map(|id| has(&after[0], *id)).collect();
                let (least, most) = (counts.iter().min(), counts.iter().max());
                assert!(
                    least.zip(most).is_none_or(|(l, m)| m - l <= 1),
                    "{what}: {counts:?}"
                );
                let pairs = before[0].iter().zip(&after[0]);
                let moved = pairs.filter(|(before, after)| before != after).count();
                let must_move: usize = match what {
                    "one joins" => has(&after[0], all[first]),
                    "the oldest leaves" => has(&before[0], all[0]),
                    _ => has(&before[0], all[first - 1]),
                };
                assert_eq!(moved, must_move, "{what}: {before:?} {after:?}");
            }
        }
    }
}

fn free(partitions: usize, instances: usize) -> Projection {
    Projection {
        able: vec![true; instances],
        owners: vec![None; partitions],
    }
}
