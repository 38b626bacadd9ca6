//! A pinned table on its way to another machine.

use std::any::Any;
use std::sync::Arc;

use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, TableReference, exec_datafusion_err, not_impl_err};
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Extension, LogicalPlan, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use object_store::ObjectStore;
use reckon_batch::recompute::{read_function, write_function};
use reckon_data::table::Table;
use reckon_tables::provider::{Piece, PinnedTable};
use reckon_tables::schema::file_schema;
use serde::{Deserialize, Serialize};

/// Writes and reads the tables of queries; everything else is Ballista's own.
#[derive(Debug)]
pub struct TableCodec {
    store: Arc<dyn ObjectStore>,
    inner: BallistaLogicalExtensionCodec,
}

/// The list of files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    table: Table,
    pieces: Vec<Piece>,
}

impl TableCodec {
    /// A codec of tables whose files lie in `store`, rooted at the tables' folder.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, inner: BallistaLogicalExtensionCodec::default() }
    }
}

impl LogicalExtensionCodec for TableCodec {
    fn try_decode(&self, buf: &[u8], inputs: &[LogicalPlan], context: &TaskContext) -> Result<Extension> {
        self.inner.try_decode(buf, inputs, context)
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        self.inner.try_encode(node, buf)
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        name: &TableReference,
        _schema: SchemaRef,
        _context: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let sent: Sent = serde_json::from_slice(buf)
            .map_err(|error| exec_datafusion_err!("the files of {name} cannot be read: {error}"))?;
        let schema = file_schema(sent.table);
        let table = PinnedTable::of_pieces(Arc::clone(&self.store), sent.table, sent.pieces, &schema)?;
        Ok(Arc::new(table.without_views()))
    }

    fn try_encode_table_provider(
        &self,
        name: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(table) = (node.as_ref() as &dyn Any).downcast_ref::<PinnedTable>() else {
            return not_impl_err!("{name} is no list of files, and only those are sent to other machines");
        };
        let sent = Sent { table: table.table(), pieces: table.pieces().cloned().collect() };
        serde_json::to_writer(buf, &sent)
            .map_err(|error| exec_datafusion_err!("the files of {name} cannot be written: {error}"))
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        read_function(name, buf)
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        write_function(node, buf);
        Ok(())
    }

    fn try_decode_file_format(&self, buf: &[u8], context: &TaskContext) -> Result<Arc<dyn FileFormatFactory>> {
        self.inner.try_decode_file_format(buf, context)
    }

    fn try_encode_file_format(&self, buf: &mut Vec<u8>, node: Arc<dyn FileFormatFactory>) -> Result<()> {
        self.inner.try_encode_file_format(buf, node)
    }
}

/// Writes and reads the functions of plans that are not known by name; everything else is Ballista's own.
#[derive(Debug, Default)]
pub struct FunctionCodec(BallistaPhysicalExtensionCodec);

impl PhysicalExtensionCodec for FunctionCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.try_decode(buf, inputs, context, converter)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        self.0.try_encode(node, buf, converter)
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        read_function(name, buf)
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        write_function(node, buf);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use datafusion::arrow::array::AsArray as _;
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::SessionContext;
    use datafusion_proto::bytes::{
        logical_plan_from_bytes_with_extension_codec, logical_plan_to_bytes_with_extension_codec,
        physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
    };
    use object_store::memory::InMemory;
    use reckon_data::table::DataFile;

    use super::*;

    #[test]
    fn a_table_arrives_as_it_was_sent() {
        let codec = TableCodec::new(Arc::new(InMemory::new()));
        let file = DataFile {
            path: "event_date=2024-01-10/a%20b.parquet".to_owned(),
            bytes: 10,
            rows: 3,
            partition: BTreeMap::from([("event_date".to_owned(), Some("2024-01-10".to_owned()))]),
            min: BTreeMap::from([("log_offset".to_owned(), 1.into())]),
            max: BTreeMap::new(),
        };
        let pieces = vec![Piece { file: file.clone(), bytes: Some(0..5) }, Piece { file, bytes: None }];
        let schema = file_schema(Table::Events);
        let table = PinnedTable::of_pieces(Arc::clone(&codec.store), Table::Events, pieces.clone(), &schema).unwrap();
        let (name, mut sent) = (TableReference::bare("events"), Vec::new());
        codec.try_encode_table_provider(&name, Arc::new(table), &mut sent).unwrap();
        let context = TaskContext::default();
        let arrived = codec.try_decode_table_provider(&sent, &name, schema, &context).unwrap();
        let arrived = (arrived.as_ref() as &dyn Any).downcast_ref::<PinnedTable>().unwrap();
        assert_eq!(arrived.table(), Table::Events);
        assert_eq!(arrived.pieces().cloned().collect::<Vec<_>>(), pieces);
    }

    #[tokio::test]
    async fn the_hashes_of_a_query_go_with_it() {
        // Exact; of three rows; the hashes 5 and 8.
        let written: Vec<u8> =
            [1].into_iter().chain([3_u64, 5, 8].into_iter().flat_map(|word| word.to_le_bytes())).collect();
        let function = read_function("repeated", &written).unwrap();
        let session = SessionContext::new();
        session.register_udf((*function).clone());
        let sql = "SELECT column1 FROM (VALUES (4), (5), (7), (8)) AS t WHERE repeated(column1)";
        let plan = session.sql(sql).await.unwrap().into_optimized_plan().unwrap();

        // Whoever gets it knows no such function by name.
        let other = SessionContext::new();
        let codec = TableCodec::new(Arc::new(InMemory::new()));
        let sent = logical_plan_to_bytes_with_extension_codec(&plan, &codec).unwrap();
        let plan = logical_plan_from_bytes_with_extension_codec(&sent, &other.task_ctx(), &codec).unwrap();
        let plan = other.state().create_physical_plan(&plan).await.unwrap();
        let codec = FunctionCodec::default();
        let sent = physical_plan_to_bytes_with_extension_codec(plan, &codec).unwrap();
        let plan = physical_plan_from_bytes_with_extension_codec(&sent, &other.task_ctx(), &codec).unwrap();
        let found = collect(plan, other.task_ctx()).await.unwrap();
        let found: Vec<i64> =
            found.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(found, [5, 8]);
        assert!(codec.try_decode_udf("repeated", &written[1..]).is_err(), "what is no such set is refused");
        assert!(codec.try_decode_udf("another", &written).is_err());
    }
}
