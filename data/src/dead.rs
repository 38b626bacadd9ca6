//! Dead letters: what was refused, why, and its bytes.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, RecordBatch, StringBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use xxhash_rust::xxh3::xxh3_128;

use crate::columns::text_at;
use crate::event::Refusal;

/// Most bytes of a refused body that are kept; of a longer one, its length and hash are.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An event that was refused or could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct DeadLetter {
    /// The reason's code, see [`crate::event::Reason::code`].
    pub reason: String,
    /// The field it is wrong with.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Where it came from: `http`, or file and line.
    pub source: Option<String>,
    /// What was received; none when it was longer than [`BODY_BYTES_MAX`].
    #[serde(default, with = "base64_text")]
    #[schema(value_type = Option<String>, format = Byte)]
    pub body: Option<Vec<u8>>,
    /// How long it was; taken from the body, where there is one.
    #[schema(format = "uint64")]
    pub body_bytes: u64,
    /// XXH3-128 of it, in hexadecimal.
    pub body_hash: String,
}

impl DeadLetter {
    /// The dead letter of what was refused.
    #[must_use]
    pub fn new(refusal: &Refusal, source: Option<&str>, body: &[u8]) -> Self {
        Self {
            reason: refusal.reason.code().to_owned(),
            field: refusal.field.clone(),
            message: refusal.message.clone(),
            source: source.map(str::to_owned),
            body: (body.len() <= BODY_BYTES_MAX).then(|| body.to_vec()),
            body_bytes: body.len() as u64,
            body_hash: hash(body),
        }
    }

    /// The letter with length and hash of its body as they are, whatever its sender said of them.
    ///
    /// # Errors
    /// [`LengthOutOfRange`] when there is no body and the length is more than a table can hold.
    pub fn verified(mut self) -> Result<Self, LengthOutOfRange> {
        if let Some(body) = &self.body {
            self.body_bytes = body.len() as u64;
            self.body_hash = hash(body);
        }
        self.body = self.body.filter(|body| body.len() <= BODY_BYTES_MAX);
        match i64::try_from(self.body_bytes) {
            Ok(_) => Ok(self),
            Err(_) => Err(LengthOutOfRange(self.body_bytes)),
        }
    }

    /// About how many bytes it takes in a record.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = self.reason.len() + self.message.len() + self.body_hash.len();
        let optional = [self.field.as_deref(), self.source.as_deref()];
        64 + texts
            + optional.iter().flatten().map(|text| text.len()).sum::<usize>()
            + self.body.as_ref().map_or(0, Vec::len)
    }
}

/// A length that no table can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a body of {0} bytes is longer than {max}, which is the most", max = i64::MAX)]
pub struct LengthOutOfRange(pub u64);

fn hash(body: &[u8]) -> String {
    format!("{:032x}", xxh3_128(body))
}

/// The columns of a record of dead letters (schema id 2).
pub static DEAD_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("reason", DataType::Utf8, false),
        Field::new("field", DataType::Utf8, true),
        Field::new("message", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, true),
        Field::new("body", DataType::Binary, true),
        Field::new("body_bytes", DataType::UInt64, false),
        Field::new("body_hash", DataType::Utf8, false),
    ]))
});

/// Dead letters as columns.
///
/// # Errors
/// Never, unless schema and builders disagree.
pub fn to_batch(letters: &[DeadLetter]) -> Result<RecordBatch, ArrowError> {
    let mut texts: [StringBuilder; 5] = Default::default();
    let mut body = BinaryBuilder::new();
    let mut body_bytes = UInt64Builder::new();
    for letter in letters {
        let row = [
            Some(&letter.reason),
            letter.field.as_ref(),
            Some(&letter.message),
            letter.source.as_ref(),
            Some(&letter.body_hash),
        ];
        for (column, text) in texts.iter_mut().zip(row) {
            column.append_option(text);
        }
        body.append_option(letter.body.as_ref());
        body_bytes.append_value(letter.body_bytes);
    }
    let [mut reason, mut field, mut message, mut source, mut body_hash] = texts;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(reason.finish()),
        Arc::new(field.finish()),
        Arc::new(message.finish()),
        Arc::new(source.finish()),
        Arc::new(body.finish()),
        Arc::new(body_bytes.finish()),
        Arc::new(body_hash.finish()),
    ];
    RecordBatch::try_new(Arc::clone(&DEAD_SCHEMA), columns)
}

/// The dead letters in columns.
///
/// # Errors
/// When these are not the columns of dead letters.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<DeadLetter>, ArrowError> {
    if batch.schema_ref().fields() != DEAD_SCHEMA.fields() {
        return Err(ArrowError::SchemaError("these are not the columns of dead letters".to_owned()));
    }
    let text = |column: usize| batch.column(column).as_string::<i32>();
    let (reason, field, message, source) = (text(0), text(1), text(2), text(3));
    let body = batch.column(4).as_binary::<i32>();
    let body_bytes = batch.column(5).as_primitive::<UInt64Type>();
    let body_hash = text(6);
    Ok((0..batch.num_rows())
        .map(|row| DeadLetter {
            reason: reason.value(row).to_owned(),
            field: text_at(field, row).map(str::to_owned),
            message: message.value(row).to_owned(),
            source: text_at(source, row).map(str::to_owned),
            body: body.is_valid(row).then(|| body.value(row).to_vec()),
            body_bytes: body_bytes.value(row),
            body_hash: body_hash.value(row).to_owned(),
        })
        .collect())
}

/// Bytes as base64 text in JSON.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| STANDARD.decode(text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Reason;

    #[test]
    fn letters_survive_the_columns() {
        let refusal = Refusal::new(Reason::TooLong, "event_id", "event_id is too long".to_owned());
        let letters = [
            DeadLetter::new(&refusal, Some("clicks.gz:7"), b"{}"),
            DeadLetter::new(&Refusal::whole(Reason::Malformed, "bad".to_owned()), None, &[0xff, 0]),
        ];
        assert_eq!(from_batch(&to_batch(&letters).unwrap()).unwrap(), letters);
    }

    #[test]
    fn letters_survive_json() {
        let letter = DeadLetter::new(&Refusal::whole(Reason::Malformed, "bad".to_owned()), None, &[0xff, 0]);
        let json = serde_json::to_string(&letter).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), letter);
    }

    #[test]
    fn of_a_body_that_is_too_long_the_hash_is_kept() {
        let body = vec![b'x'; BODY_BYTES_MAX + 1];
        let letter = DeadLetter::new(&Refusal::whole(Reason::Malformed, "bad".to_owned()), None, &body);
        assert_eq!((letter.body, letter.body_bytes), (None, body.len() as u64));
        assert_eq!(letter.body_hash.len(), 32);
    }

    #[test]
    fn length_and_hash_are_those_of_the_body() {
        let letter = DeadLetter::new(&Refusal::whole(Reason::Malformed, "bad".to_owned()), None, b"{}");
        let forged = DeadLetter { body_bytes: u64::MAX, body_hash: "no hash".to_owned(), ..letter.clone() };
        assert_eq!(forged.clone().verified(), Ok(letter.clone()));
        let without_body = DeadLetter { body: None, ..letter };
        assert_eq!(without_body.clone().verified(), Ok(without_body));
        assert_eq!(DeadLetter { body: None, ..forged.clone() }.verified(), Err(LengthOutOfRange(u64::MAX)));
        let long = DeadLetter { body: Some(vec![b'x'; BODY_BYTES_MAX + 1]), ..forged }.verified().unwrap();
        assert_eq!((long.body, long.body_bytes), (None, BODY_BYTES_MAX as u64 + 1));
    }
}
