//! Sums that no difference leaves alone.
//!
//! Every row of counts is multiplied with numbers that its place (entity, type, dimensions, minute) alone decides, and
//! all products are added up, wrapping. The sum is linear: the events give the same one as the rows that count
//! them, without a grouping. One loss and one double count, or an event in a wrong minute, leave
//! another sum, but for one chance in 2⁶³. (Linear sketches of this kind: Cormode and Muthukrishnan, "An improved data
//! stream summary", 2005.)

use reckon_data::minute::{MINUTES_PER_DAY, MINUTES_PER_HOUR};
use reckon_data::run::Granularity;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// Entities are shared out among so many buckets, so that a difference is searched for among few rows.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 6;
const ENTITY_SEED: u64 = 0x4155_4449_5400_0001;
const GROUP_SEED: u64 = 0x4155_4449_5400_0002;
const COUNT: u64 = 0x9e37_79b9_7f4a_7c15;
const LATE: u64 = 0xd1b5_4a32_d192_ed03;
const VALUES: u64 = 0x8cb9_2ba7_2f3d_8dd7;
const VALUE: u64 = 0x2545_f491_4f6c_dd1d;

/// Scrambles a number: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What a row counts for: entity, type and dimensions, as a number whose top bits are the entity's bucket.
#[derive(Debug, Default)]
pub struct Groups {
    text: Vec<u8>,
}

impl Groups {
    /// The number of a group.
    pub fn number<'a>(
        &mut self,
        entity: &str,
        event_type: &str,
        dimensions: impl Iterator<Item = Option<&'a str>>,
    ) -> u64 {
        let entity = xxh3_64_with_seed(entity.as_bytes(), ENTITY_SEED);
        self.text.clear();
        self.put(Some(event_type));
        dimensions.for_each(|value| self.put(value));
        let rest = xxh3_64_with_seed(&self.text, GROUP_SEED);
        let bucket = entity & !(u64::MAX >> BUCKET_BITS);
        bucket | (mix(entity ^ mix(rest)) >> BUCKET_BITS)
    }

    /// Length first, so that no two texts run into each other; an absent one is no empty one.
    fn put(&mut self, text: Option<&str>) {
        match text {
            None => self.text.push(0),
            Some(text) => {
                self.text.push(1);
                self.text.extend_from_slice(&text.len().to_le_bytes());
                self.text.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// The bucket of a group.
#[must_use]
pub const fn bucket(group: u64) -> usize {
    (group >> (64 - BUCKET_BITS)) as usize
}

/// A second hash of a key, so that two keys whose hashes are equal by chance are told apart.
#[must_use]
pub fn second_hash(event_id: &str, group_of_key: u64) -> u32 {
    let wide = xxh3_128(event_id.as_bytes());
    mix((wide >> 64) as u64 ^ mix(wide as u64 ^ group_of_key)) as u32
}

/// What is added up of a row, or of one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Events.
    pub count: u64,
    /// Wrapping sum of their key hashes.
    pub fingerprint: u64,
    /// Late ones.
    pub late: u64,
    /// Those with a value.
    pub values: u64,
    /// Wrapping sum of the values, millionths.
    pub value: u64,
}

impl Amount {
    /// Its part in the sum of a place.
    #[must_use]
    pub const fn weighed(&self, place: u64) -> u64 {
        let mut sum = self.fingerprint.wrapping_mul(place | 1);
        sum = sum.wrapping_add(self.count.wrapping_mul(mix(place ^ COUNT) | 1));
        if self.late != 0 {
            sum = sum.wrapping_add(self.late.wrapping_mul(mix(place ^ LATE) | 1));
        }
        if self.values != 0 {
            sum = sum.wrapping_add(self.values.wrapping_mul(mix(place ^ VALUES) | 1));
        }
        // Also where a row says that it has no values: else the sum is not linear, and the row's own goes unseen.
        if self.value != 0 {
            sum = sum.wrapping_add(self.value.wrapping_mul(mix(place ^ VALUE) | 1));
        }
        sum
    }
}

/// The place of a row: its group and its minute, hour or day, given as a minute that lies in it.
#[must_use]
pub fn place(group: u64, granularity: Granularity, minute: i64) -> u64 {
    let (level, step) = match granularity {
        Granularity::Minute => (1, minute),
        Granularity::Hour => (2, minute.div_euclid(MINUTES_PER_HOUR)),
        Granularity::Day => (3, minute.div_euclid(MINUTES_PER_DAY)),
    };
    mix(group ^ mix(step.cast_unsigned() ^ (level << 60)))
}

/// A count and a weighed sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Events, wrapping.
    pub count: u64,
    /// Weighed sum.
    pub sum: u64,
}

impl Cell {
    /// Adds an amount at a place.
    pub const fn add(&mut self, amount: &Amount, place: u64) {
        self.count = self.count.wrapping_add(amount.count);
        self.sum = self.sum.wrapping_add(amount.weighed(place));
    }

    /// Adds what another one holds.
    pub const fn merge(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(entity: &str) -> u64 {
        Groups::default().number(entity, "view", [Some("US")].into_iter())
    }

    #[test]
    fn groups_keep_what_is_absent_and_what_is_empty_apart() {
        let mut groups = Groups::default();
        let absent = groups.number("a", "view", [None].into_iter());
        assert_ne!(absent, groups.number("a", "view", [Some("")].into_iter()));
        assert_ne!(absent, groups.number("b", "view", [None].into_iter()));
        assert_eq!(bucket(absent), bucket(groups.number("a", "like", [Some("x")].into_iter())));
    }

    #[test]
    fn every_number_of_a_row_has_a_weight_of_its_own() {
        let row = Amount { count: 5, fingerprint: 77, late: 1, values: 2, value: 30 };
        let rows = [
            row,
            Amount { count: 6, ..row },
            Amount { fingerprint: 78, ..row },
            Amount { late: 2, ..row },
            Amount { values: 3, ..row },
            Amount { value: 31, ..row },
        ];
        let place = place(group("a"), Granularity::Minute, 7);
        let sums: std::collections::BTreeSet<u64> = rows.iter().map(|row| row.weighed(place)).collect();
        assert_eq!(sums.len(), rows.len());
    }

    #[test]
    fn a_sum_of_values_weighs_where_there_are_no_values() {
        let place = place(group("a"), Granularity::Minute, 7);
        let right = Amount { count: 2, fingerprint: 11, ..Amount::default() };
        let wrong = Amount { value: 5_000_000, ..right };
        assert_ne!(right.weighed(place), wrong.weighed(place));
    }

    /// What an event adds, in whatever combination.
    fn amounts() -> impl Strategy<Value = Amount> {
        (any::<u64>(), 0..2_u64, 0..2_u64, prop_oneof![Just(0_u64), any::<u64>()])
            .prop_map(|(fingerprint, late, values, value)| Amount { count: 1, fingerprint, late, values, value })
    }

    proptest! {
        /// Events give what their rows give, in whatever order, and nothing else does.
        #[test]
        fn a_sum_of_events_is_the_sum_of_their_rows(
            events in prop::collection::vec((0..4_u8, 0..5_i64, amounts()), 1..60),
            changed in any::<prop::sample::Index>(),
        ) {
            let place_of = |entity: u8, minute| place(group(&entity.to_string()), Granularity::Minute, minute);
            let mut by_event = Cell::default();
            let mut rows = std::collections::BTreeMap::<(u8, i64), Amount>::new();
            for &(entity, minute, amount) in &events {
                by_event.add(&amount, place_of(entity, minute));
                let row = rows.entry((entity, minute)).or_default();
                row.count += amount.count;
                row.fingerprint = row.fingerprint.wrapping_add(amount.fingerprint);
                row.late += amount.late;
                row.values += amount.values;
                row.value = row.value.wrapping_add(amount.value);
            }
            let of_rows = |rows: &std::collections::BTreeMap<(u8, i64), Amount>| {
                rows.iter().fold(Cell::default(), |mut cell, (&(entity, minute), amount)| {
                    cell.add(amount, place_of(entity, minute));
                    cell
                })
            };
            prop_assert_eq!(of_rows(&rows), by_event);
            // One event in another minute.
            let (entity, minute, amount) = events[changed.index(events.len())];
            let mut moved = by_event;
            moved.sum = moved.sum.wrapping_sub(amount.weighed(place_of(entity, minute)));
            moved.sum = moved.sum.wrapping_add(amount.weighed(place_of(entity, minute + 5)));
            prop_assert_ne!(moved.sum, by_event.sum);
        }
    }
}
