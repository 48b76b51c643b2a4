//! Which partition a key belongs to, computed as PostgreSQL does: `highwater.partition_of`.
//!
//! The hash is `hashtextextended(key collate "C", 0)`, Bob Jenkins' lookup3 as the server has it.
//! It decides which partition has seen which event, so it must stay the same for ever.

/// Its name, which is stored with each build.
pub(crate) const NAME: &str = "hashtextextended";

/// The partition, below `of`, that `key` belongs to; the key null belongs to the first.
pub(crate) fn partition_of(key: Option<&str>, of: i32) -> i32 {
    let Some(key) = key else { return 0 };
    let positive = hash(key.as_bytes()) & (u64::MAX >> 1);
    let of = u64::from(of.max(1).unsigned_abs());
    i32::try_from(positive % of).unwrap_or(0)
}

fn hash(key: &[u8]) -> u64 {
    hash_seeded(key, 0)
}

/// `hash_bytes_extended(key, seed)` of PostgreSQL.
pub(crate) fn hash_seeded(key: &[u8], seed: u64) -> u64 {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let begin = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let mut state = [begin; 3];
    if seed != 0 {
        let [high, low] = [seed >> 32, seed & u64::from(u32::MAX)].map(|half| half as u32);
        state[0] = state[0].wrapping_add(high);
        state[1] = state[1].wrapping_add(low);
        mix(&mut state);
    }
    let mut blocks = key.chunks_exact(12);
    for block in &mut blocks {
        add(&mut state, block, 0);
        mix(&mut state);
    }
    // The lowest byte of the last word is left out: it holds the length.
    let (words, last) = blocks.remainder().split_at(blocks.remainder().len().min(8));
    add(&mut state, words, 0);
    add(&mut state, last, 9);
    finish(&mut state);
    u64::from(state[1]) << 32 | u64::from(state[2])
}

/// Adds bytes to the three words, from the byte `from` on, each word's lowest byte first.
fn add(state: &mut [u32; 3], bytes: &[u8], from: usize) {
    for (at, byte) in bytes.iter().enumerate() {
        let at = at + from;
        if let Some(word) = state.get_mut(at / 4) {
            *word = word.wrapping_add(u32::from(*byte) << (8 * (at % 4)));
        }
    }
}

/// One row is `x -= z; x ^= z turned; z += y`.
const MIX: [(usize, usize, usize, u32); 6] = [
    (0, 1, 2, 4),
    (1, 2, 0, 6),
    (2, 0, 1, 8),
    (0, 1, 2, 16),
    (1, 2, 0, 19),
    (2, 0, 1, 4),
];

/// One row is `x ^= y; x -= y turned`.
const FINISH: [(usize, usize, u32); 7] = [
    (2, 1, 14),
    (0, 2, 11),
    (1, 0, 25),
    (2, 1, 16),
    (0, 2, 4),
    (1, 0, 14),
    (2, 1, 24),
];

fn mix(words: &mut [u32; 3]) {
    for (x, y, z, turn) in MIX {
        words[x] = words[x].wrapping_sub(words[z]) ^ words[z].rotate_left(turn);
        words[z] = words[z].wrapping_add(words[y]);
    }
}

fn finish(words: &mut [u32; 3]) {
    for (x, y, turn) in FINISH {
        words[x] = (words[x] ^ words[y]).wrapping_sub(words[y].rotate_left(turn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `select highwater.partition_of(key, 1024)` answers.
    #[test]
    fn a_key_stays_in_its_partition_for_ever() {
        assert_eq!(partition_of(None, 1024), 0);
        for (key, partition) in [
            ("", 621),
            ("a", 177),
            ("order-17", 952),
            ("twelve bytes", 477),
            ("thirteen byte", 188),
            ("größer als zwölf Bytes", 892),
        ] {
            assert_eq!(partition_of(Some(key), 1024), partition, "{key}");
        }
    }
}
