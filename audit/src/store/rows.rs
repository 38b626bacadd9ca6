//! A report as rows of the two tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use reckon_data::event::time::parse_rfc3339;
use reckon_data::minute::{date_of, format_date};
use reckon_data::table::Table;
use reckon_tables::schema::file_schema;
use serde::Serialize;

use super::StoreError;
use super::seal::Sealed;
use crate::finding::Finding;
use crate::report::model::Report;

/// The row of a run in `audit_runs`.
pub fn run_batch(report: &Report, sealed: &Sealed, number: u64) -> Result<RecordBatch, StoreError> {
    let optional = |text: Option<String>| -> ArrayRef { Arc::new(StringArray::from_iter([text])) };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values([text])) };
    let count = |number: u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values([whole(number)])) };
    let time =
        |name: &str, text: &str| -> Result<ArrayRef, StoreError> { Ok(times([Some(time_of(report, name, text)?)])) };
    build(report, Table::AuditRuns, |name| {
        let column: ArrayRef = match name {
            "run_id" => text(&report.run_id.to_string()),
            "started_at" => time(name, &report.started_at)?,
            "finished_at" => time(name, &report.finished_at)?,
            "verdict" => text(&name_of(&report.verdict)),
            "request" => text(&json_of(&report.request)),
            "events" => count(report.events()),
            "errors" => count(report.errors()),
            "expected" => count(report.expected()),
            "code_version" => text(&report.code_version),
            "definition" => count(report.definition),
            "configuration" => text(&report.configuration),
            "log" => text(&report.log.to_string()),
            "files_hash" => text(&report.files_hash),
            "previous_run" => optional(report.previous.as_ref().map(|previous| previous.run_id.to_string())),
            "previous_hash" => optional(report.previous.as_ref().map(|previous| previous.hash.clone())),
            "hash" => text(&sealed.hash),
            "number" => count(number),
            "report" => text(&sealed.text),
            other => return Err(unknown(report, other)),
        };
        Ok(column)
    })
}

/// The rows of a report's findings in `audit_findings`.
pub fn findings_batch(report: &Report) -> Result<RecordBatch, StoreError> {
    let findings = &report.findings;
    let finished = time_of(report, "finished_at", &report.finished_at)?;
    let text =
        |get: fn(&Finding) -> Option<&str>| -> ArrayRef { Arc::new(findings.iter().map(get).collect::<StringArray>()) };
    let owned =
        |get: fn(&Finding) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(findings.iter().map(get))) };
    let number =
        |get: fn(&Finding) -> Option<i64>| -> ArrayRef { Arc::new(findings.iter().map(get).collect::<Int64Array>()) };
    let partition = |finding: &Finding| Some(i32::try_from(finding.partition?).unwrap_or(i32::MAX));
    build(report, Table::AuditFindings, |name| {
        let column: ArrayRef = match name {
            "run_id" => Arc::new(StringArray::from(vec![report.run_id.to_string(); findings.len()])),
            "number" => Arc::new(Int64Array::from_iter_values((0_i64..).take(findings.len()))),
            "class" => text(|finding| Some(finding.class.name())),
            "is_error" => {
                Arc::new(findings.iter().map(|finding| Some(!finding.class.is_expected())).collect::<BooleanArray>())
            }
            "table_name" => text(|finding| Some(finding.table.as_str())),
            "file" => text(|finding| finding.file.as_deref()),
            "log_partition" => Arc::new(findings.iter().map(partition).collect::<Int32Array>()),
            "offset_start" => number(|finding| finding.offset_start.map(whole)),
            "offset_end" => number(|finding| finding.offset_end.map(whole)),
            "event_date" => text(|finding| finding.date.as_deref()),
            "granularity" => text(|finding| finding.granularity.as_deref()),
            // What is no time stands in the report only: it is not worth losing that.
            "minute" => times(findings.iter().map(|finding| parse_rfc3339(finding.minute.as_deref()?))),
            "entity_id" => text(|finding| finding.entity_id.as_deref()),
            "event_type" => text(|finding| finding.event_type.as_deref()),
            "dimensions" => text(|finding| finding.dimensions.as_deref()),
            "expected" => number(|finding| finding.expected),
            "found" => number(|finding| finding.found),
            "event_ids" => owned(|finding| json_of(&finding.event_ids)),
            "events" => number(|finding| Some(whole(finding.events))),
            "explanation" => text(|finding| Some(finding.explanation.as_str())),
            "action" => text(|finding| Some(finding.action.as_str())),
            "repair" => owned(|finding| name_of(&finding.repair)),
            "finished_at" => times(findings.iter().map(|_| Some(finished))),
            other => return Err(unknown(report, other)),
        };
        Ok(column)
    })
}

/// The `run_date` that a report's rows belong to: the day on which it was finished.
pub fn run_date(report: &Report) -> Result<String, StoreError> {
    Ok(format_date(date_of(time_of(report, "finished_at", &report.finished_at)?)))
}

/// A text of the only row of a batch; none where it is null.
pub fn text<'a>(row: &'a RecordBatch, column: &str) -> Option<&'a str> {
    row.column_by_name(column)?.as_string_opt::<i32>()?.iter().next()?
}

/// A whole number of the only row of a batch; none where it is null.
pub fn number(row: &RecordBatch, column: &str) -> Option<i64> {
    row.column_by_name(column)?.as_primitive_opt::<Int64Type>()?.iter().next()?
}

/// A time of the only row of a batch, microseconds; none where it is null.
pub fn time(row: &RecordBatch, column: &str) -> Option<i64> {
    row.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?.iter().next()?
}

fn build(
    report: &Report,
    table: Table,
    column: impl Fn(&str) -> Result<ArrayRef, StoreError>,
) -> Result<RecordBatch, StoreError> {
    let schema = file_schema(table);
    let columns = schema.fields().iter().map(|field| column(field.name()));
    let columns = columns.collect::<Result<Vec<ArrayRef>, StoreError>>()?;
    RecordBatch::try_new(schema, columns)
        .map_err(|error| StoreError::Unfit { run_id: report.run_id, reason: error.to_string() })
}

fn unknown(report: &Report, column: &str) -> StoreError {
    let reason = format!("its table has a column {column}, of which a report says nothing");
    StoreError::Unfit { run_id: report.run_id, reason }
}

fn time_of(report: &Report, name: &str, text: &str) -> Result<i64, StoreError> {
    let reason = || format!("{name} is {text:?}, which is no time");
    parse_rfc3339(text).ok_or_else(|| StoreError::Unfit { run_id: report.run_id, reason: reason() })
}

fn times(micros: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(micros.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// Columns have no sign to spare; the report says it exactly.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn json_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The name that JSON has for a value without fields.
fn name_of(value: &impl Serialize) -> String {
    json_of(value).trim_matches('"').to_owned()
}
