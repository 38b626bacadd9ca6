//! What the server can, which types it has, and that there are no keys.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
};

/// The format that Arrow's columns are sent in.
const ARROW_VERSION: &str = "1.5";

/// What the server can.
///
/// # Errors
/// None that can be caused from outside.
pub fn sql_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Reckon");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // They are told apart by case, for which the protocol has no word.
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.build()
}

/// The types of columns.
///
/// # Errors
/// None that can be caused from outside.
pub fn types() -> Result<XdbcTypeInfoData, FlightError> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, kind, size, quotes) in [
        ("BOOLEAN", XdbcDataType::XdbcBit, 1, false),
        ("INTEGER", XdbcDataType::XdbcInteger, 32, false),
        ("BIGINT", XdbcDataType::XdbcBigint, 64, false),
        ("DOUBLE", XdbcDataType::XdbcDouble, 53, false),
        ("DECIMAL", XdbcDataType::XdbcDecimal, 38, false),
        ("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX, true),
        ("BYTEA", XdbcDataType::XdbcVarbinary, i32::MAX, true),
        ("DATE", XdbcDataType::XdbcDate, 10, true),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, 29, true),
    ] {
        let quote = quotes.then(|| "'".to_owned());
        let is_number = matches!(
            kind,
            XdbcDataType::XdbcInteger | XdbcDataType::XdbcBigint | XdbcDataType::XdbcDouble | XdbcDataType::XdbcDecimal
        );
        let is_decimal = matches!(kind, XdbcDataType::XdbcDecimal);
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type: kind,
            column_size: Some(size),
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            nullable: Nullable::NullabilityNullable,
            case_sensitive: matches!(kind, XdbcDataType::XdbcVarchar),
            searchable: Searchable::Full,
            unsigned_attribute: is_number.then_some(false),
            fixed_prec_scale: false,
            auto_increment: is_number.then_some(false),
            local_type_name: Some(name.to_owned()),
            minimum_scale: is_decimal.then_some(0),
            maximum_scale: is_decimal.then_some(38),
            sql_data_type: kind,
            num_prec_radix: is_number.then_some(if is_decimal { 10 } else { 2 }),
            ..XdbcTypeInfo::default()
        });
    }
    types.build()
}

/// No primary keys.
pub fn primary_keys() -> RecordBatch {
    RecordBatch::new_empty(Arc::clone(&PRIMARY_KEYS))
}

/// No keys of other tables, neither in one direction nor in the other.
pub fn foreign_keys() -> RecordBatch {
    RecordBatch::new_empty(Arc::clone(&FOREIGN_KEYS))
}

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_what_it_can() {
        let info = sql_info().unwrap();
        assert!(info.record_batch([]).unwrap().num_rows() > 10);
        let read_only = info.record_batch([SqlInfo::FlightSqlServerReadOnly as u32]).unwrap();
        assert_eq!(read_only.num_rows(), 1);
    }

    #[test]
    fn types_are_listed_and_asked_for_one_by_one() {
        let types = types().unwrap();
        assert_eq!(types.record_batch(None).unwrap().num_rows(), 9);
        let bigint = types.record_batch(Some(XdbcDataType::XdbcBigint as i32)).unwrap();
        assert_eq!(bigint.num_rows(), 1);
    }

    #[test]
    fn there_are_no_keys() {
        assert_eq!((primary_keys().num_rows(), primary_keys().num_columns()), (0, 6));
        assert_eq!((foreign_keys().num_rows(), foreign_keys().num_columns()), (0, 13));
    }
}
