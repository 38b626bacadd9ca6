//! Records: what one log append stores.
//!
//! ```text
//!  0  magic "RKN1"              4 bytes
//!  4  kind                      u8    1 events, 2 cut, 3 dead letters
//!  5  schema id                 u8    0 none, 1 events, 2 dead letters
//!  6  routing version           u16
//!  8  append time               i64   microseconds
//! 16  number of events          u32
//! 20  metadata bytes            u32   Arrow IPC message, padded to 8
//! 24  body bytes                u32   Arrow IPC body; of a cut: the run's uuid
//! 28  reserved, zero            u32
//! 32  checksum                  u64   XXH3-64 of bytes 0..32 and everything after 40
//! 40  metadata, then body
//! ```
//! All numbers little-endian. The IPC message has no schema: the schema is known by its id.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, root_as_message};
use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::columns::{EVENT_SCHEMA, EventColumns};
use crate::dead::{self, DEAD_SCHEMA, DeadLetter};
use crate::log::ANY_RECORD_BYTES_MAX;

const MAGIC: [u8; 4] = *b"RKN1";
const HEADER_BYTES: usize = 40;
const CHECKSUM_AT: usize = 32;

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record holds.
    pub kind: Kind,
    /// How its events were routed, see [`crate::partition::Router::version`].
    pub routing: u16,
    /// The gateway's clock when it appended it, microseconds.
    pub append_time: i64,
    /// How many events, or dead letters, it holds.
    pub events: u32,
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Events.
    Events,
    /// A cut.
    Cut,
    /// Dead letters.
    Dead,
}

impl Kind {
    const fn codes(self) -> (u8, u8) {
        match self {
            Self::Events => (1, 1),
            Self::Cut => (2, 0),
            Self::Dead => (3, 2),
        }
    }
}

/// A record's contents.
#[allow(clippy::large_enum_variant, reason = "there is one a record, and nearly all hold events")]
#[derive(Debug, Clone)]
pub enum Body {
    /// Valid events.
    Events(EventColumns),
    /// The cut of a batch run.
    Cut(Uuid),
    /// Refused events.
    Dead(Vec<DeadLetter>),
}

/// A record that was read.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its header.
    pub header: Header,
    /// Its contents.
    pub body: Body,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// They do not begin as a record does.
    #[error("not a record: it begins with {0:02x?}")]
    NotARecord(Vec<u8>),
    /// They end too early, or too late.
    #[error("a record of {found} bytes should have {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many its header asks for.
        expected: usize,
    },
    /// Some bit is not what was written.
    #[error("the checksum is {found:016x}, not {expected:016x}")]
    Checksum {
        /// The checksum of the bytes.
        found: u64,
        /// The checksum in the header.
        expected: u64,
    },
    /// A kind or schema that this version does not know.
    #[error("record kind {kind} with schema {schema} is not known to this version: a newer one wrote it")]
    Newer {
        /// The record's kind.
        kind: u8,
        /// Its schema id.
        schema: u8,
    },
    /// The columns cannot be read or written.
    #[error("the columns do not fit: {0}")]
    Arrow(#[from] ArrowError),
    /// More bytes than a record may have.
    #[error("a record of {0} bytes is too large")]
    TooLarge(usize),
}

/// Encodes a record of events; `batch` has the columns of [`EVENT_SCHEMA`].
///
/// # Errors
/// [`RecordError::TooLarge`], [`RecordError::Arrow`].
pub fn encode_events(batch: &RecordBatch, routing: u16, append_time: i64) -> Result<Bytes, RecordError> {
    encode_batch(Kind::Events, batch, routing, append_time)
}

/// Encodes a record of dead letters.
///
/// # Errors
/// [`RecordError::TooLarge`], [`RecordError::Arrow`].
pub fn encode_dead(letters: &[DeadLetter], routing: u16, append_time: i64) -> Result<Bytes, RecordError> {
    encode_batch(Kind::Dead, &dead::to_batch(letters)?, routing, append_time)
}

/// Encodes the cut of a batch run.
#[must_use]
pub fn encode_cut(run: Uuid, routing: u16, append_time: i64) -> Bytes {
    let header = Header { kind: Kind::Cut, routing, append_time, events: 0 };
    seal(header, &[], run.as_bytes())
}

fn encode_batch(kind: Kind, batch: &RecordBatch, routing: u16, append_time: i64) -> Result<Bytes, RecordError> {
    let (_, encoded) = IpcDataGenerator {}.encode(
        batch,
        &mut DictionaryTracker::new(false),
        &IpcWriteOptions::default(),
        &mut IpcWriteContext::default(),
    )?;
    let size = HEADER_BYTES + encoded.ipc_message.len() + encoded.arrow_data.len();
    if size > ANY_RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge(size));
    }
    let events = u32::try_from(batch.num_rows()).map_err(|_| RecordError::TooLarge(size))?;
    Ok(seal(Header { kind, routing, append_time, events }, &encoded.ipc_message, &encoded.arrow_data))
}

fn seal(header: Header, metadata: &[u8], body: &[u8]) -> Bytes {
    let padding = metadata.len().next_multiple_of(8) - metadata.len();
    let (kind, schema) = header.kind.codes();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + metadata.len() + padding + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind, schema]);
    bytes.extend_from_slice(&header.routing.to_le_bytes());
    bytes.extend_from_slice(&header.append_time.to_le_bytes());
    bytes.extend_from_slice(&header.events.to_le_bytes());
    // Both lengths are below ANY_RECORD_BYTES_MAX.
    bytes.extend_from_slice(&((metadata.len() + padding) as u32).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4 + 8]);
    bytes.extend_from_slice(metadata);
    bytes.resize(bytes.len() + padding, 0);
    bytes.extend_from_slice(body);
    let sum = checksum(&bytes);
    if let Some(slot) = bytes.get_mut(CHECKSUM_AT..HEADER_BYTES) {
        slot.copy_from_slice(&sum.to_le_bytes());
    }
    Bytes::from(bytes)
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(bytes.get(..CHECKSUM_AT).unwrap_or_default());
    hash.update(bytes.get(HEADER_BYTES..).unwrap_or_default());
    hash.digest()
}

/// Reads a record's header without its contents; the checksum is not looked at.
///
/// # Errors
/// [`RecordError::NotARecord`], [`RecordError::Newer`].
pub fn decode_header(bytes: &[u8]) -> Result<Header, RecordError> {
    let head = bytes.first_chunk::<HEADER_BYTES>().filter(|head| head.starts_with(&MAGIC));
    let Some(head) = head else {
        return Err(RecordError::NotARecord(bytes.iter().take(8).copied().collect()));
    };
    let kind = match (head[4], head[5]) {
        (1, 1) => Kind::Events,
        (2, 0) => Kind::Cut,
        (3, 2) => Kind::Dead,
        (kind, schema) => return Err(RecordError::Newer { kind, schema }),
    };
    Ok(Header {
        kind,
        routing: u16::from_le_bytes([head[6], head[7]]),
        append_time: i64::from_le_bytes(field(head, 8)),
        events: u32::from_le_bytes(field(head, 16)),
    })
}

fn field<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|index| head[at + index])
}

/// Reads a record and checks it.
///
/// # Errors
/// Whatever does not fit, see [`RecordError`].
pub fn decode(bytes: &Bytes) -> Result<Record, RecordError> {
    let header = decode_header(bytes)?;
    let head = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| RecordError::NotARecord(Vec::new()))?;
    let metadata = u32::from_le_bytes(field(head, 20)) as usize;
    let body = u32::from_le_bytes(field(head, 24)) as usize;
    let expected = HEADER_BYTES + metadata + body;
    if bytes.len() != expected {
        return Err(RecordError::Length { found: bytes.len(), expected });
    }
    let (found, expected) = (checksum(bytes), u64::from_le_bytes(field(head, CHECKSUM_AT)));
    if found != expected {
        return Err(RecordError::Checksum { found, expected });
    }
    let body = bytes.slice(HEADER_BYTES + metadata..);
    let metadata = &bytes[HEADER_BYTES..HEADER_BYTES + metadata];
    let body = match header.kind {
        Kind::Events => Body::Events(EventColumns::try_from(&columns(metadata, body, &EVENT_SCHEMA)?)?),
        Kind::Dead => Body::Dead(dead::from_batch(&columns(metadata, body, &DEAD_SCHEMA)?)?),
        Kind::Cut => Body::Cut(Uuid::from_slice(&body).map_err(|e| ArrowError::ParseError(e.to_string()))?),
    };
    Ok(Record { header, body })
}

fn columns(metadata: &[u8], body: Bytes, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let message = root_as_message(metadata).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let batch = message
        .header_as_record_batch()
        .ok_or_else(|| ArrowError::IpcError("the message is no record batch".to_owned()))?;
    read_record_batch(&Buffer::from(body), batch, Arc::clone(schema), &HashMap::new(), None, &MetadataVersion::V5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::EventBuilder;
    use crate::event::{Event, Reason, Refusal};

    const NOW: i64 = 1_360_358_940_000_000;

    fn events() -> Bytes {
        let mut builder = EventBuilder::default();
        for id in ["a", "b", "c"] {
            let event = Event {
                event_id: id,
                event_type: "view",
                entity_id: "v1",
                event_time: NOW,
                user_id: None,
                ip: None,
                country: Some("US"),
                value: None,
                properties: None,
            };
            builder.push(&event, event.key().hash());
        }
        encode_events(&builder.finish().unwrap(), 7, NOW).unwrap()
    }

    #[test]
    fn events_are_read_back() {
        let record = decode(&events()).unwrap();
        assert_eq!(record.header, Header { kind: Kind::Events, routing: 7, append_time: NOW, events: 3 });
        let Body::Events(columns) = record.body else { panic!("not events") };
        assert_eq!(columns.event(2).unwrap().event_id, "c");
        assert_eq!(columns.key_hash.value(2), columns.event(2).unwrap().key().hash());
    }

    #[test]
    fn cuts_and_dead_letters_are_read_back() {
        let run = Uuid::from_u128(42);
        let Body::Cut(found) = decode(&encode_cut(run, 0, NOW)).unwrap().body else { panic!("not a cut") };
        assert_eq!(found, run);
        let letters = [DeadLetter::new(&Refusal::whole(Reason::Malformed, "bad".to_owned()), None, b"{")];
        let Body::Dead(found) = decode(&encode_dead(&letters, 0, NOW).unwrap()).unwrap().body else {
            panic!("not dead letters")
        };
        assert_eq!(found, letters);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let bytes = events();
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 0x10;
            assert!(decode(&Bytes::from(broken)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_record_cut_short_is_refused() {
        let bytes = events();
        for length in 0..bytes.len() {
            assert!(decode(&bytes.slice(..length)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_kind_is_named_as_such() {
        let mut bytes = events().to_vec();
        bytes[5] = 9;
        assert!(matches!(decode(&Bytes::from(bytes)), Err(RecordError::Newer { kind: 1, schema: 9 })));
    }
}
