//! Schemas and tables, as SQL itself describes them: whatever a query can name is there.

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tonic::Status;

use crate::status::internal;

/// What asks for all tables.
pub const TABLES: &str = "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables";
/// The types of tables, as clients know them.
pub const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];
/// Schemas that describe the others.
const OF_THE_SYSTEM: [&str; 2] = ["information_schema", "pg_catalog"];

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its catalog.
    pub catalog: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// One of [`TABLE_TYPES`].
    pub kind: &'static str,
}

impl Listed {
    /// A query for all of it, of which only the columns are wanted.
    pub fn query(&self) -> String {
        format!("SELECT * FROM {}.{}.{}", quoted(&self.catalog), quoted(&self.schema), quoted(&self.name))
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tables in the answers to [`TABLES`].
///
/// # Errors
/// None that can be caused from outside.
pub fn read(batches: &[RecordBatch]) -> Result<Vec<Listed>, Status> {
    let mut tables = Vec::new();
    for batch in batches {
        let texts = batch.columns().iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<Vec<_>, _>>();
        let texts = texts.map_err(internal)?;
        let texts: Vec<&StringArray> = texts.iter().filter_map(|column| column.as_string_opt::<i32>()).collect();
        let [catalogs, schemas, names, kinds] = texts[..] else {
            return Err(internal("the list of tables has other columns"));
        };
        let rows = (0..batch.num_rows()).filter(|row| !names.is_null(*row));
        tables.extend(rows.map(|row| Listed {
            catalog: catalogs.value(row).to_owned(),
            schema: schemas.value(row).to_owned(),
            name: names.value(row).to_owned(),
            kind: kind(schemas.value(row), kinds.value(row)),
        }));
    }
    tables.sort();
    tables.dedup();
    Ok(tables)
}

fn kind(schema: &str, kind: &str) -> &'static str {
    match kind {
        _ if OF_THE_SYSTEM.contains(&schema) => "SYSTEM TABLE",
        "VIEW" => "VIEW",
        _ => "TABLE",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringViewArray};

    use super::*;

    #[test]
    fn tables_are_read_and_sorted() {
        let column = |values: [&str; 3]| Arc::new(StringViewArray::from(values.to_vec())) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("table_catalog", column(["c", "c", "c"])),
            ("table_schema", column(["public", "public", "information_schema"])),
            ("table_name", column(["stats", "events", "tables"])),
            ("table_type", column(["VIEW", "BASE TABLE", "VIEW"])),
        ]);
        let tables = read(&[batch.unwrap()]).unwrap();
        let told: Vec<(&str, &str)> = tables.iter().map(|table| (table.name.as_str(), table.kind)).collect();
        assert_eq!(told, [("tables", "SYSTEM TABLE"), ("events", "TABLE"), ("stats", "VIEW")]);
        assert!(told.iter().all(|(_, kind)| TABLE_TYPES.contains(kind)));
        assert_eq!(tables[1].query(), "SELECT * FROM \"c\".\"public\".\"events\"");
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
