//! What counts hold that were made by another definition: which dimensions, and which aggregates.
//!
//! Rows carry the version of their definition and nothing else of it. A version is a hash of few things, so what
//! made it is found by trying them all. A question that needs what some counts do not hold must not be answered from
//! them: they would look whole and be too small.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::filter::Filter;
use crate::metric::Function;
use crate::run::Dimension;

/// Raised whenever the code counts differently from how it did, with the same configuration. Since 2 late events are
/// counted apart, too.
const COUNTING_FORMAT: u32 = 2;
/// The first format, whose versions do not tell the lateness.
const FIRST_FORMAT: u32 = 1;
/// Latenesses that are tried: whole seconds up to a day.
const LATENESS_SECONDS: i64 = 86_400;
/// Versions that are remembered. There are as many as there were configurations.
const REMEMBERED: usize = 4_096;

/// What a definition keeps of the events that it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Event columns kept as keys of the counts, in the order of [`Dimension::ALL`].
    pub dimensions: Vec<Dimension>,
    /// Whether aggregates of `value` are kept.
    pub values: bool,
    /// Whether sketches of distinct users are kept.
    pub distinct: bool,
}

impl Kept {
    /// The version of a definition that keeps this and calls late what comes so long (microseconds) after its minute.
    #[must_use]
    pub fn version(&self, lateness: i64) -> u64 {
        self.hash(COUNTING_FORMAT, Some(lateness))
    }

    fn hash(&self, format: u32, lateness: Option<i64>) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&format.to_le_bytes());
        for dimension in &self.dimensions {
            hash.update(dimension.column().as_bytes());
            hash.update(b"/");
        }
        hash.update(&[u8::from(self.values), u8::from(self.distinct)]);
        if let Some(lateness) = lateness {
            hash.update(&lateness.to_le_bytes());
        }
        // Tables store it as a signed number; keeping it positive spares readers a puzzle.
        hash.digest() >> 1
    }

    /// Whether counts that hold this can answer what `needs` says.
    #[must_use]
    pub fn answers(&self, needs: &Needs) -> bool {
        needs.dimensions.iter().all(|dimension| self.dimensions.contains(dimension))
            && (self.values || !needs.values)
            && (self.distinct || !needs.distinct)
    }

    /// Everything that a definition may keep.
    fn all() -> impl Iterator<Item = Self> {
        let subset = |bits: usize| {
            let kept = Dimension::ALL.into_iter().enumerate().filter(move |(at, _)| (bits >> at) & 1 == 1);
            kept.map(|(_, dimension)| dimension).collect::<Vec<_>>()
        };
        (0..1_usize << Dimension::ALL.len()).flat_map(move |bits| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(values, distinct)| Self {
                dimensions: subset(bits),
                values,
                distinct,
            })
        })
    }
}

/// What a question needs of the counts that answer it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// The columns of its filter.
    pub dimensions: Vec<Dimension>,
    /// Aggregates of `value`.
    pub values: bool,
    /// Sketches of distinct users.
    pub distinct: bool,
}

impl Needs {
    /// What these functions of the events that a filter lets through need.
    #[must_use]
    pub fn of(filter: Option<&Filter>, functions: &[Function]) -> Self {
        let columns = filter.map_or(&[][..], |filter| &filter.conditions);
        Self {
            dimensions: columns.iter().map(|condition| condition.column).collect(),
            values: functions.iter().any(|function| function.is_of_value()),
            distinct: functions.contains(&Function::ApproxDistinct),
        }
    }

    /// Whether any counts will do.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.dimensions.is_empty() && !self.values && !self.distinct
    }
}

/// Finds out what the definitions of older counts kept, each once.
#[derive(Debug)]
pub struct Versions {
    /// Microseconds; versions with this lateness are found at once.
    lateness: i64,
    found: Mutex<BTreeMap<u64, Option<Kept>>>,
}

impl Versions {
    /// With the lateness of the definition in force, microseconds.
    #[must_use]
    pub fn new(lateness: i64) -> Self {
        Self { lateness, found: Mutex::new(BTreeMap::new()) }
    }

    /// What the definition of this version kept; none when nobody can say. May take a tenth of a second, once a version.
    #[must_use]
    pub fn kept(&self, version: u64) -> Option<Kept> {
        if let Some(found) = self.found.lock().get(&version) {
            return found.clone();
        }
        let found = search(version, self.lateness);
        let mut all = self.found.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(version, found.clone());
        found
    }

    /// Whether counts of this version can answer such a question. Those of an unknown one cannot.
    #[must_use]
    pub fn answers(&self, version: u64, needs: &Needs) -> bool {
        needs.is_nothing() || self.kept(version).is_some_and(|kept| kept.answers(needs))
    }
}

fn search(version: u64, lateness: i64) -> Option<Kept> {
    let all: Vec<Kept> = Kept::all().collect();
    let with = |lateness: i64| all.iter().find(|kept| kept.version(lateness) == version);
    let first = || all.iter().find(|kept| kept.hash(FIRST_FORMAT, None) == version);
    let seconds = || (0..=LATENESS_SECONDS).find_map(|seconds| with(seconds * 1_000_000));
    with(lateness).or_else(first).or_else(seconds).cloned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::definition::Definition;

    fn definition(dimensions: &[Dimension], metrics: &[Function], lateness: u64) -> Definition {
        Definition {
            dimensions: dimensions.to_vec(),
            metrics: metrics.to_vec(),
            lateness: Duration::from_secs(lateness),
            ..Definition::default()
        }
    }

    #[test]
    fn what_a_version_kept_is_found_again() {
        let versions = Versions::new(60_000_000);
        let (country, ip) = (Dimension::Country, Dimension::Ip);
        for own in [
            definition(&[], &[Function::Count], 60),
            definition(&[country, ip], &[Function::Count, Function::Sum], 60),
            definition(&[country], &[Function::Count, Function::ApproxDistinct], 5),
            definition(&Dimension::ALL, &Function::ALL, 86_400),
        ] {
            assert_eq!(versions.kept(own.version()), Some(own.kept()), "{own:?}");
        }
        let first = Kept { dimensions: vec![country], values: true, distinct: false };
        assert_eq!(versions.kept(first.hash(FIRST_FORMAT, None)), Some(first));
        assert_eq!(versions.kept(0), None);
    }

    #[test]
    fn counts_answer_what_they_hold_and_nothing_else() {
        let versions = Versions::new(60_000_000);
        let old = definition(&[Dimension::Country], &[Function::Count], 60).version();
        let by = |text: &str| Filter::column_value(text).unwrap();
        let answers =
            |filter: Option<&Filter>, functions: &[Function]| versions.answers(old, &Needs::of(filter, functions));
        assert!(answers(None, &[Function::Count]));
        assert!(answers(Some(&by("country:US")), &[Function::Count]));
        assert!(!answers(Some(&by("ip:10.0.0.1")), &[Function::Count]));
        assert!(!answers(None, &[Function::Count, Function::Avg]));
        assert!(!answers(None, &[Function::ApproxDistinct]));
        // Sums say nothing of users, nor users of sums.
        let with = |function: Function| definition(&[], &[Function::Count, function], 60).version();
        for (kept, other) in [(Function::Sum, Function::ApproxDistinct), (Function::ApproxDistinct, Function::Sum)] {
            assert!(versions.answers(with(kept), &Needs::of(None, &[kept])), "{kept}");
            assert!(!versions.answers(with(kept), &Needs::of(None, &[other])), "{other} of {kept}");
        }
        assert!(versions.answers(0, &Needs::default()), "everything counts");
        assert!(!versions.answers(0, &Needs::of(Some(&by("country:US")), &[])), "nobody knows");
    }
}
