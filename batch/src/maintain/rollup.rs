//! Dropping the minutes of old dates, and later their hours: what is coarser stands for them from then on.
//!
//! ```text
//! date, older than its minutes are kept
//!   └─ read minutes, hours, days ── weigh ── equal? ──▶ one commit: files go, `rolled/…` moves on
//!                                              └ not: nothing goes, and it is told
//! ```
//!
//! Nobody can make minutes of hours again, so a date is read whole before anything of it goes: for every entity, type, hour
//! and combination of dimensions the coarser rows have to hold the events that the finer ones hold, by number, fingerprint
//! and values. Sums are weighed by a hash of what they are of and added up, so that no two differences make up for each
//! other; the weights are other ones each time.
//!
//! The commit counts on `maintain/batch_counts`, and asks that coverage is where it was: a batch run in between may have
//! put rows beside those that go.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use datafusion::error::DataFusionError;
use futures::StreamExt as _;
use hashbrown::DefaultHashBuilder;
use reckon_data::damage::Damaged;
use reckon_data::minute::{format_date, minute_of};
use reckon_data::offload::offload_background;
use reckon_data::paths::Transaction;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Snapshot, Step, Table};

use super::error::MaintainError;
use super::jobs::{ROUND_BYTES_MAX, skip_or_fail};
use super::plan::{RollUp, roll_ups};
use super::report::RolledUp;
use super::rewrite::{Means, rows_of};
use super::{Maintainer, Outcome};
use crate::commit;

impl Maintainer {
    /// Drops the minutes and hours of dates that are older than these are kept, once what is coarser is proven to stand
    /// for them.
    ///
    /// # Errors
    /// See [`MaintainError`]. A date that does not add up is left as it is, and said in an [`Outcome::Skipped`].
    pub async fn roll_up(&self) -> Result<Outcome<RolledUp>, MaintainError> {
        let retention = &self.parts.retention;
        let (minutes, hours) = (self.cutoff(retention.minutes_days), self.cutoff(retention.hours_days));
        if minutes.is_none() && hours.is_none() {
            return Ok(Outcome::Done(RolledUp::default()));
        }
        let snapshot = self.parts.tables.snapshot(Table::BatchCounts).await?;
        let (mut proven, mut left, mut bytes) = (Vec::new(), Vec::new(), 0);
        for roll_up in roll_ups(&snapshot.files, minutes, hours) {
            if bytes >= ROUND_BYTES_MAX {
                break;
            }
            if self.refused.lock().contains(&roll_up) {
                continue;
            }
            bytes += roll_up.bytes();
            match prove(&self.means, &roll_up).await {
                Ok(()) => proven.push(roll_up),
                Err(error @ MaintainError::RollUp { .. }) => {
                    tracing::error!(%error, "counts of a date do not make its coarser ones");
                    left.push(error.to_string());
                    self.refused.lock().push(roll_up);
                }
                // It may be mended meanwhile.
                Err(error) if Damaged::cause(&error).is_some() => left.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let done = self.drop_proven(&snapshot, proven).await?;
        Ok(match (done, left.is_empty()) {
            (done, true) => done,
            (Outcome::Done(done), false) => Outcome::Skipped(done, left.join("; ")),
            (Outcome::Skipped(done, why), false) => Outcome::Skipped(done, format!("{why}; {}", left.join("; "))),
        })
    }

    /// All of them in one commit.
    async fn drop_proven(&self, snapshot: &Snapshot, proven: Vec<RollUp>) -> Result<Outcome<RolledUp>, MaintainError> {
        if proven.is_empty() {
            return Ok(Outcome::Done(RolledUp::default()));
        }
        let files = |granularity| -> u64 {
            proven.iter().filter_map(|roll_up| roll_up.gone.get(&granularity)).map(|files| files.len() as u64).sum()
        };
        let done = RolledUp {
            dates: proven.len() as u64,
            minute_files: files(Granularity::Minute),
            hour_files: files(Granularity::Hour),
        };
        let mut steps = self.same_coverage(snapshot);
        steps.extend([Granularity::Minute, Granularity::Hour].into_iter().filter_map(|g| mark(snapshot, &proven, g)));
        let gone = proven.into_iter().flat_map(|roll_up| roll_up.gone.into_values().flatten()).collect();
        let commit = self.maintain(snapshot, Vec::new(), gone, steps, true, "roll up");
        match commit::commit(&*self.parts.tables, &commit).await {
            Ok(_) => Ok(Outcome::Done(done)),
            Err(error) => skip_or_fail(error, RolledUp::default()),
        }
    }

    /// Steps that let a commit in only if no batch run has committed since.
    fn same_coverage(&self, snapshot: &Snapshot) -> Vec<Step> {
        let stay = |partition| {
            let name = Transaction::Batch(self.parts.log, partition).to_string();
            let at = snapshot.transaction(&name);
            Step { name, from: at, to: at }
        };
        (0..self.parts.partitions).map(stay).collect()
    }
}

/// The step that says that dates may lack a granularity; none where that is said already. It never goes back.
fn mark(snapshot: &Snapshot, proven: &[RollUp], granularity: Granularity) -> Option<Step> {
    let gone = proven.iter().filter(|roll_up| roll_up.gone.contains_key(&granularity));
    let last = gone.map(|roll_up| roll_up.date).max()?;
    let name = Transaction::Rolled(granularity).to_string();
    let (at, to) = (snapshot.transactions.get(&name).copied(), i64::from(last) + 1);
    // What no commit has set stands at 0.
    at.is_none_or(|at| at < to).then(|| Step { name, from: at.unwrap_or(0), to })
}

/// Reads all that a date has, and holds every granularity against the next finer one.
async fn prove(means: &Means, roll_up: &RollUp) -> Result<(), MaintainError> {
    let (means, date) = (means.clone(), roll_up.date);
    let all: BTreeMap<Granularity, Vec<DataFile>> =
        roll_up.gone.iter().chain(&roll_up.kept).map(|(granularity, files)| (*granularity, files.clone())).collect();
    let work = async move {
        let scale = Scale::default();
        let mut finer: Option<(Granularity, Weighed)> = None;
        for (granularity, files) in all {
            let weighed = scale.weigh(&means, granularity, &files).await.map_err(query)?;
            if let Some((of, sums)) = &finer
                && let Some(reason) = weighed.differs(sums, granularity, *of)
            {
                return Err(MaintainError::RollUp { date: format_date(date), reason });
            }
            finer = Some((granularity, weighed));
        }
        Ok(())
    };
    offload_background(work).await.map_err(MaintainError::Thread)?
}

fn query(error: DataFusionError) -> MaintainError {
    MaintainError::Query { table: Table::BatchCounts.name(), source: Box::new(error) }
}

/// What files of one granularity hold: events, and their weighed sums by the steps of that granularity and of the coarser
/// ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Weighed {
    events: u64,
    sums: BTreeMap<Granularity, u64>,
}

impl Weighed {
    /// What is wrong with these rows, of `own`, if they are not what those of `finer` make.
    fn differs(&self, finer: &Self, own: Granularity, of: Granularity) -> Option<String> {
        if self.sums.get(&own) == finer.sums.get(&own) {
            return None;
        }
        let (found, expected) = (self.events, finer.events);
        Some(format!("its counts by the {own}, of {found} events, are not what those by the {of} make, of {expected}"))
    }
}

/// Gives every number of a row its weight, by what the row counts.
#[derive(Debug, Default)]
struct Scale(DefaultHashBuilder);

impl Scale {
    async fn weigh(
        &self,
        means: &Means,
        granularity: Granularity,
        files: &[DataFile],
    ) -> Result<Weighed, DataFusionError> {
        let mut weighed = Weighed::default();
        let mut rows = rows_of(means, Table::BatchCounts, files).await?.execute_stream().await?;
        while let Some(batch) = rows.next().await {
            self.add(&mut weighed, &Columns::of(&batch?)?, granularity);
        }
        // Without a row it says nothing, and must not agree with what says something.
        for coarser in Granularity::ALL.into_iter().filter(|coarser| *coarser >= granularity) {
            weighed.sums.entry(coarser).or_default();
        }
        Ok(weighed)
    }

    fn add(&self, weighed: &mut Weighed, columns: &Columns, granularity: Granularity) {
        for row in 0..columns.count.len() {
            let (key, minute) = (columns.key(row), minute_of(columns.minute.value(row)));
            let numbers = columns.numbers(row);
            weighed.events = weighed.events.wrapping_add(numbers[0]);
            for coarser in Granularity::ALL.into_iter().filter(|coarser| *coarser >= granularity) {
                let weight = |at: u8| self.0.hash_one((key, coarser.start_of(minute), at));
                let sum = (0_u8..).zip(numbers).fold(0_u64, |sum, (at, number)| {
                    // Odd, so that no number weighs nothing.
                    sum.wrapping_add(number.wrapping_mul(weight(at) | 1))
                });
                let of = weighed.sums.entry(coarser).or_default();
                *of = of.wrapping_add(sum);
            }
        }
    }
}

/// Entity, type and dimensions of a row.
type Key<'a> = (&'a str, &'a str, [Option<&'a str>; 3]);

/// The columns of a batch that are weighed.
struct Columns {
    entity: StringArray,
    kind: StringArray,
    minute: TimestampMicrosecondArray,
    dims: [StringArray; 3],
    count: Int64Array,
    fingerprint: Int64Array,
    late: Int64Array,
    value_count: Int64Array,
    value_sum: arrow::array::Decimal128Array,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self, DataFusionError> {
        let column = |name: &str| batch.schema_ref().index_of(name).map(|at| batch.column(at));
        let text = |name: &str| Ok::<_, DataFusionError>(column(name)?.as_string::<i32>().clone());
        let whole = |name: &str| Ok::<_, DataFusionError>(column(name)?.as_primitive::<Int64Type>().clone());
        Ok(Self {
            entity: text("entity_id")?,
            kind: text("event_type")?,
            minute: column("minute")?.as_primitive::<TimestampMicrosecondType>().clone(),
            dims: [text("country")?, text("user_id")?, text("ip")?],
            count: whole("count")?,
            fingerprint: whole("fingerprint")?,
            late: whole("late")?,
            value_count: whole("value_count")?,
            value_sum: column("value_sum")?.as_primitive::<Decimal128Type>().clone(),
        })
    }

    fn key(&self, row: usize) -> Key<'_> {
        let dims = self.dims.each_ref().map(|column| column.is_valid(row).then(|| column.value(row)));
        (self.entity.value(row), self.kind.value(row), dims)
    }

    /// What adds up of a row: all of it but the extremes, and the sketches.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sums are compared modulo 2^64")]
    fn numbers(&self, row: usize) -> [u64; 5] {
        let whole = |column: &Int64Array| if column.is_valid(row) { column.value(row).cast_unsigned() } else { 0 };
        let sum = if self.value_sum.is_valid(row) { self.value_sum.value(row) as u64 } else { 0 };
        [whole(&self.count), whole(&self.fingerprint), whole(&self.late), whole(&self.value_count), sum]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, new_null_array};
    use reckon_data::minute::start_of_minute;
    use reckon_tables::schema::file_schema;

    use super::*;

    /// Rows of (entity, minute, count, fingerprint).
    fn columns(rows: &[(&str, i64, i64, i64)]) -> Columns {
        let schema = file_schema(Table::BatchCounts);
        let whole = |of: fn(&(&str, i64, i64, i64)) -> i64| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(of(row))).collect::<Int64Array>())
        };
        let column = |name: &str, of: &arrow::datatypes::DataType| -> ArrayRef {
            match name {
                "entity_id" => Arc::new(rows.iter().map(|row| Some(row.0)).collect::<StringArray>()),
                "event_type" => Arc::new(rows.iter().map(|_| Some("view")).collect::<StringArray>()),
                "minute" => {
                    let times: TimestampMicrosecondArray =
                        rows.iter().map(|row| Some(start_of_minute(row.1))).collect();
                    Arc::new(times.with_timezone("UTC"))
                }
                "count" => whole(|row| row.2),
                "fingerprint" => whole(|row| row.3),
                "definition" => whole(|_| 1),
                _ => new_null_array(of, rows.len()),
            }
        };
        let arrays = schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect();
        Columns::of(&RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap()).unwrap()
    }

    fn sums(scale: &Scale, granularity: Granularity, rows: &[(&str, i64, i64, i64)]) -> Weighed {
        let mut weighed = Weighed::default();
        scale.add(&mut weighed, &columns(rows), granularity);
        weighed
    }

    #[test]
    fn coarser_rows_have_to_be_what_finer_ones_make_of_every_entity_and_hour() {
        let scale = Scale::default();
        let minutes = [("a", 1, 2, 5), ("a", 59, 1, 7), ("a", 60, 1, 9), ("b", 3, 4, -1)];
        let minutes = sums(&scale, Granularity::Minute, &minutes);
        let differs = |rows: &[(&str, i64, i64, i64)]| {
            let hours = sums(&scale, Granularity::Hour, rows);
            hours.differs(&minutes, Granularity::Hour, Granularity::Minute)
        };
        assert_eq!(differs(&[("a", 0, 3, 12), ("a", 60, 1, 9), ("b", 0, 4, -1)]), None);
        for wrong in [
            // An event is gone, or is another; it lies in another hour, or counts for another entity.
            [("a", 0, 2, 12), ("a", 60, 1, 9), ("b", 0, 4, -1)],
            [("a", 0, 3, 13), ("a", 60, 1, 9), ("b", 0, 4, -1)],
            [("a", 0, 2, 5), ("a", 60, 2, 16), ("b", 0, 4, -1)],
            [("a", 0, 2, 5), ("a", 60, 1, 9), ("b", 0, 5, 6)],
            [("a", 0, 4, 12), ("a", 60, 1, 9), ("b", 0, 3, -1)],
        ] {
            assert!(differs(&wrong).is_some_and(|text| text.contains("by the hour")), "{wrong:?}");
        }
        let days = sums(&scale, Granularity::Day, &[("a", 0, 4, 21), ("b", 0, 4, -1)]);
        assert_eq!(days.differs(&minutes, Granularity::Day, Granularity::Minute), None);
    }
}
