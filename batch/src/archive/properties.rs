//! How the files of the tables are encoded, and why.
//!
//! Measured on events with 32 random hexadecimal digits as id and two thirds of the columns set, in
//! microseconds of one core and bytes an event:
//!
//! | columns | none | LZ4_RAW | zstd 1 |
//! | --- | --- | --- | --- |
//! | library defaults (dictionaries, plain) | 0.83, 102 B | 1.08, 78 B | 1.25, 50 B |
//! | as below | 0.30, 81 B | 0.44, 67 B | 0.56, 42 B |
//!
//! A dictionary pays where there are few values (type, country); for ids it costs a hash table and is
//! given up anyway. Random numbers are left alone, places and times are stored as differences, texts as
//! their lengths and then their bytes, which zstd shrinks to half (LZ4 cannot: hexadecimal digits have no
//! repeats). Statistics per page only where a query can use them: files in log order are pruned by time and
//! offset (any page of them holds entities from all over), files sorted by entity also by entity and, with a
//! bloom filter, by event id.

use parquet::basic::{Compression, Encoding};
use parquet::file::properties::EnabledStatistics;
use parquet::schema::types::ColumnPath;
use reckon_data::files::{WriteOptions, WriterPropertiesBuilder};

/// Rows of a row group: a few megabytes encoded, so that many files can be open at once.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Bytes of a row group, for rows with large bodies.
const ROW_GROUP_BYTES: usize = 32 << 20;

const DIFFERENCES: [&str; 5] = ["event_time", "received_at", "log_partition", "log_offset", "log_index"];
const LONG_TEXTS: [&str; 5] = ["event_id", "entity_id", "user_id", "ip", "properties"];
const FEW_VALUES: [&str; 2] = ["event_type", "country"];

/// Files of `events` in log order, as the archiver writes them.
#[must_use]
pub fn log_ordered_events() -> WriteOptions {
    WriteOptions {
        row_group_rows: ROW_GROUP_ROWS,
        dictionary: names(&FEW_VALUES),
        stats: names(&["event_time", "log_partition", "log_offset"]),
        tune: |builder| paged(compact_events(builder), &["event_time", "log_offset"]),
        ..WriteOptions::default()
    }
}

/// Files of `events` sorted by entity and time, as compaction writes them.
#[must_use]
pub fn sorted_events() -> WriteOptions {
    WriteOptions {
        row_group_rows: ROW_GROUP_ROWS,
        dictionary: names(&FEW_VALUES),
        bloom: names(&["event_id"]),
        sorted_by: names(&["entity_id", "event_time", "log_offset", "log_index"]),
        stats: names(&["entity_id", "event_time", "log_partition", "log_offset"]),
        tune: |builder| paged(compact_events(builder), &["entity_id", "event_time", "event_id", "log_offset"]),
        ..WriteOptions::default()
    }
}

/// Files of `dead_letters`.
#[must_use]
pub fn dead_letters() -> WriteOptions {
    WriteOptions {
        row_group_rows: ROW_GROUP_ROWS,
        dictionary: names(&["reason", "field"]),
        stats: names(&["received_at", "log_partition", "log_offset"]),
        tune: |builder| builder.set_max_row_group_bytes(Some(ROW_GROUP_BYTES)),
        ..WriteOptions::default()
    }
}

/// Files of `stream_counts` that maintenance has put together.
#[must_use]
pub fn stream_counts() -> WriteOptions {
    WriteOptions {
        row_group_rows: ROW_GROUP_ROWS,
        dictionary: names(&[
            "kind",
            "log_partition",
            "segment_start",
            "segment_end",
            "event_type",
            "country",
            "definition",
        ]),
        sorted_by: names(&["log_partition", "segment_start", "entity_id"]),
        stats: names(&["log_partition", "segment_start", "segment_end", "minute", "definition"]),
        tune: |builder| builder.set_max_row_group_bytes(Some(ROW_GROUP_BYTES)),
        ..WriteOptions::default()
    }
}

fn names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}

fn compact_events(builder: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
    let mut builder =
        builder.set_max_row_group_bytes(Some(ROW_GROUP_BYTES)).set_statistics_enabled(EnabledStatistics::None);
    for name in LONG_TEXTS {
        builder = builder.set_column_encoding(ColumnPath::from(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    for name in DIFFERENCES {
        builder = builder
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED)
            .set_column_compression(ColumnPath::from(name), Compression::UNCOMPRESSED);
    }
    builder.set_column_compression(ColumnPath::from("key_hash"), Compression::UNCOMPRESSED)
}

/// Statistics per page on these columns only: a comparison of every value costs as much as storing it.
fn paged(mut builder: WriterPropertiesBuilder, columns: &[&str]) -> WriterPropertiesBuilder {
    for name in columns {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(*name), EnabledStatistics::Page);
    }
    builder
}

#[cfg(test)]
mod tests {
    use reckon_data::files::ZstdLevel;

    use super::*;

    #[test]
    fn zstd_is_at_its_quickest_level() {
        assert_eq!(ZstdLevel::default().compression_level(), 1);
    }

    #[test]
    fn every_column_named_is_one_of_the_table() {
        let schema = reckon_tables::schema::file_schema(reckon_data::table::Table::Events);
        for name in DIFFERENCES.iter().chain(&LONG_TEXTS).chain(&FEW_VALUES) {
            assert!(schema.index_of(name).is_ok(), "{name}");
        }
    }
}
