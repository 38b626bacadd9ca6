//! Entities by a Zipf law: the k-th most popular is chosen with a weight of 1/k^s.

use rand::Rng;

/// Chooses ranks 0..n by a Zipf law, from a table: one random number and a short search each.
#[derive(Debug)]
pub struct Zipf {
    /// Cumulative weights, scaled to the whole of u32.
    cumulative: Vec<u32>,
    /// For each of 65,536 equal parts of the scale, the first rank that may lie in it.
    guide: Vec<u32>,
}

impl Zipf {
    /// A law over `n` ranks (at least 1) with exponent `s`.
    #[must_use]
    pub fn new(n: u32, s: f64) -> Self {
        let weight = |rank: u32| f64::from(rank + 1).powf(-s);
        let total: f64 = (0..n.max(1)).map(weight).sum();
        let mut sum = 0.0;
        let mut cumulative: Vec<u32> = (0..n.max(1))
            .map(|rank| {
                sum += weight(rank);
                // The cast saturates; the last entry is set below.
                (sum / total * f64::from(u32::MAX)) as u32
            })
            .collect();
        if let Some(last) = cumulative.last_mut() {
            *last = u32::MAX;
        }
        let mut guide = Vec::with_capacity(1 << 16);
        let mut rank = 0;
        for part in 0..=u32::from(u16::MAX) {
            while cumulative.get(rank).is_some_and(|&end| end < part << 16) {
                rank += 1;
            }
            guide.push(rank as u32);
        }
        Self { cumulative, guide }
    }

    /// A rank.
    pub fn sample(&self, random: &mut impl Rng) -> u32 {
        let point: u32 = random.random();
        let from = self.guide.get((point >> 16) as usize).copied().unwrap_or(0) as usize;
        let to = self.guide.get((point >> 16) as usize + 1).map_or(self.cumulative.len(), |&next| next as usize + 1);
        let part = self.cumulative.get(from..to.min(self.cumulative.len())).unwrap_or_default();
        (from + part.partition_point(|&end| end < point)) as u32
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn ranks_follow_the_law() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut random = SmallRng::seed_from_u64(7);
        let mut seen = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            seen[zipf.sample(&mut random) as usize] += 1;
        }
        // H(1000) = 7.485: rank 0 has 13.36 %, rank 9 a tenth of it.
        assert!((26_000..27_500).contains(&seen[0]), "{}", seen[0]);
        assert!((2_400..2_950).contains(&seen[9]), "{}", seen[9]);
        assert!(seen[999] > 5);
    }

    #[test]
    fn one_rank_is_always_chosen() {
        let mut random = SmallRng::seed_from_u64(7);
        assert_eq!(Zipf::new(1, 1.0).sample(&mut random), 0);
    }
}
