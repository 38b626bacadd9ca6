//! The offsets that a run is about: from the old coverage to the cuts.

use reckon_data::table::DataFile;

/// Per partition, old coverage and cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Below it everything was counted before.
    pub coverage: Vec<u64>,
    /// From it on nothing is counted.
    pub cuts: Vec<u64>,
}

/// What is known of the rows of a file of `events` from its statistics alone. What is not known is false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// All lie below the cuts.
    pub all_below_cut: bool,
    /// None lies below the cuts.
    pub none_below_cut: bool,
    /// All lie below the old coverage.
    pub all_old: bool,
    /// None lies below the old coverage.
    pub none_old: bool,
}

impl Rows {
    /// Whether some row may lie between old coverage and cut.
    #[must_use]
    pub const fn maybe_new(self) -> bool {
        !self.all_old && !self.none_below_cut
    }
}

impl Span {
    /// Whether this run counts an event, in SQL.
    #[must_use]
    pub fn below_cut_sql(&self) -> String {
        below_sql(&self.cuts)
    }

    /// Whether an earlier run has counted an event, in SQL.
    #[must_use]
    pub fn is_old_sql(&self) -> String {
        below_sql(&self.coverage)
    }

    /// What a file's statistics say of its rows.
    #[must_use]
    pub fn of(&self, file: &DataFile) -> Rows {
        self.bounds(file).unwrap_or_default()
    }

    fn bounds(&self, file: &DataFile) -> Option<Rows> {
        let index = |number: i64| usize::try_from(number).ok();
        let partitions = index(file.min_i64("log_partition")?)?..=index(file.max_i64("log_partition")?)?;
        let (first, last) = (file.min_i64("log_offset")?, file.max_i64("log_offset")?);
        let (first, last) = (u64::try_from(first).ok()?, u64::try_from(last).ok()?);
        let (cuts, coverage) = (self.cuts.get(partitions.clone())?, self.coverage.get(partitions)?);
        Some(Rows {
            all_below_cut: last < *cuts.iter().min()?,
            none_below_cut: first >= *cuts.iter().max()?,
            all_old: last < *coverage.iter().min()?,
            none_old: first >= *coverage.iter().max()?,
        })
    }
}

fn below_sql(offsets: &[u64]) -> String {
    format!("below(log_partition, log_offset, '{}')", limits(offsets))
}

/// An offset for each partition, as text.
fn limits(offsets: &[u64]) -> String {
    let offsets: Vec<String> = offsets.iter().map(u64::to_string).collect();
    offsets.join(",")
}

/// What [`limits`] has written; none if it is not that.
#[must_use]
pub fn read_limits(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(|offset| offset.parse().ok()).collect()
}

/// Whether an event lies below the limit of its partition; none if there is no such partition.
#[must_use]
pub fn is_below(limits: &[u64], partition: i32, offset: i64) -> Option<bool> {
    let limit = *limits.get(usize::try_from(partition).ok()?)?;
    Some(u64::try_from(offset).is_ok_and(|offset| offset < limit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn file(partitions: [i64; 2], offsets: [i64; 2]) -> DataFile {
        let bounds = |at: usize| {
            BTreeMap::from([
                ("log_partition".to_owned(), partitions[at].into()),
                ("log_offset".to_owned(), offsets[at].into()),
            ])
        };
        DataFile { path: "f".to_owned(), bytes: 1, rows: 1, partition: BTreeMap::new(), min: bounds(0), max: bounds(1) }
    }

    #[test]
    fn statistics_place_a_file() {
        let span = Span { coverage: vec![10, 20], cuts: vec![30, 40] };
        let old = span.of(&file([0, 0], [0, 9]));
        assert!(old.all_old && old.all_below_cut && !old.maybe_new());
        let new = span.of(&file([0, 0], [10, 29]));
        assert!(new.none_old && new.all_below_cut && new.maybe_new());
        let late = span.of(&file([1, 1], [40, 41]));
        assert!(late.none_below_cut && !late.maybe_new());
        let mixed = span.of(&file([0, 1], [15, 35]));
        assert_eq!(mixed, Rows::default());
        assert!(mixed.maybe_new());
    }

    #[test]
    fn a_file_without_statistics_or_of_an_unknown_partition_may_hold_anything() {
        let span = Span { coverage: vec![10], cuts: vec![30] };
        let bare = DataFile { min: BTreeMap::new(), ..file([0, 0], [0, 9]) };
        assert_eq!(span.of(&bare), Rows::default());
        assert_eq!(span.of(&file([0, 1], [0, 9])), Rows::default());
    }

    #[test]
    fn limits_are_read_as_they_were_written() {
        let offsets = vec![10, 0, u64::MAX];
        assert_eq!(read_limits(&limits(&offsets)), Some(offsets));
        assert_eq!(read_limits(""), None);
        assert_eq!(is_below(&[10], 1, 0), None);
        assert_eq!(is_below(&[10], 0, 9), Some(true));
        assert_eq!(is_below(&[10], 0, 10), Some(false));
        assert_eq!(is_below(&[10], 0, -1), Some(false));
    }
}
