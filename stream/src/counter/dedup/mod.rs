//! Which keys occurred within the last minutes of log time (DESIGN 3.8).
//!
//! ```text
//! key hash   [ 6 bits: sub-table ][ 58 bits: where in it, and what is compared ]
//! entry      [ the 58 bits ][ 0 ][ 1 ][ 4 bits: minute mod 16 ]                 0: free slot
//! ```
//!
//! A key is a duplicate when it last occurred in minute `m - window` or later, `m` being the minute of log
//! time now; every occurrence, counted or not, makes `m` its last. The set is a pure function of the
//! sequence of (minute, hash), so a refill from the log gives the same set (R-4).
//!
//! Four bits of the minute are enough: a sub-table is cleaned, that is, rid of what has expired, before it is
//! used `stale` minutes after its last cleaning. So its entries lie within `window + stale` (at most 16)
//! minutes. Cleaning visits every entry of a sub-table; the sub-tables take turns by log time, however many events come,
//! so that no minute begins with a pause in which many of them are cleaned.

mod table;
#[cfg(test)]
mod tests;

use reckon_data::logtime::LogTime;
use reckon_data::minute::MICROS_PER_MINUTE;

use table::{Probe, SubTable};

/// Sub-tables; also what the top bits of a hash choose among. Few, so that a busy one takes megabytes, for
/// which an allocator wastes nothing; enough for one of them to be cleaned or to grow without a pause.
const TABLES: usize = 1 << TABLE_BITS;
const TABLE_BITS: u32 = 6;
/// So many hashes are on their way to memory at once.
const BLOCK: usize = 64;
/// Most sub-tables that have their turn with a batch: more would be a pause. Those that are late have it with the next.
const TURNS_AT_ONCE: usize = 2;
/// A sub-table is not used when it was cleaned so many minutes ago, if the window leaves room for that.
const STALE_MAX: i64 = 3;
/// The largest window that four bits of the minute can tell apart.
pub const WINDOW_MAX: u32 = 14;

/// The hashes of the keys that occurred within the window, with the minute of each.
#[derive(Debug)]
pub struct DedupSet {
    tables: Vec<SubTable>,
    window: i64,
    stale: i64,
    /// The latest minute; log time never goes back.
    minute: i64,
    live: usize,
    slots: usize,
    /// How many turns sub-tables had to be cleaned; they are counted since 1970.
    turn: i64,
    /// The sub-table that has the next turn. Turns may be lost, and it is none the less the one whose last is longest ago.
    next: usize,
    collisions: f64,
}

impl DedupSet {
    /// An empty set with a window of so many whole minutes, at most [`WINDOW_MAX`].
    #[must_use]
    pub fn new(window_minutes: u32) -> Self {
        let window = i64::from(window_minutes.min(WINDOW_MAX));
        Self {
            tables: vec![SubTable::default(); TABLES],
            window,
            stale: STALE_MAX.min(16 - window),
            minute: i64::MIN,
            live: 0,
            slots: 0,
            turn: i64::MIN,
            next: 0,
            collisions: 0.0,
        }
    }

    /// Records that keys with these hashes occur at `log_time`, in this order, and puts into `fresh` for each of
    /// them whether it is no duplicate. Returns how many duplicates there are.
    ///
    /// A minute before an earlier one counts as the earlier one.
    pub fn insert_batch(&mut self, hashes: &[u64], log_time: LogTime, fresh: &mut Vec<bool>) -> usize {
        self.minute = self.minute.max(log_time.minute().unwrap_or(0));
        self.collisions += hashes.len() as f64 * self.live as f64 / 2_f64.powi(64);
        self.sweep(log_time.micros().unwrap_or(0));
        fresh.clear();
        fresh.reserve(hashes.len());
        let mut duplicates = 0;
        for block in hashes.chunks(BLOCK) {
            self.touch(block);
            for &hash in block {
                let duplicate = self.insert(hash);
                duplicates += usize::from(duplicate);
                fresh.push(!duplicate);
            }
        }
        duplicates
    }

    /// Makes the sub-tables of a block ready and reads the slots that will be probed. The reads do not depend on
    /// each other, so the processor waits for all of them at once instead of for one after the other.
    fn touch(&mut self, block: &[u64]) {
        let mut seen = 0;
        for &hash in block {
            let table = table_of(hash);
            if self.minute.saturating_sub(self.tables[table].cleaned()) >= self.stale {
                self.clean(table);
            }
            seen ^= self.tables[table_of(hash)].peek(hash << TABLE_BITS);
        }
        std::hint::black_box(seen);
    }

    /// Whether the key is a duplicate; it has occurred now either way. Its sub-table is clean.
    fn insert(&mut self, hash: u64) -> bool {
        let table = &mut self.tables[table_of(hash)];
        let slots = table.slots();
        let probe = table.insert(hash << TABLE_BITS, self.minute, self.window);
        // A table may grow even if the key turns out to be there.
        self.slots += table.slots() - slots;
        self.live += usize::from(probe == Probe::Added);
        probe == Probe::Found
    }

    /// Cleans a sub-table.
    fn clean(&mut self, at: usize) {
        let table = &mut self.tables[at];
        let before = (table.len(), table.slots());
        table.clean(self.minute, self.window, self.stale);
        self.live = self.live + table.len() - before.0;
        self.slots = self.slots + table.slots() - before.1;
    }

    /// Cleans the sub-tables whose turn has come. A round takes less than the minutes for which a sub-table that was
    /// cleaned at the end of one can be used: where batches come every second or so, none has to be cleaned because it
    /// is used.
    fn sweep(&mut self, micros: i64) {
        let round = (self.stale - 1) * MICROS_PER_MINUTE / 8 * 7;
        let due = micros.div_euclid(round / TABLES as i64);
        self.turn = self.turn.max(due.saturating_sub(TABLES as i64));
        let mut left = TURNS_AT_ONCE;
        while self.turn < due {
            let table = &self.tables[self.next];
            if table.cleaned() < self.minute {
                // One that has nothing else is let go, and no entry of it is looked at.
                if !table.is_expired(self.minute, self.window, self.stale) {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                }
                self.clean(self.next);
            }
            self.next = (self.next + 1) % TABLES;
            self.turn += 1;
        }
    }

    /// How many keys the set holds; some of them may have expired.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.slots * size_of::<u64>() + TABLES * size_of::<SubTable>()
    }

    /// How many events the hashes' collisions are expected to have dropped so far: for every event, the chance
    /// that one of the other keys in the set has its hash.
    #[must_use]
    pub const fn expected_collisions(&self) -> f64 {
        self.collisions
    }
}

const fn table_of(hash: u64) -> usize {
    (hash >> (u64::BITS - TABLE_BITS)) as usize
}
