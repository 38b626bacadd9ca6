//! The raw events of a date, each key once: what batch should have made of them.

use hashbrown::{HashMap, HashSet};
use reckon_data::minute::{MINUTES_PER_DAY, MINUTES_PER_HOUR};
use reckon_data::run::Granularity;

use super::held::Held;
use super::horizon::Delays;
use super::place::Place;
use super::weigh::{Amount, BUCKETS, Cell, bucket, place};

/// Hours of a date, and one for what lies in none of them.
const HOURS: usize = 25;
/// Repeats with other contents that are remembered.
const DIFFERING_MAX: usize = crate::finding::EVENT_IDS_MAX;

/// Sums of a date: for each granularity, hour and bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateCells {
    date: i32,
    cells: Vec<Cell>,
}

impl DateCells {
    /// Nothing of a date.
    #[must_use]
    pub fn new(date: i32) -> Self {
        Self { date, cells: vec![Cell::default(); Granularity::ALL.len() * HOURS * BUCKETS] }
    }

    const fn at(granularity: Granularity, hour: usize, bucket: usize) -> usize {
        let level = match granularity {
            Granularity::Minute => 0,
            Granularity::Hour => 1,
            Granularity::Day => 2,
        };
        (level * HOURS + hour) * BUCKETS + bucket
    }

    /// Adds a row, or an event, of a granularity.
    pub fn add(&mut self, granularity: Granularity, group: u64, minute: i64, amount: &Amount) {
        let hour = match granularity {
            Granularity::Day if minute.div_euclid(MINUTES_PER_DAY) == i64::from(self.date) => 0,
            _ => self.hour(minute),
        };
        let cell = &mut self.cells[Self::at(granularity, hour, bucket(group))];
        cell.add(amount, place(group, granularity, minute));
    }

    /// The hour of a minute; [`HOURS`] less 1 when it lies on another date.
    fn hour(&self, minute: i64) -> usize {
        let hour = (minute - i64::from(self.date) * MINUTES_PER_DAY).div_euclid(MINUTES_PER_HOUR);
        usize::try_from(hour).ok().filter(|hour| *hour < HOURS - 1).unwrap_or(HOURS - 1)
    }

    /// Events that a bucket holds, by the granularity that has the most: a date may have no minutes any more.
    #[must_use]
    pub fn of_bucket(&self, bucket: usize) -> u64 {
        let of = |granularity: Granularity| {
            (0..HOURS).fold(0_u64, |sum, hour| sum.wrapping_add(self.cells[Self::at(granularity, hour, bucket)].count))
        };
        Granularity::ALL.into_iter().map(of).max().unwrap_or(0)
    }

    /// Adds what another one of the date holds.
    pub fn merge(&mut self, other: &Self) {
        self.cells.iter_mut().zip(&other.cells).for_each(|(own, other)| own.merge(*other));
    }

    /// Events in all.
    #[must_use]
    pub fn count(&self, granularity: Granularity) -> u64 {
        (0..HOURS).map(|hour| self.of_hour(granularity, hour).count).fold(0, u64::wrapping_add)
    }

    /// All buckets of an hour together; of days, hour 0 is the date.
    #[must_use]
    pub fn of_hour(&self, granularity: Granularity, hour: usize) -> Cell {
        (0..BUCKETS).fold(Cell::default(), |mut all, bucket| {
            all.merge(self.cells[Self::at(granularity, hour, bucket)]);
            all
        })
    }

    /// The buckets in which two differ, a bit each.
    #[must_use]
    pub fn differing(&self, other: &Self, granularity: Granularity) -> u64 {
        let differs = |bucket: &usize| {
            (0..HOURS).any(|hour| {
                let at = Self::at(granularity, hour, *bucket);
                self.cells[at] != other.cells[at]
            })
        };
        (0..BUCKETS).filter(differs).fold(0, |bits, bucket| bits | 1 << bucket)
    }
}

/// A repeat, and the event that it repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// The event that counts.
    pub first: Place,
    /// The repeat.
    pub place: Place,
}

/// What the raw events of a date have come to.
#[derive(Debug)]
pub struct Reduced {
    /// What batch should hold.
    pub cells: DateCells,
    /// Repeats of keys, covered or not.
    pub repeats: u64,
    /// Keys that lie above coverage only.
    pub uncovered: u64,
    /// Late events among those.
    pub late_uncovered: u64,
    /// Events of reserved entities below coverage, each key once.
    pub reserved: u64,
    /// Seconds from the copy before to each repeat.
    pub delays: Delays,
    /// Repeats above coverage that came after the dedup window: the stream counts them, some of them.
    pub past_window: Vec<Place>,
    /// How many there are.
    pub past_window_total: u64,
    /// Most events that were appended within a minute.
    pub peak: u64,
    /// Repeats that do not count as the event that they repeat would, some of them.
    pub differing: Vec<Repeat>,
    /// How many there are.
    pub differing_total: u64,
}

/// Counts each key of a date once: of those below coverage the first one, as batch should. Keeps a processor busy.
pub fn reduce(held: &Held, date: i32, window: i64, covered: &dyn Fn(Place) -> bool) -> Reduced {
    let repeated = repeated_hashes(&held.hash);
    let mut reduced = Reduced {
        cells: DateCells::new(date),
        repeats: 0,
        uncovered: 0,
        late_uncovered: 0,
        reserved: 0,
        delays: Delays::default(),
        past_window: Vec::new(),
        past_window_total: 0,
        peak: peak(&held.received),
        differing: Vec::new(),
        differing_total: 0,
    };
    let mut copies = Vec::new();
    for row in 0..held.len() {
        if !repeated.is_empty() && repeated.contains(&held.hash[row]) {
            copies.push(row);
        } else {
            reduced.count(held, row, date, covered);
        }
    }
    copies.sort_unstable_by_key(|row| (held.hash[*row], held.check[*row], held.place[*row]));
    for same in copies.chunk_by(|a, b| held.hash[*a] == held.hash[*b] && held.check[*a] == held.check[*b]) {
        reduced.count(held, same[0], date, covered);
        // A first copy above coverage has none below it: coverage is a prefix of each partition, but partitions differ.
        reduced.look_at_repeats(held, same, covered, date, window);
    }
    reduced
}

impl Reduced {
    /// Takes another part of the same date: other keys.
    pub fn merge(&mut self, mut other: Self) {
        self.cells.merge(&other.cells);
        self.repeats += other.repeats;
        self.uncovered += other.uncovered;
        self.late_uncovered += other.late_uncovered;
        self.reserved += other.reserved;
        self.delays.merge(&other.delays);
        self.past_window.append(&mut other.past_window);
        self.past_window_total += other.past_window_total;
        // Each part saw some of the events of every minute.
        self.peak += other.peak;
        self.differing.append(&mut other.differing);
        self.differing_total += other.differing_total;
    }

    fn count(&mut self, held: &Held, row: usize, date: i32, covered: &dyn Fn(Place) -> bool) {
        if !covered(held.place[row]) {
            self.uncovered += 1;
            self.late_uncovered += u64::from(held.is_late(row));
            return;
        }
        self.reserved += u64::from(held.is_reserved(row));
        let (minute, amount) = (held.minute(row, date), held.amount(row));
        for granularity in Granularity::ALL {
            self.cells.add(granularity, held.group[row], minute, &amount);
        }
    }

    fn look_at_repeats(
        &mut self,
        held: &Held,
        same: &[usize],
        covered: &dyn Fn(Place) -> bool,
        date: i32,
        window: i64,
    ) {
        let first = same[0];
        if !covered(held.place[first])
            && let Some(other) = same.iter().find(|row| covered(held.place[**row]))
        {
            self.uncovered -= 1;
            self.late_uncovered -= u64::from(held.is_late(first));
            self.count(held, *other, date, covered);
        }
        for pair in same.windows(2) {
            self.repeats += 1;
            let [before, after] = [held.received[pair[0]], held.received[pair[1]]];
            self.delays.add(after.saturating_sub(before));
            if !covered(held.place[pair[1]]) && i64::from(after / 60) - i64::from(before / 60) > window {
                self.past_window_total += 1;
                if self.past_window.len() < DIFFERING_MAX {
                    self.past_window.push(held.place[pair[1]]);
                }
            }
            if !held.same_contents(first, pair[1]) {
                self.differing_total += 1;
                if self.differing.len() < DIFFERING_MAX {
                    self.differing.push(Repeat { first: held.place[first], place: held.place[pair[1]] });
                }
            }
        }
    }
}

/// Most events within a minute of append time.
fn peak(received: &[u32]) -> u64 {
    let mut minutes: HashMap<u32, u64> = HashMap::new();
    for at in received {
        *minutes.entry(at / 60).or_default() += 1;
    }
    minutes.into_values().max().unwrap_or(0)
}

/// Hashes that more than one event has.
fn repeated_hashes(hashes: &[u64]) -> HashSet<u64> {
    // One copy, sorted where it is: it lies in memory beside all that is held.
    let mut sorted = hashes.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}
