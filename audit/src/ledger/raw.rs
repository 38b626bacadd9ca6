//! Raw events as the audit sees them: what is counted of each, computed anew.

use polars::prelude::{Column, DataFrame, NamedFrom as _, Series, StringChunked};
use reckon_data::definition::Definition;
use reckon_data::key::Key;
use reckon_data::minute::{date_of, minute_of};
use reckon_data::run::Dimension;

use super::columns::Columns;
use super::load::Unreadable;
use super::place::Place;
use super::weigh::{Amount, Groups, mix, second_hash};

/// What is read of a file of raw events.
const COLUMNS: [&str; 10] = [
    "event_id",
    "event_type",
    "entity_id",
    "event_time",
    "value",
    "key_hash",
    "received_at",
    "log_partition",
    "log_offset",
    "log_index",
];
/// What [`Events::kept`] adds to the columns of the file.
pub const HASH: &str = "_hash";
/// See [`HASH`].
pub const PLACE: &str = "_place";
/// See [`HASH`].
pub const MINUTE: &str = "_minute";
/// See [`HASH`].
pub const LATE: &str = "_late";

/// What is counted, as far as the audit has to know.
#[derive(Debug, Clone)]
pub struct Counting {
    /// Columns that are kept as keys of the counts.
    pub dimensions: Vec<Dimension>,
    /// Whether values are added up.
    pub values: bool,
    /// An event whose minute had ended so long before it was appended is late, microseconds; none: late events are not compared.
    pub lateness: Option<i64>,
}

impl Counting {
    /// What a definition counts.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        Self {
            dimensions: definition.dimensions.clone(),
            values: definition.has_values(),
            lateness: Some(definition.lateness_micros()),
        }
    }

    /// What all definitions count alike: events by entity, type and time.
    #[must_use]
    pub const fn coarse() -> Self {
        Self { dimensions: Vec::new(), values: false, lateness: None }
    }

    /// The columns to be read of raw events.
    #[must_use]
    pub fn columns(&self) -> Vec<&'static str> {
        COLUMNS.into_iter().chain(self.dimensions.iter().map(|dimension| dimension.column())).collect()
    }

    /// Whether an event of a minute that was appended at `received` is late.
    #[must_use]
    pub fn is_late(&self, minute: i64, received: i64) -> bool {
        self.lateness.is_some_and(|lateness| minute < reckon_data::definition::late_before(lateness, received))
    }
}

/// A slice of raw events.
#[derive(Debug)]
pub struct Events {
    /// The columns as they were read.
    pub frame: DataFrame,
    /// Hash of each event's key, computed anew.
    pub hash: Vec<u64>,
    /// The hash that the file says.
    pub stored_hash: Vec<u64>,
    /// Its second hash.
    pub check: Vec<u32>,
    /// What it counts for.
    pub group: Vec<u64>,
    /// Event time, microseconds.
    pub time: Vec<i64>,
    /// Append time, microseconds.
    pub received: Vec<i64>,
    /// Its place in the log.
    pub place: Vec<Place>,
    /// Its value, millionths.
    pub value: Vec<Option<i64>>,
    /// Whether it is late.
    pub late: Vec<bool>,
}

impl Events {
    /// Reads a frame that has [`Counting::columns`].
    ///
    /// # Errors
    /// When a column is missing, of another type, or null where it must not be.
    pub fn of(frame: DataFrame, counting: &Counting) -> Result<Self, Unreadable> {
        let columns = Columns(&frame);
        let time = required(&columns, "event_time")?;
        let received = required(&columns, "received_at")?;
        let (hash, check, group) = keys(&columns, &time, counting)?;
        let stored_hash = required(&columns, "key_hash")?.into_iter().map(i64::cast_unsigned).collect();
        let place = places(&columns)?;
        let value = values(&columns, counting)?;
        let late = time.iter().zip(&received).map(|(time, at)| counting.is_late(minute_of(*time), *at)).collect();
        Ok(Self { hash, stored_hash, check, group, time, received, place, value, late, frame })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.hash.len()
    }

    /// A number that is another one when anything that is counted of the event is.
    #[must_use]
    pub fn content(&self, row: usize) -> u64 {
        content(self.hash[row], self.group[row], self.time[row], self.value[row])
    }

    /// The rows of a mask, with what was computed of them.
    ///
    /// # Errors
    /// Those of Polars.
    pub fn kept(&self, mask: &[bool]) -> Result<DataFrame, polars::error::PolarsError> {
        let minutes: Vec<i64> = self.time.iter().map(|time| minute_of(*time)).collect();
        let places: Vec<u64> = self.place.iter().map(|place| place.bits()).collect();
        let mut frame = self.frame.clone();
        // Signed, as all fingerprints are in tables: the sum wraps either way.
        let hashes: Vec<i64> = self.hash.iter().map(|hash| hash.cast_signed()).collect();
        frame.with_column(Column::from(Series::new(HASH.into(), hashes)))?;
        frame.with_column(Column::from(Series::new(PLACE.into(), places)))?;
        frame.with_column(Column::from(Series::new(MINUTE.into(), minutes)))?;
        frame.with_column(Column::from(Series::new(LATE.into(), &self.late)))?;
        super::rows::kept(&frame, mask)
    }
}

/// What an event adds to its row.
#[must_use]
pub fn amount(hash: u64, value: Option<i64>, late: bool) -> Amount {
    Amount {
        count: 1,
        fingerprint: hash,
        late: u64::from(late),
        values: u64::from(value.is_some()),
        value: value.unwrap_or(0).cast_unsigned(),
    }
}

/// See [`Events::content`].
#[must_use]
pub fn content(hash: u64, group: u64, time: i64, value: Option<i64>) -> u64 {
    let value = value.map_or(0, |value| mix(value.cast_unsigned() ^ 1));
    mix(hash ^ mix(group ^ mix(time.cast_unsigned() ^ value)))
}

/// Whole numbers without nulls.
fn required(columns: &Columns<'_>, name: &str) -> Result<Vec<i64>, Unreadable> {
    let column = columns.whole(name)?;
    let values: Option<Vec<i64>> = column.iter().collect();
    values.ok_or_else(|| Unreadable::Corrupt(format!("column {name} has nulls")))
}

type Keys = (Vec<u64>, Vec<u32>, Vec<u64>);

fn keys(columns: &Columns<'_>, time: &[i64], counting: &Counting) -> Result<Keys, Unreadable> {
    let [ids, entities, types] = [columns.text("event_id")?, columns.text("entity_id")?, columns.text("event_type")?];
    let dimensions: Vec<Option<&StringChunked>> = (counting.dimensions.iter())
        .map(|dimension| columns.maybe_text(dimension.column()))
        .collect::<Result<_, Unreadable>>()?;
    let rows = time.len();
    let (mut hash, mut check, mut group) =
        (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut groups = Groups::default();
    let texts = ids.iter().zip(entities.iter()).zip(types.iter());
    for (row, ((event_id, entity_id), event_type)) in texts.enumerate() {
        let (Some(event_id), Some(entity_id), Some(event_type)) = (event_id, entity_id, event_type) else {
            return Err(Unreadable::Corrupt("an event has no id, entity or type".to_owned()));
        };
        hash.push(Key { event_id, entity_id, event_type, date: date_of(time[row]) }.hash());
        let of_key = groups.number(entity_id, event_type, std::iter::empty());
        check.push(second_hash(event_id, of_key));
        group.push(if dimensions.is_empty() {
            of_key
        } else {
            let values = dimensions.iter().map(|column| column.and_then(|column| column.get(row)));
            groups.number(entity_id, event_type, values)
        });
    }
    Ok((hash, check, group))
}

fn places(columns: &Columns<'_>) -> Result<Vec<Place>, Unreadable> {
    let null = || Unreadable::Corrupt("an event has no place in the log".to_owned());
    let (partitions, indexes) = (columns.small("log_partition")?, columns.small("log_index")?);
    let offsets = required(columns, "log_offset")?;
    let mut places = Vec::with_capacity(offsets.len());
    for ((partition, index), offset) in partitions.iter().zip(indexes.iter()).zip(offsets) {
        let (partition, index) = partition.zip(index).ok_or_else(null)?;
        places.push(
            Place::new(partition.into(), offset, index.into())
                .map_err(|error| Unreadable::Corrupt(error.to_string()))?,
        );
    }
    Ok(places)
}

fn values(columns: &Columns<'_>, counting: &Counting) -> Result<Vec<Option<i64>>, Unreadable> {
    let decimals = if counting.values { columns.maybe_decimal("value")? } else { None };
    let Some(decimals) = decimals else { return Ok(vec![None; columns.0.height()]) };
    let narrow =
        |value: i128| i64::try_from(value).map_err(|_| Unreadable::Corrupt(format!("a value of {value} millionths")));
    decimals.into_iter().map(|value| value.map(narrow).transpose()).collect()
}
