//! The values of `$1`, `$2`, …: one row, as a client has sent it.

use std::pin::pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::root_as_message;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::utils::batches_to_flight_data;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;

use crate::status::{internal, invalid};

/// Longest parameters, in bytes.
pub const PARAMETERS_BYTES_MAX: usize = 1 << 20;
/// Most messages that they may come in: a schema, dictionaries, and one batch.
const MESSAGES_MAX: usize = 64;
const PARAMETERS: &str = "parameters";

/// Takes in what a client sends for parameters.
///
/// # Errors
/// When it is too much, or compressed.
pub async fn receive(sent: impl Stream<Item = Result<FlightData, Status>>) -> Result<Vec<FlightData>, Status> {
    let mut sent = pin!(sent);
    let (mut messages, mut bytes, mut number) = (Vec::new(), 0, 0);
    while let Some(message) = sent.next().await {
        let FlightData { data_header, data_body, .. } = message?;
        number += 1;
        bytes += data_header.len() + data_body.len();
        if number > MESSAGES_MAX || bytes > PARAMETERS_BYTES_MAX {
            let most = format!("they may have {PARAMETERS_BYTES_MAX} bytes in {MESSAGES_MAX} messages, not more");
            return Err(invalid(PARAMETERS, most));
        }
        // A message may hold nothing but the command.
        if data_header.is_empty() {
            continue;
        }
        if is_compressed(&data_header) {
            return Err(invalid(PARAMETERS, "they are compressed: send them as they are"));
        }
        messages.push(FlightData::new().with_data_header(data_header).with_data_body(data_body));
    }
    Ok(messages)
}

/// What is compressed says itself how long it is, and could say that it is longer than there is memory.
fn is_compressed(header: &[u8]) -> bool {
    let Ok(message) = root_as_message(header) else { return false };
    let dictionary = || message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let batch = message.header_as_record_batch().or_else(dictionary);
    batch.is_some_and(|batch| batch.compression().is_some())
}

/// The values that messages hold, in order; none when there are no messages.
///
/// # Errors
/// When they cannot be read, or are more than one row.
pub async fn values(messages: Vec<FlightData>) -> Result<Vec<ScalarValue>, Status> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    if messages.iter().any(|message| is_compressed(&message.data_header)) {
        return Err(invalid(PARAMETERS, "they are compressed: send them as they are"));
    }
    // Arrow's decoder panics at some of what is damaged: then the task ends, and nothing else.
    let decoded = tokio::spawn(decode(messages)).await;
    decoded.map_err(|_| invalid(PARAMETERS, "they cannot be read as a record batch"))?
}

async fn decode(messages: Vec<FlightData>) -> Result<Vec<ScalarValue>, Status> {
    let messages = stream::iter(messages.into_iter().map(Ok::<_, FlightError>));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut row: Option<RecordBatch> = None;
    let unreadable = |error: FlightError| invalid(PARAMETERS, format!("they cannot be read: {error}"));
    while let Some(batch) = batches.try_next().await.map_err(unreadable)? {
        if batch.num_rows() == 0 {
            continue;
        }
        if row.is_some() || batch.num_rows() > 1 {
            return Err(invalid(PARAMETERS, "there are several rows of them: execute the statement once for each"));
        }
        row = Some(batch);
    }
    let Some(row) = row else { return Ok(Vec::new()) };
    let values = row.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
    values.collect::<Result<_, _>>().map_err(|error: DataFusionError| invalid(PARAMETERS, error.strip_backtrace()))
}

/// Makes sure that a query has all its parameters.
///
/// # Errors
/// When there are more of them, or fewer.
pub fn check(given: usize, types: &[Option<DataType>]) -> Result<(), Status> {
    if given == types.len() {
        return Ok(());
    }
    Err(invalid(PARAMETERS, format!("the query has {}, and values were given for {given}", types.len())))
}

/// The messages of a handle that hold these values, each as the type that the query takes, or as it is where it would be
/// another value then: `count >= 2.5` is not `count >= 2`.
///
/// # Errors
/// When they are not as many as the query has, or one is of a type that does not become the right one.
pub fn bind(values: Vec<ScalarValue>, types: &[Option<DataType>]) -> Result<Vec<FlightData>, Status> {
    check(values.len(), types)?;
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (number, (value, expected)) in (1..).zip(values.into_iter().zip(types)) {
        let wrong = |error: DataFusionError| invalid(PARAMETERS, format!("${number}: {}", error.strip_backtrace()));
        let value = match expected {
            Some(expected) => {
                let cast = value.cast_to(expected).map_err(wrong)?;
                if is_same(&value, &cast) { cast } else { value }
            }
            None => value,
        };
        fields.push(Field::new(format!("${number}"), value.data_type(), true));
        columns.push(value.to_array().map_err(wrong)?);
    }
    let row = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)?;
    let messages = batches_to_flight_data(&row.schema(), vec![row]).map_err(internal)?;
    let bytes: usize = messages.iter().map(|message| message.data_header.len() + message.data_body.len()).sum();
    if bytes > PARAMETERS_BYTES_MAX {
        return Err(invalid(PARAMETERS, format!("they have {bytes} bytes, the limit is {PARAMETERS_BYTES_MAX}")));
    }
    Ok(messages)
}

/// Whether a value is what it was; a text that could be read is.
fn is_same(value: &ScalarValue, cast: &ScalarValue) -> bool {
    let kind = value.data_type();
    kind.is_string() || cast.cast_to(&kind).is_ok_and(|back| back == *value)
}

/// What a client is told of a query's parameters. One whose type nothing says is a text until a value comes.
pub fn schema(types: &[Option<DataType>]) -> Schema {
    let field = |(number, kind): (usize, &Option<DataType>)| {
        Field::new(format!("${number}"), kind.clone().unwrap_or(DataType::Utf8), true)
    };
    Schema::new((1..).zip(types).map(field).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn message(values: Vec<ScalarValue>) -> Vec<FlightData> {
        let types = vec![None; values.len()];
        bind(values, &types).unwrap()
    }

    #[tokio::test]
    async fn values_go_into_a_handle_and_out_of_it() {
        let values_in = vec![ScalarValue::from("a"), ScalarValue::Int64(Some(7)), ScalarValue::Float64(None)];
        let sent = stream::iter(message(values_in.clone()).into_iter().map(Ok));
        let received = receive(sent).await.unwrap();
        assert_eq!(values(received).await.unwrap(), values_in);
        assert!(values(Vec::new()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn values_become_what_the_query_takes() {
        let types = [Some(DataType::UInt64), None];
        let bound = bind(vec![ScalarValue::Int32(Some(5)), ScalarValue::from("x")], &types).unwrap();
        assert_eq!(bound.len(), 2, "a schema and a row");
        let negative = bind(vec![ScalarValue::Int32(Some(-5)), ScalarValue::from("x")], &types).unwrap_err();
        assert!(negative.message().starts_with("parameters: $1: "), "{negative}");
        let types = [Some(DataType::Int64), Some(DataType::Decimal128(38, 6))];
        let exact = bind(vec![ScalarValue::Float64(Some(2.0)), ScalarValue::Float64(Some(0.25))], &types).unwrap();
        let expected = [ScalarValue::Int64(Some(2)), ScalarValue::Decimal128(Some(250_000), 38, 6)];
        assert_eq!(values(exact).await.unwrap(), expected);
        let others = vec![ScalarValue::Float64(Some(2.5)), ScalarValue::Float64(Some(0.000_000_4))];
        assert_eq!(values(bind(others.clone(), &types).unwrap()).await.unwrap(), others, "not rounded");
        let few = bind(vec![ScalarValue::Int32(Some(5))], &types).unwrap_err();
        assert_eq!(few.code(), Code::InvalidArgument);
        assert!(few.message().contains("has 2"), "{few}");
    }

    #[tokio::test]
    async fn what_is_no_row_is_refused() {
        let two = RecordBatch::try_from_iter([("a", Arc::new(arrow::array::Int64Array::from(vec![1, 2])) as _)]);
        let two = two.unwrap();
        let two = batches_to_flight_data(&two.schema(), vec![two]).unwrap();
        let refused = values(two).await.unwrap_err();
        assert!(refused.message().contains("once for each"), "{refused}");
        let garbage = FlightData::new().with_data_header(vec![1_u8, 2, 3]).with_data_body(vec![4_u8]);
        assert_eq!(values(vec![garbage]).await.unwrap_err().code(), Code::InvalidArgument);
        let long = FlightData::new().with_data_body(vec![0_u8; PARAMETERS_BYTES_MAX + 1]);
        assert_eq!(receive(stream::iter([Ok(long)])).await.unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_parameter_of_any_type_is_a_text() {
        let schema = schema(&[Some(DataType::Int64), None]);
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        assert_eq!(types, [&DataType::Int64, &DataType::Utf8]);
        assert_eq!(schema.field(1).name(), "$2");
    }
}
