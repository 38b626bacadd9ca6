//! Tables whose batches are made as they are read.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use reckon_data::offload::offload_future;
use tokio::sync::mpsc::Sender;

/// Rows of a batch.
pub const BATCH_ROWS: usize = 8_192;
/// Batches made ahead.
const AHEAD: usize = 2;

/// The batches that `make` sends, made a few ahead of whoever reads them, on a thread where that holds up nobody. When
/// one cannot be sent, nobody reads any further.
pub fn made_ahead<F>(
    schema: &SchemaRef,
    make: impl FnOnce(Sender<Result<RecordBatch>>) -> F,
) -> SendableRecordBatchStream
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut builder = RecordBatchReceiverStream::builder(Arc::clone(schema), AHEAD);
    let made = make(builder.tx());
    builder.spawn(async move {
        offload_future(made).await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
    });
    builder.build()
}
