//! A sketch of how many distinct users there are, in a form that does not depend on any order.
//!
//! HyperLogLog of the `datasketches` crate, lg_k 12 (4,096 registers of a byte, about 1.6% standard
//! error), a list of coupons as long as it is sparse. The bytes are the frozen format of Apache
//! DataSketches, readable by its other implementations, in one canonical form of it:
//!
//! - sparse: the compact image, coupons in ascending order;
//! - dense: the HLL_8 image, marked out of order and without HIP accumulator.
//!
//! HIP depends on the order of the insertions, coupons lie where they were hashed to; both are left
//! out, so equal sets of users have equal bytes and equal estimates. Which form a set is in
//! is a function of the set alone.

use datasketches::hash::value::raw_bytes;
use datasketches::hll::{HllSketch, HllType, HllUnion};

/// Logarithm of the number of registers.
pub const LG_K: u8 = 12;

const FLAGS_AT: usize = 5;
const MODE_AT: usize = 7;
const HIP_AT: std::ops::Range<usize> = 8..16;
const OUT_OF_ORDER: u8 = 16;
const LIST_PREAMBLE: usize = 8;
const SET_PREAMBLE: usize = 12;

/// Why bytes are no sketch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a sketch of distinct users: {reason}")]
pub struct DistinctError {
    /// What does not fit.
    pub reason: String,
}

/// A mergeable sketch of distinct users.
///
/// Two are equal when their bytes are.
#[derive(Debug, Clone)]
pub struct Distinct {
    union: HllUnion,
}

impl Distinct {
    /// The sketch of nobody.
    #[must_use]
    pub fn new() -> Self {
        #[allow(clippy::expect_used, reason = "LG_K is a constant within the crate's range")]
        let union = HllUnion::new(LG_K).expect("lg_k is in range");
        Self { union }
    }

    /// Adds a user.
    pub fn insert(&mut self, user: &str) {
        self.union.update_value(raw_bytes::from_str(user));
    }

    /// Adds everybody whom `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.union.update(&other.union.to_sketch(HllType::Hll8));
    }

    /// How many distinct users there are, about. A function of the set of users, never of their order.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        // Never negative, and far below 2^53.
        self.union.composite_estimate().round() as u64
    }

    /// Nobody yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.union.is_empty()
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.union.to_sketch(HllType::Hll8).serialize();
        match bytes[MODE_AT] & 3 {
            0 => sort_coupons(&mut bytes[LIST_PREAMBLE..]),
            1 => sort_coupons(&mut bytes[SET_PREAMBLE..]),
            _ => {
                bytes[FLAGS_AT] |= OUT_OF_ORDER;
                bytes[HIP_AT].fill(0);
            }
        }
        bytes
    }

    /// The sketch of such bytes.
    ///
    /// # Errors
    /// When they are no sketch, or one of another size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DistinctError> {
        let sketch = HllSketch::deserialize(bytes).map_err(|error| DistinctError { reason: error.to_string() })?;
        if sketch.lg_config_k() != LG_K {
            return Err(DistinctError { reason: format!("lg_k is {}, not {LG_K}", sketch.lg_config_k()) });
        }
        let mut distinct = Self::new();
        distinct.union.update(&sketch);
        Ok(distinct)
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.union.estimated_size()
    }
}

fn sort_coupons(bytes: &mut [u8]) {
    let mut coupons: Vec<[u8; 4]> = bytes.as_chunks::<4>().0.to_vec();
    coupons.sort_unstable_by_key(|coupon| u32::from_le_bytes(*coupon));
    for (place, coupon) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(coupons) {
        *place = coupon;
    }
}

impl Default for Distinct {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Distinct {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Distinct {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(users: impl IntoIterator<Item = u32>) -> Distinct {
        let mut distinct = Distinct::new();
        users.into_iter().for_each(|user| distinct.insert(&format!("user-{user}")));
        distinct
    }

    #[test]
    fn estimates_are_near_in_all_sizes() {
        for size in [0, 1, 5, 50, 384, 400, 5_000, 100_000] {
            let estimate = of(0..size).estimate();
            let off = estimate.abs_diff(size.into()) as f64;
            assert!(off <= 0.05 * f64::from(size), "{estimate} of {size}");
        }
    }

    #[test]
    fn bytes_are_frozen() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(of([]).to_bytes()), FROZEN_EMPTY);
        assert_eq!(hex(of([1, 2, 3]).to_bytes()), FROZEN_LIST);
        let set = of(0..100).to_bytes();
        assert_eq!((set.len(), xxhash_rust::xxh3::xxh3_64(&set)), FROZEN_SET);
        let dense = of(0..10_000).to_bytes();
        assert_eq!((dense.len(), xxhash_rust::xxh3::xxh3_64(&dense)), FROZEN_DENSE);
        assert_eq!(of(0..10_000).estimate(), FROZEN_ESTIMATE);
    }

    const FROZEN_EMPTY: &str = "0201070c030c0008";
    const FROZEN_LIST: &str = "0201070c03080308fb191e0676422c068baeea07";
    const FROZEN_SET: (usize, u64) = (412, 14_537_220_568_649_244_157);
    const FROZEN_DENSE: (usize, u64) = (4_136, 91_404_792_886_748_394);
    const FROZEN_ESTIMATE: u64 = 9_926;

    #[test]
    fn bad_bytes_are_refused() {
        let good = of(0..1_000).to_bytes();
        assert!(Distinct::from_bytes(&[]).is_err());
        assert!(Distinct::from_bytes(&good[..good.len() - 1]).is_err());
        assert!(Distinct::from_bytes(b"a text that is no sketch at all").is_err());
        let other = HllSketch::new(10, HllType::Hll8).unwrap().serialize();
        assert!(Distinct::from_bytes(&other).unwrap_err().reason.contains("lg_k"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_split_and_order_has_the_same_bytes(
            size in prop_oneof![0..20_u32, 300..500_u32, 2_000..3_000_u32],
            cuts in prop::collection::vec(1..900_usize, 0..5),
        ) {
            let whole = of(0..size);
            let mut users: Vec<u32> = (0..size).rev().collect();
            let mut merged = Distinct::new();
            for cut in cuts {
                let part = of(users.split_off(users.len().saturating_sub(cut)));
                merged.merge(&Distinct::from_bytes(&part.to_bytes()).unwrap());
            }
            let mut rest = of(users);
            rest.merge(&merged);
            prop_assert_eq!(&rest, &whole);
            prop_assert_eq!(rest.estimate(), whole.estimate());
            prop_assert_eq!(Distinct::from_bytes(&whole.to_bytes()).unwrap(), whole);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), mode in 0..12_u8) {
            let _ = Distinct::from_bytes(&bytes);
            let header = [&[[2, 3, 10][usize::from(mode % 3)], 1, 7, 12, 5, 8, 3, mode][..], &bytes].concat();
            if let Ok(distinct) = Distinct::from_bytes(&header) {
                let _ = (distinct.estimate(), distinct.to_bytes());
            }
        }
    }
}
