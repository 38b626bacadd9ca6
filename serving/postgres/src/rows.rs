//! Rows on their way to a client: pulled out of a query as the client takes them, a row at a time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, SchemaRef};
use arrow_pg::datatypes::arrow_schema_to_pg_fields;
use arrow_pg::encoder::{Encoder, encode_value};
use bytes::{BufMut, BytesMut};
use futures::{Stream, stream};
use pgwire::api::Type;
use pgwire::api::portal::Format;
use pgwire::api::results::{CopyCsvOptions, CopyEncoder, CopyTextOptions, DataRowEncoder, FieldInfo, QueryResponse};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::copy::CopyData;
use reckon_serving::sql::SqlStream;
use tokio::sync::Mutex;

use crate::command::CopyFormat;
use crate::errors::{error, of_serving, state};
use crate::numeric::Numeric;

/// The rows of one query that are left. Dropping it ends the query.
pub struct Rows {
    stream: SqlStream,
    /// What was pulled and not taken.
    left: Option<RecordBatch>,
    /// Whether something has failed, or has ended early, that was taking rows: nobody knows then which of them the
    /// client has got, and what is left would pass for all that is missing.
    broken: bool,
}

/// Rows that a portal, or a cursor, takes one after the other.
pub type SharedRows = Arc<Mutex<Rows>>;

impl Rows {
    /// Those of a query.
    pub fn new(stream: SqlStream) -> SharedRows {
        Arc::new(Mutex::new(Self { stream, left: None, broken: false }))
    }

    fn whole(&self) -> PgWireResult<()> {
        if self.broken {
            let message = "a statement that read these rows has failed or was not read to its end; ask for them anew";
            return Err(error(state::BROKEN, message));
        }
        Ok(())
    }

    /// Some of the rows that are left, at most `most`; none at the end.
    async fn take(&mut self, most: usize) -> PgWireResult<Option<RecordBatch>> {
        let batch = loop {
            let next = match self.left.take() {
                Some(batch) => batch,
                None => match self.stream.next().await {
                    Some(Ok(batch)) => batch,
                    Some(Err(cause)) => {
                        // Behind an error the stream has nothing more, as at its end.
                        self.broken = true;
                        return Err(of_serving(&cause));
                    }
                    None => return Ok(None),
                },
            };
            if next.num_rows() > 0 {
                break next;
            }
        };
        if batch.num_rows() > most {
            self.left = Some(batch.slice(most, batch.num_rows() - most));
            return Ok(Some(batch.slice(0, most)));
        }
        Ok(Some(batch))
    }
}

/// Passes over rows; how many there were.
///
/// # Errors
/// Those of the query.
pub async fn skip(rows: &SharedRows, count: Option<usize>) -> PgWireResult<usize> {
    let (mut rows, mut skipped) = (rows.lock().await, 0);
    rows.whole()?;
    // Until it has come to its end.
    rows.broken = true;
    while count.is_none_or(|count| skipped < count) {
        let most = count.map_or(usize::MAX, |count| count - skipped);
        let Some(batch) = rows.take(most).await? else { break };
        skipped += batch.num_rows();
    }
    rows.broken = false;
    Ok(skipped)
}

/// What a client is told of the columns.
///
/// # Errors
/// Of a type that PostgreSQL has not.
pub fn fields(schema: &SchemaRef, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    arrow_schema_to_pg_fields(schema, format, None)
}

/// The next rows as an answer: at most `most`, or all.
///
/// # Errors
/// Of a type that PostgreSQL has not.
pub fn response(
    rows: SharedRows,
    schema: &SchemaRef,
    format: &Format,
    most: Option<usize>,
) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(fields(schema, format)?);
    let encoder = DataRowEncoder::new(Arc::clone(&fields));
    Ok(QueryResponse::new(Arc::clone(&fields), encoded(rows, fields, encoder, most)))
}

/// The rows as they are copied, and whether a line of names goes before them.
///
/// # Errors
/// Of a type that PostgreSQL has not.
pub fn copied(
    rows: SharedRows,
    schema: &SchemaRef,
    format: CopyFormat,
) -> PgWireResult<impl Stream<Item = PgWireResult<CopyData>> + Send + 'static + use<>> {
    let wire = if format == CopyFormat::Binary { Format::UnifiedBinary } else { Format::UnifiedText };
    let fields = Arc::new(fields(schema, &wire)?);
    let encoder = match format {
        CopyFormat::Binary => CopyEncoder::new_binary(Arc::clone(&fields)),
        CopyFormat::Text => CopyEncoder::new_text(Arc::clone(&fields), CopyTextOptions::default()),
        CopyFormat::Csv => {
            // In quotes, or nobody could tell an empty text from none at all.
            let is_text = |(_, field): &(usize, &FieldInfo)| *field.datatype() == Type::TEXT;
            let force_quote = fields.iter().enumerate().filter(is_text).map(|(index, _)| index).collect();
            CopyEncoder::new_csv(Arc::clone(&fields), CopyCsvOptions { force_quote, ..CopyCsvOptions::default() })
        }
    };
    Ok(encoded(rows, fields, encoder, None))
}

/// The line of names before copied rows.
pub fn copied_names(schema: &SchemaRef, format: CopyFormat) -> CopyData {
    let names = schema.fields().iter().map(|field| match format {
        CopyFormat::Csv => format!("\"{}\"", field.name().replace('"', "\"\"")),
        CopyFormat::Text | CopyFormat::Binary => {
            field.name().replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
        }
    });
    let separator = if format == CopyFormat::Csv { "," } else { "\t" };
    CopyData::new((names.collect::<Vec<_>>().join(separator) + "\n").into())
}

/// What binary copies begin with when they have no row to begin with.
pub fn copied_nothing() -> CopyData {
    let mut header = BytesMut::new();
    header.put_slice(b"PGCOPY\n\xFF\r\n\x00");
    header.put_u64(0);
    CopyData::new(header.freeze())
}

/// Rows that are being encoded.
struct Encoding<E> {
    rows: SharedRows,
    fields: Arc<Vec<FieldInfo>>,
    encoder: E,
    /// Of the batch, the rows before this one are sent.
    batch: Option<(RecordBatch, usize)>,
    /// How many may still be pulled.
    most: usize,
    /// Whether some were pulled, and there may be more.
    open: bool,
}

impl<E> Drop for Encoding<E> {
    fn drop(&mut self) {
        let is_sent = self.most == 0 && self.batch.as_ref().is_some_and(|(batch, row)| *row >= batch.num_rows());
        if self.open
            && !is_sent
            && let Ok(mut rows) = self.rows.try_lock()
        {
            rows.broken = true;
        }
    }
}

fn encoded<E: Encoder + Send + 'static>(
    rows: SharedRows,
    fields: Arc<Vec<FieldInfo>>,
    encoder: E,
    most: Option<usize>,
) -> impl Stream<Item = PgWireResult<E::Item>> + Send + 'static
where
    E::Item: Send,
{
    let encoding = Encoding { rows, fields, encoder, batch: None, most: most.unwrap_or(usize::MAX), open: false };
    stream::try_unfold(encoding, |mut encoding| async move {
        let row = encoding.next().await?;
        Ok::<_, PgWireError>(row.map(|row| (row, encoding)))
    })
}

impl<E: Encoder> Encoding<E> {
    async fn next(&mut self) -> PgWireResult<Option<E::Item>> {
        let (batch, row) = match self.batch.take() {
            Some((batch, row)) if row < batch.num_rows() => (batch, row),
            _ if self.most == 0 => return Ok(self.end()),
            _ => {
                let Some(batch) = self.pull().await? else { return Ok(self.end()) };
                self.most = self.most.saturating_sub(batch.num_rows());
                (batch, 0)
            }
        };
        encode(&mut self.encoder, &batch, row, &self.fields)?;
        self.batch = Some((batch, row + 1));
        Ok(Some(self.encoder.take_row()))
    }

    async fn pull(&mut self) -> PgWireResult<Option<RecordBatch>> {
        self.open = true;
        let mut rows = self.rows.lock().await;
        rows.whole()?;
        rows.take(self.most).await
    }

    fn end(&mut self) -> Option<E::Item> {
        self.open = false;
        None
    }
}

fn encode<E: Encoder>(encoder: &mut E, batch: &RecordBatch, row: usize, fields: &[FieldInfo]) -> PgWireResult<()> {
    for ((column, field), told) in batch.columns().iter().zip(batch.schema_ref().fields()).zip(fields) {
        match field.data_type() {
            // Decimals of arrow-pg have 28 digits; ours have 38.
            DataType::Decimal128(_, scale) => {
                let values = column.as_primitive::<Decimal128Type>();
                let value = values.is_valid(row).then(|| Numeric { unscaled: values.value(row), scale: *scale });
                encoder.encode_field(&value, told)?;
            }
            DataType::Interval(_) if column.is_null(row) => encoder.encode_field(&None::<i8>, told)?,
            _ => encode_value(encoder, column, row, field, told)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let sums = Decimal128Array::from(vec![Some(i128::from(i64::MAX) * 1_000_000 + 1), None]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("entity_id", Arc::new(StringArray::from(vec![Some(""), None]))),
            ("count", Arc::new(Int64Array::from(vec![1, -1]))),
            ("sum", Arc::new(sums.with_precision_and_scale(38, 6).unwrap())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    fn text(batch: &RecordBatch, encoder: &mut CopyEncoder, fields: &[FieldInfo]) -> String {
        let rows = (0..batch.num_rows()).map(|row| {
            encode(encoder, batch, row, fields).unwrap();
            encoder.take_copy().data.to_vec()
        });
        String::from_utf8(rows.flatten().collect()).unwrap()
    }

    #[test]
    fn every_digit_and_every_null_is_there() {
        let batch = batch();
        let told = Arc::new(fields(&batch.schema(), &Format::UnifiedText).unwrap());
        let mut plain = CopyEncoder::new_text(Arc::clone(&told), CopyTextOptions::default());
        assert_eq!(text(&batch, &mut plain, &told), "\t1\t9223372036854775807.000001\n\\N\t-1\t\\N\n");
        let options = CopyCsvOptions { force_quote: vec![0], ..CopyCsvOptions::default() };
        let mut csv = CopyEncoder::new_csv(Arc::clone(&told), options);
        assert_eq!(text(&batch, &mut csv, &told), "\"\",1,9223372036854775807.000001\n,-1,\n");
    }

    #[test]
    fn names_are_quoted() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a\tb", DataType::Int64, true),
            Field::new("c\"d", DataType::Int64, true),
        ]));
        assert_eq!(&copied_names(&schema, CopyFormat::Text).data[..], b"a\\tb\tc\"d\n");
        assert_eq!(&copied_names(&schema, CopyFormat::Csv).data[..], b"\"a\tb\",\"c\"\"d\"\n");
    }
}
