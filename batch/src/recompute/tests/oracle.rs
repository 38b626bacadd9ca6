//! The naive count, and the tables read back.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use reckon_data::definition::Definition;
use reckon_data::key::Key;
use reckon_data::metric::Distinct;
use reckon_data::minute::{MICROS_PER_MINUTE, date_of, minute_of};
use reckon_data::run::Granularity;

/// An event as a test writes it down.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub id: String,
    pub kind: &'static str,
    pub entity: String,
    pub time: i64,
    pub user: Option<&'static str>,
    pub country: Option<&'static str>,
    /// Millionths.
    pub value: Option<i64>,
    /// A hash in place of the key's own.
    pub hash: Option<u64>,
}

impl Row {
    pub fn view(id: &str, entity: &str, time: i64) -> Self {
        Self {
            id: id.to_owned(),
            kind: "view",
            entity: entity.to_owned(),
            time,
            user: None,
            country: None,
            value: None,
            hash: None,
        }
    }

    pub fn key(&self) -> Key<'_> {
        Key { event_id: &self.id, entity_id: &self.entity, event_type: self.kind, date: date_of(self.time) }
    }

    pub fn key_hash(&self) -> u64 {
        self.hash.unwrap_or_else(|| self.key().hash())
    }
}

/// An event and its place.
#[derive(Debug, Clone)]
pub struct Placed {
    pub partition: u32,
    pub offset: u64,
    pub index: u32,
    pub row: Row,
}

impl Placed {
    /// Later than it happened by nothing, or 45 or 90 seconds.
    pub const fn received_at(&self) -> i64 {
        self.row.time + (self.offset % 3) as i64 * 45_000_000
    }
}

/// Granularity, entity, type, first minute of the step, country, user.
pub type CountKey = (&'static str, String, String, i64, Option<String>, Option<String>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    pub count: u64,
    pub fingerprint: u64,
    pub late: Option<u64>,
    /// Count, sum, min, max.
    pub value: Option<(u64, i128, i128, i128)>,
    pub users: Option<Vec<u8>>,
}

pub type Counts = BTreeMap<CountKey, Count>;

/// What the oracle keeps of an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    pub users_as_dimension: bool,
    pub values: bool,
    pub sketches: bool,
}

impl Kept {
    pub const COUNTRY_AND_VALUES: Self = Self { users_as_dimension: false, values: true, sketches: false };

    /// The first event of each key counts, in the order of the log.
    pub fn count(self, events: &[Placed]) -> Counts {
        let mut events: Vec<&Placed> = events.iter().collect();
        events.sort_by_key(|event| (event.partition, event.offset, event.index));
        let mut seen = HashSet::new();
        let mut counts = Counts::new();
        let mut users: BTreeMap<CountKey, Distinct> = BTreeMap::new();
        for event in events {
            let row = &event.row;
            if !seen.insert((row.id.clone(), row.entity.clone(), row.kind, date_of(row.time))) {
                continue;
            }
            for granularity in Granularity::ALL {
                let minute = granularity.start_of(minute_of(row.time));
                let country = row.country.map(str::to_owned);
                let user = row.user.filter(|_| self.users_as_dimension).map(str::to_owned);
                let key = (granularity.name(), row.entity.clone(), row.kind.to_owned(), minute, country, user);
                let count = counts.entry(key.clone()).or_default();
                count.count += 1;
                count.fingerprint = count.fingerprint.wrapping_add(row.key_hash());
                if minute_of(row.time) < Definition::default().late_before(event.received_at()) {
                    *count.late.get_or_insert_default() += 1;
                }
                if let Some(value) = row.value.filter(|_| self.values).map(i128::from) {
                    let (n, sum, min, max) = count.value.unwrap_or((0, 0, value, value));
                    count.value = Some((n + 1, sum + value, min.min(value), max.max(value)));
                }
                if let Some(user) = row.user.filter(|_| self.sketches) {
                    users.entry(key).or_default().insert(user);
                }
            }
        }
        for (key, sketch) in users {
            counts.get_mut(&key).unwrap().users = Some(sketch.to_bytes());
        }
        counts
    }
}

/// Adds counts of the same key.
pub fn add(counts: &mut Counts, other: &Counts) {
    for (key, more) in other {
        let count = counts.entry(key.clone()).or_default();
        count.count += more.count;
        count.fingerprint = count.fingerprint.wrapping_add(more.fingerprint);
        if let Some(late) = more.late {
            *count.late.get_or_insert_default() += late;
        }
        count.value = match (count.value, more.value) {
            (Some(a), Some(b)) => Some((a.0 + b.0, a.1 + b.1, a.2.min(b.2), a.3.max(b.3))),
            (a, b) => a.or(b),
        };
    }
}

/// Reads rows of `batch_counts` into `counts`; each key comes once, and rows come in order.
pub fn read(granularity: &'static str, batches: &[RecordBatch], counts: &mut Counts) {
    let mut last: Option<CountKey> = None;
    for batch in batches {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let text = |name: &str, row: usize| {
            let column = column(name).as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let number = |name: &str, row: usize| column(name).as_primitive::<Int64Type>().value(row);
        let decimal = |name: &str, row: usize| column(name).as_primitive::<Decimal128Type>().value(row);
        for row in 0..batch.num_rows() {
            let micros = column("minute").as_primitive::<TimestampMicrosecondType>().value(row);
            assert_eq!(micros.rem_euclid(MICROS_PER_MINUTE), 0);
            let key = (
                granularity,
                text("entity_id", row).unwrap(),
                text("event_type", row).unwrap(),
                minute_of(micros),
                text("country", row),
                text("user_id", row),
            );
            assert!(last.as_ref().is_none_or(|last| *last < key), "{last:?} before {key:?}");
            let value = column("value_count").is_valid(row).then(|| {
                let bounds = (decimal("value_min", row), decimal("value_max", row));
                (number("value_count", row) as u64, decimal("value_sum", row), bounds.0, bounds.1)
            });
            let users = column("distinct_users").as_binary::<i32>();
            let count = Count {
                count: number("count", row) as u64,
                fingerprint: number("fingerprint", row).cast_unsigned(),
                late: column("late").is_valid(row).then(|| number("late", row) as u64),
                value,
                users: users.is_valid(row).then(|| users.value(row).to_vec()),
            };
            assert!(counts.insert(key.clone(), count).is_none(), "{key:?} is there twice");
            last = Some(key);
        }
    }
}
