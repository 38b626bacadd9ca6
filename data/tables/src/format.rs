//! What a table must be to be one of ours, and how one is made.

use deltalake_core::kernel::{Action, CommitInfo, Metadata, MetadataExt as _, Protocol, new_metadata};
use reckon_data::clock::Clock;
use reckon_data::table::{Table, TableError};
use serde_json::json;

use crate::schema::{delta_schema, schema_version};

/// Delta protocol that is read and written: no features beyond the first ones.
const READER_VERSION: i32 = 1;
/// See [`READER_VERSION`].
const WRITER_VERSION: i32 = 2;

/// The table property that says which version of our schemas a table has.
const SCHEMA_PROPERTY: &str = "reckon.schema";

/// The operation that makes a table.
pub(crate) const CREATION: &str = "CREATE TABLE";

pub(crate) fn unusable(table: Table, reason: impl Into<String>) -> TableError {
    TableError::Unusable { table: table.name(), reason: reason.into() }
}

pub(crate) fn storage(table: Table, reason: impl ToString) -> TableError {
    TableError::Storage { table: table.name(), reason: reason.to_string() }
}

/// The actions that create a table.
pub(crate) fn creation(table: Table, clock: &dyn Clock) -> Result<Vec<Action>, TableError> {
    let failed = |error: &dyn std::fmt::Display| unusable(table, format!("it cannot be described: {error}"));
    let protocol: Protocol =
        serde_json::from_value(json!({ "minReaderVersion": READER_VERSION, "minWriterVersion": WRITER_VERSION }))
            .map_err(|error| failed(&error))?;
    let version = schema_version(table);
    let properties = [(SCHEMA_PROPERTY, version.to_string())];
    let metadata = new_metadata(&delta_schema(table, version)?, table.partition_columns(), properties)
        .and_then(|metadata| metadata.with_name(table.name().to_owned()))
        .map_err(|error| failed(&error))?;
    let info = CommitInfo {
        timestamp: Some(clock.now().div_euclid(1_000)),
        operation: Some(CREATION.to_owned()),
        engine_info: Some(engine_info()),
        ..CommitInfo::default()
    };
    Ok(vec![Action::CommitInfo(info), Action::Protocol(protocol), Action::Metadata(metadata)])
}

/// Who writes, for the tables' history.
pub(crate) fn engine_info() -> String {
    format!("reckon/{}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn verify_protocol(table: Table, protocol: &Protocol) -> Result<(), TableError> {
    let (reader, writer) = (protocol.min_reader_version(), protocol.min_writer_version());
    if reader > READER_VERSION || writer > WRITER_VERSION {
        return Err(unusable(
            table,
            format!(
                "it asks for Delta protocol {reader} to read and {writer} to write; \
                 this program knows {READER_VERSION} and {WRITER_VERSION}"
            ),
        ));
    }
    Ok(())
}

/// Holds a table to what this program knows. What comes back is the metadata that the next commit has to bring, where
/// an older program has made the table.
pub(crate) fn verify_metadata(table: Table, metadata: &Metadata) -> Result<Option<Metadata>, TableError> {
    let (known, text) = (schema_version(table), metadata.configuration().get(SCHEMA_PROPERTY));
    let Some(text) = text else {
        return Err(unusable(table, format!("it is not ours: property {SCHEMA_PROPERTY} is missing")));
    };
    let Some(version) = text.parse().ok().filter(|version| (1..=known).contains(version)) else {
        return Err(unusable(
            table,
            format!("it has version {text} of its schema; this program knows versions up to {known}"),
        ));
    };
    if metadata.partition_columns() != table.partition_columns() {
        return Err(unusable(table, format!("it is partitioned by {:?}", metadata.partition_columns())));
    }
    let found = metadata.parse_schema().map_err(|error| unusable(table, format!("its schema: {error}")))?;
    if found != delta_schema(table, version)? {
        return Err(unusable(table, "its columns are not those of this program"));
    }
    if version == known { Ok(None) } else { upgraded(table, metadata).map(Some) }
}

fn upgraded(table: Table, metadata: &Metadata) -> Result<Metadata, TableError> {
    let version = schema_version(table);
    let schema = delta_schema(table, version)?;
    metadata
        .clone()
        .with_schema(&schema)
        .and_then(|metadata| metadata.add_config_key(SCHEMA_PROPERTY.to_owned(), version.to_string()))
        .map_err(|error| unusable(table, format!("its schema cannot be made version {version}: {error}")))
}
