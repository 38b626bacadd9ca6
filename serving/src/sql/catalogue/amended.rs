//! What clients ask the catalogue for and `datafusion-pg-catalog` has not: some settings, the privileges of tables, and
//! what the vectors of an index hold.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int32Array, ListArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::datasource::{MemTable, TableProvider, ViewTable, provider_as_source};
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlanBuilder, ScalarUDF, Volatility, create_udf, lit};

/// Settings that clients look up by their name.
pub(super) const SETTINGS: [(&str, &str); 9] = [
    ("server_version", "16.6"),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("search_path", super::SCHEMA),
    ("timezone", "UTC"),
    ("max_index_keys", "32"),
    ("block_size", "8192"),
    ("standard_conforming_strings", "on"),
];

/// The catalogue's schema, its tables with what they lack.
#[derive(Debug)]
pub(super) struct Amended(pub(super) Arc<dyn SchemaProvider>);

#[async_trait]
impl SchemaProvider for Amended {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.0.table(name).await? else { return Ok(None) };
        let amended = match name.to_ascii_lowercase().as_str() {
            "pg_settings" => settings(table.schema())?,
            "pg_class" => with_privileges(table)?,
            _ => table,
        };
        Ok(Some(amended))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}

/// `pg_settings`: its columns with our settings, and null in all that says more of them.
fn settings(schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
    let column = |field: &FieldRef| -> ArrayRef {
        match field.name().as_str() {
            "name" => Arc::new(StringArray::from_iter_values(SETTINGS.map(|(name, _)| name))),
            "setting" => Arc::new(StringArray::from_iter_values(SETTINGS.map(|(_, value)| value))),
            _ => new_null_array(field.data_type(), SETTINGS.len()),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

/// `pg_class` with `relacl`: null, which is what a table has that nobody was granted anything on.
fn with_privileges(table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let scan = LogicalPlanBuilder::scan("pg_class", provider_as_source(table), None)?;
    let mut columns: Vec<Expr> = scan.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(lit(ScalarValue::Utf8(None)).alias("relacl"));
    Ok(Arc::new(ViewTable::new(scan.project(columns)?.build()?, None)))
}

/// The columns of an item of a vector: what it is, and its place.
fn item_columns() -> Fields {
    Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("n", DataType::Int32, true)])
}

fn item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(item_columns()), true))
}

/// `_pg_expandarray(vector)`: of a vector, which the catalogue has as the text `1 2`, a list of its items `x`, each with its
/// place `n`, from 1 on.
pub(super) fn expand_array() -> ScalarUDF {
    let expand = |arguments: &[ColumnarValue]| {
        let arguments = ColumnarValue::values_to_arrays(arguments)?;
        let vectors = arguments.first().and_then(|vectors| vectors.as_string_opt::<i32>());
        let vectors = vectors.ok_or_else(|| exec_datafusion_err!("_pg_expandarray takes a vector"))?;
        Ok(ColumnarValue::Array(Arc::new(expanded(vectors)?)))
    };
    let returned = DataType::List(item());
    create_udf("_pg_expandarray", vec![DataType::Utf8], returned, Volatility::Immutable, Arc::new(expand))
}

fn expanded(vectors: &StringArray) -> Result<ListArray> {
    let (mut items, mut places, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(vectors.len()));
    for vector in vectors {
        let before = items.len();
        for (place, item) in (1_i32..).zip(vector.unwrap_or_default().split_whitespace()) {
            items.push(item.parse::<i32>().ok());
            places.push(place);
        }
        lengths.push(items.len() - before);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(items)), Arc::new(Int32Array::from(places))];
    let values = StructArray::try_new(item_columns(), columns, None)?;
    Ok(ListArray::try_new(item(), OffsetBuffer::from_lengths(lengths), Arc::new(values), None)?)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn every_item_of_a_vector_has_its_place() {
        let lists = expanded(&StringArray::from(vec![Some("7 9"), None, Some(""), Some("12")])).unwrap();
        let lengths: Vec<i32> = (0..lists.len()).map(|row| lists.value_length(row)).collect();
        assert_eq!(lengths, [2, 0, 0, 1]);
        let column = |at: usize| lists.values().as_struct().column(at).as_primitive::<Int32Type>().values().to_vec();
        assert_eq!((column(0), column(1)), (vec![7, 9, 12], vec![1, 2, 1]));
    }
}
