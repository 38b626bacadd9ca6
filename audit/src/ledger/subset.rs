//! Which of some hashes add up to a number: how a fingerprint names the events that it lacks or has too many.

use hashbrown::HashMap;

/// Hashes among which pairs are looked for.
const PAIRS_MAX: usize = 1 << 20;
/// Hashes among which three are looked for: the work grows with the square.
const TRIPLES_MAX: usize = 2_000;

/// The indexes of `count` of the hashes whose wrapping sum is `sum`; none when there are none, or they are too many to be
/// looked for.
#[must_use]
pub fn subset(hashes: &[u64], count: usize, sum: u64) -> Option<Vec<usize>> {
    let rest = hashes.len().checked_sub(count)?;
    if rest < count {
        // What is left over is fewer.
        let all = total(hashes);
        let left = few(hashes, rest, all.wrapping_sub(sum))?;
        return Some((0..hashes.len()).filter(|at| !left.contains(at)).collect());
    }
    few(hashes, count, sum)
}

/// The wrapping sum.
#[must_use]
pub fn total(hashes: &[u64]) -> u64 {
    hashes.iter().fold(0, |sum, hash| sum.wrapping_add(*hash))
}

/// The indexes of a hash that is there once more and of one that is not there, whose difference is `difference`.
#[must_use]
pub fn exchanged(hashes: &[u64], difference: u64) -> Option<(usize, usize)> {
    let places = places(hashes)?;
    hashes.iter().enumerate().find_map(|(lost, hash)| {
        let doubled = *places.get(&hash.wrapping_add(difference))?;
        (doubled != lost).then_some((doubled, lost))
    })
}

fn few(hashes: &[u64], count: usize, sum: u64) -> Option<Vec<usize>> {
    match count {
        0 => (sum == 0).then(Vec::new),
        1 => hashes.iter().position(|hash| *hash == sum).map(|at| vec![at]),
        2 => pair(&places(hashes)?, hashes, sum, 0).map(|(a, b)| vec![a, b]),
        3 if hashes.len() <= TRIPLES_MAX => {
            let places = places(hashes)?;
            hashes.iter().enumerate().find_map(|(first, hash)| {
                let (a, b) = pair(&places, hashes, sum.wrapping_sub(*hash), first + 1)?;
                Some(vec![first, a, b])
            })
        }
        _ => None,
    }
}

fn places(hashes: &[u64]) -> Option<HashMap<u64, usize>> {
    (hashes.len() <= PAIRS_MAX).then(|| hashes.iter().enumerate().map(|(at, hash)| (*hash, at)).collect())
}

/// Two of the hashes from `from` on.
fn pair(places: &HashMap<u64, usize>, hashes: &[u64], sum: u64, from: usize) -> Option<(usize, usize)> {
    hashes.iter().enumerate().skip(from).find_map(|(first, hash)| {
        let second = *places.get(&sum.wrapping_sub(*hash))?;
        (second > first).then_some((first, second))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_taken_out_is_found(
            hashes in prop::collection::hash_set(any::<u64>(), 1..40),
            taken in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            complement in any::<bool>(),
        ) {
            let hashes: Vec<u64> = hashes.into_iter().collect();
            let mut chosen: Vec<usize> = taken.iter().map(|index| index.index(hashes.len())).collect();
            chosen.sort_unstable();
            chosen.dedup();
            if complement {
                chosen = (0..hashes.len()).filter(|at| !chosen.contains(at)).collect();
            }
            let sum = chosen.iter().fold(0_u64, |sum, at| sum.wrapping_add(hashes[*at]));
            let mut found = subset(&hashes, chosen.len(), sum).expect("it is there");
            found.sort_unstable();
            prop_assert_eq!(found, chosen);
        }

        #[test]
        fn one_lost_and_one_doubled_are_found(hashes in prop::collection::hash_set(any::<u64>(), 2..40)) {
            let hashes: Vec<u64> = hashes.into_iter().collect();
            prop_assert_eq!(exchanged(&hashes, hashes[1].wrapping_sub(hashes[0])), Some((1, 0)));
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(subset(&[1, 2, 4], 1, 3), None);
        assert_eq!(subset(&[1, 2, 4], 5, 3), None);
        assert_eq!(subset(&[1, 2, 4, 8, 16, 32, 64, 128, 256], 4, 15), None, "four of nine are too many");
        assert_eq!(exchanged(&[1, 2, 4], 100), None);
    }
}
