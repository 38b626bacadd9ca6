//! What a batch's file is called, and what stands in it.
//!
//! ```text
//! 018f3c…-….batch     its name is its Idempotency-Key
//!   reckon-batch-1 0123456789abcdef⏎     xxh3 of the rest, in hexadecimal
//!   {"entity_id":…}⏎                     an event a line, not compressed
//!   {"entity_id":…}⏎
//! ```

use std::io;

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// The ending of a file that is whole.
pub(super) const BATCH: &str = "batch";
/// The ending of a file that is being written.
pub(super) const UNFINISHED: &str = "unfinished";
/// The ending of a file that is not what was written.
pub(crate) const DAMAGED: &str = "damaged";
/// The ending of a file whose batch was refused as a whole.
pub(crate) const REFUSED: &str = "refused";

/// Bytes of the first line.
const HEAD_BYTES: usize = 32;

/// How long the file of a body is, bytes.
pub(crate) const fn file_bytes(body: &[u8]) -> u64 {
    (HEAD_BYTES + body.len()) as u64
}

/// A batch's file name.
pub(super) fn name(id: Uuid, ending: &str) -> String {
    format!("{id}.{ending}")
}

/// The batch whose file with this ending has this name; none when it is not one of ours.
pub(super) fn batch_of(file_name: &str, ending: &str) -> Option<Uuid> {
    let id = file_name.strip_suffix(ending)?.strip_suffix('.')?.parse().ok()?;
    (name(id, ending) == file_name).then_some(id)
}

/// The first line of the file of a body.
pub(super) fn head(body: &[u8]) -> String {
    format!("reckon-batch-1 {:016x}\n", xxh3_64(body))
}

/// The body of a file.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is not what was written.
pub(super) fn body(file: Vec<u8>) -> io::Result<Bytes> {
    let file = Bytes::from(file);
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is not what was written");
    let (written, rest) = file.split_at_checked(HEAD_BYTES).ok_or_else(damaged)?;
    if written == head(rest).as_bytes() { Ok(file.slice(HEAD_BYTES..)) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_left_alone() {
        let id = Uuid::from_u128(7);
        assert_eq!(batch_of(&name(id, BATCH), BATCH), Some(id));
        let simple = id.simple();
        let others = [name(id, DAMAGED), format!("{simple}.batch"), format!("{id}batch"), "notes.batch".to_owned()];
        for other in &others {
            assert_eq!(batch_of(other, BATCH), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_is_torn_or_changed_is_noticed() {
        let lines = b"{\"a\":1}\n{\"b\":2}\n";
        let whole = [head(lines).as_bytes(), lines].concat();
        assert_eq!(whole.len() as u64, file_bytes(lines));
        assert_eq!(body(whole.clone()).unwrap(), lines[..]);
        for length in 0..whole.len() {
            let error = body(whole[..length].to_vec()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length} bytes");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(body(changed).is_err(), "byte {place}");
        }
    }

    #[test]
    fn the_format_is_frozen() {
        assert_eq!(head(b""), "reckon-batch-1 2d06800538d394c2\n");
        assert_eq!(head(b"").len(), HEAD_BYTES);
    }
}
