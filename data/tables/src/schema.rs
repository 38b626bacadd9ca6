//! What the tables' files look like, and the tables themselves.
//!
//! A file does not hold the partition columns of its table: those stand in its path and in the
//! log. [`file_schema`] is what is written, [`table_schema`] and [`delta_schema`] what a reader sees.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake_core::kernel::StructType;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel as _;
pub use reckon_data::columns::{SUM_TYPE, VALUE_TYPE, time_type};
use reckon_data::run::LATE_COLUMN;
pub use reckon_data::run::count_fields;
use reckon_data::table::{Table, TableError};

/// The version of a table's schema that is written. An older one is read, and made this one by the next commit; a newer
/// one is refused. Version 1 of the counts has no column of late events; dates of version 3 of `batch_counts` may be rolled
/// up, and a program that looks for their minutes would take what is left for nothing.
#[must_use]
pub const fn schema_version(table: Table) -> u32 {
    match table {
        Table::BatchCounts => 3,
        Table::StreamCounts => 2,
        Table::Events | Table::DeadLetters | Table::Imports | Table::AuditRuns | Table::AuditFindings => 1,
    }
}

/// `kind` of a row of `stream_counts` that counts.
pub const KIND_COUNT: &str = "count";
/// `kind` of the one row a segment that sums it up.
pub const KIND_SUMMARY: &str = "summary";

/// The Arrow schema of a table's files: without its partition columns.
#[must_use]
pub fn file_schema(table: Table) -> SchemaRef {
    static SCHEMAS: LazyLock<[SchemaRef; Table::ALL.len()]> =
        LazyLock::new(|| Table::ALL.map(|table| Arc::new(Schema::new(file_fields(table)))));
    let [events, stream_counts, batch_counts, dead_letters, imports, audit_runs, audit_findings] = &*SCHEMAS;
    Arc::clone(match table {
        Table::Events => events,
        Table::StreamCounts => stream_counts,
        Table::BatchCounts => batch_counts,
        Table::DeadLetters => dead_letters,
        Table::Imports => imports,
        Table::AuditRuns => audit_runs,
        Table::AuditFindings => audit_findings,
    })
}

/// The Arrow schema of a whole table: its files' columns, then its partition columns.
#[must_use]
pub fn table_schema(table: Table) -> SchemaRef {
    let mut fields = file_fields(table);
    fields.extend(partition_fields(table));
    Arc::new(Schema::new(fields))
}

/// The partition columns with their types, in the order of [`Table::partition_columns`].
#[must_use]
pub fn partition_fields(table: Table) -> Vec<Field> {
    table
        .partition_columns()
        .iter()
        .map(|name| match *name {
            "event_date" | "received_date" | "run_date" => required(name, DataType::Date32),
            _ => required(name, DataType::Utf8),
        })
        .collect()
}

/// The schema of a whole table as Delta Lake stores it, in a version from 1 to [`schema_version`].
///
/// # Errors
/// [`TableError::Unusable`] if a type has no counterpart in Delta Lake; none of ours lacks one.
pub fn delta_schema(table: Table, version: u32) -> Result<StructType, TableError> {
    let whole = table_schema(table);
    let is_there = |field: &&Arc<Field>| version > 1 || field.name() != LATE_COLUMN;
    let fields = whole.fields().iter().filter(is_there).cloned();
    (&Schema::new(fields.collect::<Vec<_>>()))
        .try_into_kernel()
        .map_err(|source| TableError::Unusable { table: table.name(), reason: format!("its schema: {source}") })
}

fn file_fields(table: Table) -> Vec<Field> {
    match table {
        Table::Events => event_fields(),
        Table::StreamCounts => stream_fields(),
        Table::BatchCounts => count_fields(),
        Table::DeadLetters => dead_fields(),
        Table::Imports => import_fields(),
        Table::AuditRuns => audit_run_fields(),
        Table::AuditFindings => audit_finding_fields(),
    }
}

fn event_fields() -> Vec<Field> {
    vec![
        required("event_id", DataType::Utf8),
        required("event_type", DataType::Utf8),
        required("entity_id", DataType::Utf8),
        required("event_time", time_type()),
        optional("user_id", DataType::Utf8),
        optional("ip", DataType::Utf8),
        optional("country", DataType::Utf8),
        optional("value", VALUE_TYPE),
        optional("properties", DataType::Utf8),
        required("key_hash", DataType::Int64),
        required("received_at", time_type()),
        required("log_partition", DataType::Int32),
        required("log_offset", DataType::Int64),
        required("log_index", DataType::Int32),
    ]
}

/// A count row has no summary and a summary row no counts, so both halves can be null.
fn stream_fields() -> Vec<Field> {
    let place = [
        required("kind", DataType::Utf8),
        required("log_partition", DataType::Int32),
        required("segment_start", DataType::Int64),
        required("segment_end", DataType::Int64),
    ];
    let summary = [
        optional("accepted", DataType::Int64),
        optional("counted", DataType::Int64),
        optional("duplicate", DataType::Int64),
        optional("dead", DataType::Int64),
        optional("log_time", time_type()),
        optional("event_time_max", time_type()),
        optional("refill_offset", DataType::Int64),
        optional("refill_log_time", time_type()),
        optional("owner", DataType::Utf8),
    ];
    place.into_iter().chain(count_fields().into_iter().map(|field| field.with_nullable(true))).chain(summary).collect()
}

fn dead_fields() -> Vec<Field> {
    vec![
        required("received_at", time_type()),
        required("log_partition", DataType::Int32),
        required("log_offset", DataType::Int64),
        required("log_index", DataType::Int32),
        required("reason", DataType::Utf8),
        optional("field", DataType::Utf8),
        required("message", DataType::Utf8),
        optional("source", DataType::Utf8),
        optional("body", DataType::Binary),
        required("body_bytes", DataType::Int64),
        required("body_hash", DataType::Utf8),
    ]
}

fn import_fields() -> Vec<Field> {
    vec![
        required("file_hash", DataType::Utf8),
        required("mapping_hash", DataType::Utf8),
        required("name", DataType::Utf8),
        required("bytes", DataType::Int64),
        required("lines", DataType::Int64),
        required("finished", DataType::Boolean),
        required("updated_at", time_type()),
        required("counted", DataType::Int64),
        required("skipped", DataType::Int64),
        required("refused", DataType::Int64),
    ]
}

fn audit_run_fields() -> Vec<Field> {
    vec![
        required("run_id", DataType::Utf8),
        required("started_at", time_type()),
        required("finished_at", time_type()),
        required("verdict", DataType::Utf8),
        required("request", DataType::Utf8),
        required("events", DataType::Int64),
        required("errors", DataType::Int64),
        required("expected", DataType::Int64),
        required("code_version", DataType::Utf8),
        required("definition", DataType::Int64),
        required("configuration", DataType::Utf8),
        required("log", DataType::Utf8),
        required("files_hash", DataType::Utf8),
        optional("previous_run", DataType::Utf8),
        optional("previous_hash", DataType::Utf8),
        required("hash", DataType::Utf8),
        required("number", DataType::Int64),
        required("report", DataType::Utf8),
    ]
}

fn audit_finding_fields() -> Vec<Field> {
    vec![
        required("run_id", DataType::Utf8),
        required("number", DataType::Int64),
        required("class", DataType::Utf8),
        required("is_error", DataType::Boolean),
        required("table_name", DataType::Utf8),
        optional("file", DataType::Utf8),
        optional("log_partition", DataType::Int32),
        optional("offset_start", DataType::Int64),
        optional("offset_end", DataType::Int64),
        optional("event_date", DataType::Utf8),
        optional("granularity", DataType::Utf8),
        optional("minute", time_type()),
        optional("entity_id", DataType::Utf8),
        optional("event_type", DataType::Utf8),
        optional("dimensions", DataType::Utf8),
        optional("expected", DataType::Int64),
        optional("found", DataType::Int64),
        required("event_ids", DataType::Utf8),
        required("events", DataType::Int64),
        required("explanation", DataType::Utf8),
        required("action", DataType::Utf8),
        required("repair", DataType::Utf8),
        required("finished_at", time_type()),
    ]
}

fn required(name: &str, of: DataType) -> Field {
    Field::new(name, of, false)
}

fn optional(name: &str, of: DataType) -> Field {
    Field::new(name, of, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_leave_the_partition_columns_out_and_tables_have_them_last() {
        for table in Table::ALL {
            let (file, whole) = (file_schema(table), table_schema(table));
            assert_eq!(&whole.fields()[..file.fields().len()], &file.fields()[..], "{}", table.name());
            let last: Vec<&str> =
                whole.fields()[file.fields().len()..].iter().map(|field| field.name().as_str()).collect();
            assert_eq!(last, table.partition_columns());
        }
    }

    #[test]
    fn every_type_has_a_counterpart_in_delta_lake() {
        for table in Table::ALL {
            let delta = delta_schema(table, schema_version(table)).expect("a schema");
            assert_eq!(delta.fields().count(), table_schema(table).fields().len());
        }
    }

    #[test]
    fn stream_counts_hold_the_count_columns_as_nullable() {
        let stream = file_schema(Table::StreamCounts);
        for field in count_fields() {
            let found = stream.field_with_name(field.name()).expect("a count column");
            assert_eq!(found.data_type(), field.data_type());
            assert!(found.is_nullable());
        }
    }
}
