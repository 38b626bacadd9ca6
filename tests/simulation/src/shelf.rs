//! What lies in the store, what lay there, and what lists show of it; and whether anything went that may not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;
use reckon_data::table::{Commit, DataFile, Table};
use reckon_tables::Storage;
use tokio::time::Instant;

use crate::faults::Io;

/// One in so many files is not in a list that lacks some.
const LACKING: usize = 3;
/// An old list shows, every second time, what was before one of so many changes.
const RECENT: usize = 40;

/// What a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// All there is.
    Whole,
    /// Not all.
    Partial,
    /// What there was some time ago.
    Stale,
}

/// The store's files, as far as they were written and deleted by processes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Shelf(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    begun: Instant,
    /// Microseconds by which its clock is ahead of virtual time. Nobody sets it back.
    passed: i64,
    /// In their order.
    changes: Vec<Change>,
    /// What lies there, and since when.
    there: BTreeMap<Path, i64>,
    /// Data files that are live, of all tables.
    live: HashSet<Path>,
    /// When data files were removed.
    removed: HashMap<Path, i64>,
    /// What each commit removed, by table and version.
    commits: HashMap<(Table, u64), Vec<Path>>,
    /// How long removed files are kept, microseconds.
    retention: i64,
    wrong: Option<String>,
}

#[derive(Debug)]
struct Change {
    path: Path,
    /// When it was written; none if it was deleted.
    written: Option<i64>,
}

impl Held {
    fn now(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX) + self.passed
    }

    fn change(&mut self, path: &Path, written: Option<i64>) {
        self.changes.push(Change { path: path.clone(), written });
        match written {
            Some(at) => self.there.insert(path.clone(), at),
            None => self.there.remove(path),
        };
    }

    fn before(&self, changes: usize) -> BTreeMap<Path, i64> {
        let mut there = BTreeMap::new();
        for Change { path, written } in &self.changes[..changes] {
            match written {
                Some(at) => there.insert(path.clone(), *at),
                None => there.remove(path),
            };
        }
        there
    }
}

impl Shelf {
    /// An empty one, on which removed files are kept for so many microseconds.
    #[must_use]
    pub fn new(retention: i64) -> Self {
        let mut held = Held {
            begun: Instant::now(),
            passed: 0,
            changes: Vec::new(),
            there: BTreeMap::new(),
            live: HashSet::new(),
            removed: HashMap::new(),
            commits: HashMap::new(),
            retention,
            wrong: None,
        };
        // Creation is a version too.
        for table in Table::ALL {
            held.change(&entry(table, 0), Some(0));
            held.commits.insert((table, 0), Vec::new());
        }
        Self(Arc::new(Mutex::new(held)))
    }

    /// The store's clock, which nobody sets.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.0.lock().now()
    }

    /// So much time passes for files, and for nothing else.
    pub fn pass(&self, micros: i64) {
        self.0.lock().passed += micros;
    }

    /// A file was written.
    pub fn put(&self, path: &Path) {
        let mut held = self.0.lock();
        let now = held.now();
        held.change(path, Some(now));
    }

    /// A file was deleted; whether it was there.: none goes that a version of the table refers to which
    /// somebody may read still.
    pub fn delete(&self, path: &Path) -> bool {
        let mut held = self.0.lock();
        let age = held.removed.get(path).map(|removed| held.now() - removed);
        if held.live.contains(path) {
            held.wrong = Some(format!("R-3: {path} was deleted, and is live"));
        } else if let Some(age) = age.filter(|age| *age < held.retention) {
            let (age, retention) = (age / 1_000_000, held.retention / 1_000_000);
            held.wrong = Some(format!("R-7: {path} was deleted {age} s after it was removed, and not {retention}"));
        }
        let was_there = held.there.contains_key(path);
        if was_there {
            held.change(path, None);
        }
        was_there
    }

    /// A commit has made a version. R-3: what it adds lies there.
    pub fn commit(&self, commit: &Commit, version: u64) {
        let mut held = self.0.lock();
        if held.commits.contains_key(&(commit.table, version)) {
            return;
        }
        let now = held.now();
        let paths = |files: &[DataFile]| files.iter().map(|file| Storage::path(commit.table, &file.path)).collect();
        let (added, removed): (Vec<Path>, Vec<Path>) = (paths(&commit.add), paths(&commit.remove));
        if let Some(lost) = added.iter().find(|path| !held.there.contains_key(*path)) {
            held.wrong = Some(format!("R-3: {lost} is part of version {version} of its table, and is not there"));
        }
        for path in &removed {
            held.live.remove(path);
            held.removed.insert(path.clone(), now);
        }
        held.live.extend(added);
        held.change(&entry(commit.table, version), Some(now));
        held.commits.insert((commit.table, version), removed);
    }

    /// What a commit removed.
    #[must_use]
    pub fn removed_by(&self, table: Table, version: u64) -> Option<Vec<Path>> {
        self.0.lock().commits.get(&(table, version)).cloned()
    }

    /// A list, as it is shown.
    #[must_use]
    pub fn list(&self, prefix: &Path, shown: Shown, io: &Io) -> Vec<ObjectMeta> {
        let held = self.0.lock();
        let all = held.changes.len();
        let there = match shown {
            Shown::Stale if io.below(2) == 0 => held.before(all - io.below(all.min(RECENT) + 1)),
            Shown::Stale => held.before(io.below(all + 1)),
            Shown::Whole | Shown::Partial => held.there.clone(),
        };
        let is_shown = |path: &Path| shown != Shown::Partial || !path.prefix_matches(prefix) || io.below(LACKING) > 0;
        let found = there.into_iter().filter(|(path, _)| path.prefix_matches(prefix) && is_shown(path));
        found.map(|(location, written)| meta(location, written)).collect()
    }

    /// Data files that are not live, and have not been for longer than they are kept, and `slack`.
    #[must_use]
    pub fn waste(&self, slack: i64) -> Vec<Path> {
        let held = self.0.lock();
        let since = held.now() - held.retention - slack;
        let is_old = |path: &Path, written: i64| held.removed.get(path).copied().unwrap_or(written) < since;
        let waste = held.there.iter().filter(|(path, written)| {
            path.as_ref().ends_with(".parquet") && !held.live.contains(*path) && is_old(path, **written)
        });
        waste.map(|(path, _)| path.clone()).collect()
    }

    /// What went that may not have gone.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        self.0.lock().wrong.clone()
    }
}

fn meta(location: Path, written: i64) -> ObjectMeta {
    let last_modified = DateTime::<Utc>::from_timestamp_micros(written).unwrap_or_default();
    ObjectMeta { location, last_modified, size: 0, e_tag: None, version: None }
}

/// Where a table's log has a version.
fn entry(table: Table, version: u64) -> Path {
    Path::from(format!("{}/_delta_log/{version:020}.json", table.name()))
}
