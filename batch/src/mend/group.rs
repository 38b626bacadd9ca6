//! A damaged file and those that have to be written anew with it.

use reckon_data::minute::parse_date;
use reckon_data::table::{DataFile, Snapshot};

use super::place::Place;
use super::stretch::Stretch;
use crate::maintain::MaintainError;

/// Files whose rows come from one stretch of the log, and all that come from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) stretch: Stretch,
    pub(super) files: Vec<DataFile>,
}

impl Group {
    /// The damaged file and all that share offsets with it, directly or through others.
    ///
    /// The rows of a file are those of one date and log partition that lie in a range of offsets; only where compaction has
    /// sorted by entity do several files share a range, and then all of them are written anew.
    pub(super) fn around(snapshot: &Snapshot, damaged: &DataFile) -> Result<Self, MaintainError> {
        let table = snapshot.table;
        let unknown = || MaintainError::Place { table: table.name(), file: damaged.path.clone() };
        let place = |file: &DataFile| {
            let place = Place::of(file)?;
            Some((place.partition()?, place.offsets))
        };
        let (partition, mut offsets) = place(damaged).ok_or_else(unknown)?;
        let date = table.partition_columns().first().and_then(|column| damaged.partition.get(*column)?.as_deref());
        let date = date.and_then(parse_date).ok_or_else(unknown)?;
        loop {
            let mut files = Vec::new();
            let mut all = offsets.clone();
            for file in snapshot.files.iter().filter(|file| file.partition == damaged.partition) {
                let (of, range) = place(file).ok_or_else(unknown)?;
                if of == partition && range.start() <= offsets.end() && offsets.start() <= range.end() {
                    all = *all.start().min(range.start())..=*all.end().max(range.end());
                    files.push(file.clone());
                }
            }
            if all == offsets {
                let removed = vec![all];
                let offsets = *offsets.start()..offsets.end().saturating_add(1);
                return Ok(Self { stretch: Stretch { table, partition, date, offsets, removed }, files });
            }
            offsets = all;
        }
    }
}
