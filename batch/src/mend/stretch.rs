//! A range of the log, and the rows of one table and date that it holds.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use arrow::array::RecordBatch;
use reckon_data::event::Reason;
use reckon_data::files::WriteOptions;
use reckon_data::log::Stored;
use reckon_data::minute::{date_of, format_date};
use reckon_data::paths::partition_folder;
use reckon_data::record::{Body, decode};
use reckon_data::table::Table;

use crate::archive::properties;
use crate::archive::rows::{Origin, dead_rows, event_rows, split_by_date};
use crate::maintain::MaintainError;

/// The rows of a table and date that records of one log partition hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) table: Table,
    pub(super) partition: u32,
    pub(super) date: i32,
    pub(super) offsets: Range<u64>,
    /// Those of the files that are removed.
    pub(super) removed: Vec<RangeInclusive<u64>>,
}

impl Stretch {
    /// The values of the table's partition columns: raw events and dead letters have a date, and nothing else.
    pub(super) fn values(&self) -> BTreeMap<String, Option<String>> {
        let date = format_date(self.date);
        self.table.partition_columns().iter().map(|column| ((*column).to_owned(), Some(date.clone()))).collect()
    }

    /// The folder of their files, below the table's.
    pub(super) fn folder(&self) -> String {
        let date = format_date(self.date);
        self.table.partition_columns().iter().map(|column| partition_folder(column, &date)).collect()
    }

    /// How their files are laid out: in the order of the log.
    pub(super) fn options(&self) -> WriteOptions {
        match self.table {
            Table::DeadLetters => properties::dead_letters(),
            _ => properties::log_ordered_events(),
        }
    }

    /// Whether rows that are removed may come from the record at an offset.
    pub(super) fn needs(&self, offset: u64) -> bool {
        self.removed.iter().any(|offsets| offsets.contains(&offset))
    }

    /// The rows of a record that belong to it.
    pub(super) fn rows(&self, stored: &Stored) -> Result<Option<RecordBatch>, MaintainError> {
        let unreadable = |reason: String| self.unreadable(stored.offset, reason);
        let record = decode(&stored.bytes).map_err(|error| unreadable(error.to_string()))?;
        let append_time = record.header.append_time;
        let origin = Origin { partition: self.partition, offset: stored.offset, append_time };
        let rows = match (self.table, record.body) {
            (Table::Events, Body::Events(events)) => event_rows(events, origin).and_then(split_by_date),
            (Table::DeadLetters, Body::Dead(letters)) if !letters.is_empty() => {
                dead_rows(&letters, origin).map(|rows| vec![(date_of(append_time), rows)])
            }
            // What a record held that was given up stands in the raw events, or nowhere.
            (Table::Events, Body::Dead(letters))
                if letters.iter().any(|letter| letter.reason == Reason::DamagedRecord.code()) =>
            {
                return Err(unreadable("it was given up: what the raw events have of it stays".to_owned()));
            }
            _ => return Ok(None),
        };
        let rows = rows.map_err(|error| unreadable(error.to_string()))?;
        Ok(rows.into_iter().find(|(date, _)| *date == self.date).map(|(_, rows)| rows))
    }

    /// A record of it cannot be used.
    pub(super) fn unreadable(&self, offset: u64, reason: String) -> MaintainError {
        MaintainError::Record { partition: self.partition, offset, reason }
    }
}
