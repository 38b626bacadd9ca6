//! Footers of Parquet files and their page indexes, held in memory: reading a few rows costs more to find out where they
//! are than to read them.

use std::sync::Arc;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::ServingError;

/// Memory that footers may take.
const BYTES_MAX: u64 = 64 << 20;
/// Footers that are expected to fit.
const FILES: usize = 256;

/// Footers by the paths of their files, which never change.
#[derive(Debug)]
pub struct Footers(Cache<String, ArrowReaderMetadata, Bytes>);

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<String, ArrowReaderMetadata> for Bytes {
    fn weight(&self, path: &String, footer: &ArrowReaderMetadata) -> u64 {
        (path.len() + footer.metadata().memory_size()) as u64
    }
}

impl Default for Footers {
    fn default() -> Self {
        Self(Cache::with_weighter(FILES, BYTES_MAX, Bytes))
    }
}

impl Footers {
    /// The footer of the file at `path` in a table, which `reader` reads; loaded by one of all who ask for it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn of(&self, path: &str, reader: &mut impl AsyncFileReader) -> Result<ArrowReaderMetadata, ServingError> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let load = async { Ok::<_, ServingError>(ArrowReaderMetadata::load_async(reader, options).await?) };
        self.0.get_or_insert_async(path, load).await
    }
}

/// The row groups that may hold an entity, and which of their rows: those of the pages that may, by their smallest and
/// largest id. All rows of a row group where pages do not say.
#[must_use]
pub fn rows_of(metadata: &Arc<ParquetMetaData>, entity: &str) -> (Vec<usize>, RowSelection) {
    let columns = metadata.file_metadata().schema_descr().columns();
    let column = columns.iter().position(|column| column.name() == "entity_id");
    let mut groups = Vec::new();
    let (mut ranges, mut begin) = (Vec::new(), 0);
    for group in 0..metadata.num_row_groups() {
        let rows = usize::try_from(metadata.row_group(group).num_rows()).unwrap_or(0);
        if column.is_some_and(|column| !group_may_hold(metadata, group, column, entity)) {
            continue;
        }
        groups.push(group);
        match column.and_then(|column| pages_of(metadata, group, column, entity, rows)) {
            Some(pages) => ranges.extend(pages.into_iter().map(|(from, to)| begin + from..begin + to)),
            None => ranges.push(begin..begin + rows),
        }
        begin += rows;
    }
    (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), begin))
}

fn group_may_hold(metadata: &ParquetMetaData, group: usize, column: usize, entity: &str) -> bool {
    match metadata.row_group(group).column(column).statistics() {
        // A smallest value may be cut short and a largest rounded up: both still are bounds.
        Some(Statistics::ByteArray(bounds)) => may_hold(bounds.min_bytes_opt(), bounds.max_bytes_opt(), entity),
        _ => true,
    }
}

fn may_hold(min: Option<&[u8]>, max: Option<&[u8]>, entity: &str) -> bool {
    min.is_none_or(|min| min <= entity.as_bytes()) && max.is_none_or(|max| entity.as_bytes() <= max)
}

/// The rows, from and to, of the pages of a row group of so many `rows` that may hold an entity; none where nobody can tell.
fn pages_of(
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
    entity: &str,
    rows: usize,
) -> Option<Vec<(usize, usize)>> {
    let ColumnIndexMetaData::BYTE_ARRAY(index) = metadata.column_index()?.get(group)?.get(column)? else { return None };
    let pages = metadata.offset_index()?.get(group)?.get(column)?.page_locations();
    let firsts = pages.iter().map(|page| page.first_row_index);
    let bounds = bounds_of(firsts, rows).filter(|bounds| bounds.len() as u64 == index.num_pages())?;
    let may_hold = |page: &usize| may_hold(index.min_value(*page), index.max_value(*page), entity);
    Some((0..bounds.len()).filter(may_hold).filter_map(|page| bounds.get(page).copied()).collect())
}

/// The rows of each page, from and to, by their first rows; none unless they are all `rows` of a row group in order: what a page
/// index leaves out, nobody would miss.
fn bounds_of(firsts: impl Iterator<Item = i64>, rows: usize) -> Option<Vec<(usize, usize)>> {
    let mut edges = firsts.map(usize::try_from).collect::<Result<Vec<_>, _>>().ok()?;
    // The last page ends with its row group.
    edges.push(rows);
    let is_whole = edges.first() == Some(&0) && edges.is_sorted();
    is_whole.then(|| edges.iter().copied().zip(edges.iter().copied().skip(1)).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    fn written(ids: &[String], group: usize, page: usize) -> Arc<ParquetMetaData> {
        let column = Arc::new(StringArray::from_iter_values(ids)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("entity_id", column)]).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(group))
            .set_data_page_row_count_limit(page)
            .set_write_batch_size(page)
            .set_dictionary_enabled(false)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        Arc::new(reader.parse_and_finish(&Bytes::from(bytes)).unwrap())
    }

    #[test]
    fn pages_that_are_not_all_of_a_row_group_tell_nothing() {
        let bounds = |firsts: &[i64]| bounds_of(firsts.iter().copied(), 9);
        assert_eq!(bounds(&[0, 3, 7]), Some(vec![(0, 3), (3, 7), (7, 9)]));
        for wrong in [&[][..], &[1, 3], &[0, 7, 3], &[0, 10], &[0, -1]] {
            assert_eq!(bounds(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        /// No row of the entity is left out, and of a sorted file hardly any other is read.
        #[test]
        fn pages_hold_every_row_of_an_entity(
            mut numbers in prop::collection::vec(0..40_u32, 1..300), wanted in 0..45_u32,
            group in 10..120_usize, page in 1..20_usize, long in any::<bool>(),
        ) {
            numbers.sort_unstable();
            // Longer than bounds are kept.
            let id = |number: &u32| format!("{}{number:03}", if long { "x".repeat(100) } else { String::new() });
            let ids: Vec<String> = numbers.iter().map(id).collect();
            let metadata = written(&ids, group, page);
            let entity = id(&wanted);
            let (groups, rows) = rows_of(&metadata, &entity);
            let mut begin = 0;
            let starts: Vec<usize> = (0..metadata.num_row_groups())
                .map(|group| { let own = begin; begin += metadata.row_group(group).num_rows() as usize; own })
                .collect();
            let mut numbered = groups.iter().flat_map(|group| {
                starts[*group]..starts[*group] + metadata.row_group(*group).num_rows() as usize
            });
            let mut read = Vec::new();
            for selector in rows.iter() {
                let own: Vec<usize> = numbered.by_ref().take(selector.row_count).collect();
                if !selector.skip {
                    read.extend(own);
                }
            }
            let due: Vec<usize> = (0..ids.len()).filter(|row| ids[*row] == entity).collect();
            prop_assert!(due.iter().all(|row| read.contains(row)), "{due:?} in {read:?}");
            if !long {
                prop_assert!(read.len() <= due.len() + 2 * page + 2, "{} of {}", read.len(), due.len());
            }
        }
    }
}
