//! An answer on its way: rows as they are made, their provenance in front of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reckon_serving::sql::SqlStream;
use reckon_serving::view::Provenance;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::metrics::FlightMetrics;
use crate::running::Run;
use crate::status::{internal, status};
use crate::{COMPLETE_HEADER, PROVENANCE_KEY};

/// What DoGet answers with.
pub type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send + 'static>>;

/// An answer on its way. Dropping it, as happens when the client goes away, ends the query.
pub struct Answer {
    /// Its rows.
    pub stream: SqlStream,
    /// What cancels it.
    pub run: Run,
    /// Its place among those that may be sent at once, until it is dropped.
    pub _turn: OwnedSemaphorePermit,
    /// What counts it.
    pub metrics: Arc<FlightMetrics>,
}

struct Sending {
    answer: Answer,
    schema: SchemaRef,
    ended: bool,
}

impl Answer {
    /// Its messages.
    ///
    /// # Errors
    /// When its provenance cannot be written.
    pub fn messages(self) -> Result<Messages, Status> {
        let schema = Arc::new(plain_schema(&self.stream.schema));
        let provenance = serde_json::to_string(&self.stream.provenance).map_err(internal)?;
        let told = with_provenance(&schema, &self.stream.provenance, provenance.clone());
        self.metrics.begun();
        let sending = Sending { answer: self, schema, ended: false };
        let batches = stream::unfold(sending, |mut sending| async move {
            let batch = sending.next().await?;
            Some((batch, sending))
        });
        let encoder = FlightDataEncoderBuilder::new().with_schema(Arc::new(told)).with_metadata(provenance.into());
        Ok(encoder.build(batches).map_err(Status::from).boxed())
    }
}

impl Sending {
    async fn next(&mut self) -> Option<Result<RecordBatch, FlightError>> {
        if self.ended {
            return None;
        }
        let next = tokio::select! {
            biased;
            () = self.answer.run.cancelled() => Some(Err(Status::cancelled("the query was cancelled"))),
            next = self.answer.stream.next() => next.map(|batch| batch.map_err(|error| status(&error))),
        };
        let next = next.map(|batch| batch.and_then(|batch| plain(&batch, &self.schema).map_err(internal)));
        match &next {
            Some(Ok(batch)) => self.answer.metrics.sent(batch.num_rows()),
            Some(Err(status)) => {
                self.answer.metrics.failed(status.code());
                self.ended = true;
            }
            None => self.ended = true,
        }
        next.map(|batch| batch.map_err(FlightError::from))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.answer.metrics.ended();
    }
}

/// One batch that is there already, as messages.
pub fn whole(batch: RecordBatch) -> Messages {
    let encoder = FlightDataEncoderBuilder::new().with_schema(batch.schema());
    encoder.build(stream::iter([Ok(batch)])).map_err(Status::from).boxed()
}

fn with_provenance(schema: &Schema, provenance: &Provenance, text: String) -> Schema {
    let mut metadata: HashMap<String, String> = schema.metadata().clone();
    metadata.insert(COMPLETE_HEADER.to_owned(), provenance.complete.to_string());
    metadata.insert(PROVENANCE_KEY.to_owned(), text);
    Schema::new_with_metadata(schema.fields().clone(), metadata)
}

/// A schema in types that every client knows: many do not know views of texts yet, and dictionaries change from batch to
/// batch.
pub fn plain_schema(schema: &Schema) -> Schema {
    let fields: Vec<Field> = schema.fields().iter().map(|field| plain_field(field)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()).with_metadata(field.metadata().clone())
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(item) => DataType::List(Arc::new(plain_field(item))),
        other => other.clone(),
    }
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    // A batch may have rows and no columns.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray as _, DictionaryArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;
    use arrow_flight::decode::FlightRecordBatchStream;

    use super::*;

    fn batch() -> RecordBatch {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a long text that is kept apart", "b"]));
        let dictionary: ArrayRef = Arc::new(["x", "x"].into_iter().collect::<DictionaryArray<Int32Type>>());
        RecordBatch::try_from_iter([("view", view), ("dictionary", dictionary)]).unwrap()
    }

    #[test]
    fn types_that_few_clients_know_are_not_sent() {
        let batch = batch();
        let schema = Arc::new(plain_schema(&batch.schema()));
        assert!(schema.fields().iter().all(|field| *field.data_type() == DataType::Utf8), "{schema}");
        let sent = plain(&batch, &schema).unwrap();
        assert_eq!(sent.column(0).as_string::<i32>().value(0), "a long text that is kept apart");
        assert_eq!(sent.column(1).as_string::<i32>().value(1), "x");
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)));
        let expected = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        assert_eq!(plain_type(&list), expected);
    }

    #[test]
    fn rows_without_columns_are_rows() {
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let schema = Arc::new(Schema::empty());
        let none = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
        assert_eq!(plain(&none, &schema).unwrap().num_rows(), 3);
    }

    #[tokio::test]
    async fn one_batch_is_messages() {
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let batch = RecordBatch::try_from_iter([("name", column)]).unwrap();
        let messages = whole(batch.clone()).map_err(FlightError::from);
        let read: Vec<RecordBatch> =
            FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await.unwrap();
        assert_eq!(read, [batch]);
    }
}
