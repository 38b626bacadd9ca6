//! The text of objects: a header, and a line each of what they hold.
//!
//! ```text
//! {"format":1,"number":17,"token":"0193…","lines":2,"hash":"5a…"}     hash: XXH3 of all that follows
//! {"put":{"entity_id":"v1","title":"One","updated_at":1}}
//! {"delete":"v2"}
//! ```

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::model::{Entity, Version};

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;
/// What an operator writes in place of an object that cannot be read.
const GIVEN_UP: &[u8] = b"given up";

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    number: u64,
    token: Uuid,
    lines: usize,
    hash: String,
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object<T> {
    /// Who wrote it, and when: no two tries share one.
    pub(super) token: Uuid,
    pub(super) lines: Vec<T>,
}

/// An object of the journal may have been given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<T> {
    Object(Object<T>),
    GivenUp,
}

/// A line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) version: Version,
    pub(super) entity: Entity,
}

/// The text of an object.
///
/// # Errors
/// What cannot be written as JSON, which is nothing that is written here.
pub(super) fn encode<T: Serialize>(number: u64, token: Uuid, lines: &[T]) -> Result<Bytes, String> {
    let mut body = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut body, line).map_err(|error| error.to_string())?;
        body.push(b'\n');
    }
    let header = Header { format: FORMAT, number, token, lines: lines.len(), hash: hash(&body) };
    let mut text = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
    text.push(b'\n');
    text.extend_from_slice(&body);
    Ok(Bytes::from(text))
}

/// Reads the text of object `number`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(number: u64, text: &[u8]) -> Result<Found<T>, String> {
    if text.trim_ascii() == GIVEN_UP {
        return Ok(Found::GivenUp);
    }
    let end = text.iter().position(|byte| *byte == b'\n').ok_or("its header is not whole")?;
    let (head, body) = (&text[..end], &text[end + 1..]);
    let header: Header = serde_json::from_slice(head).map_err(|error| format!("its header cannot be read: {error}"))?;
    if header.format != FORMAT {
        return Err(format!("it has format {}, and this program reads {FORMAT}: a newer one wrote it", header.format));
    }
    if header.number != number {
        return Err(format!("it says that it is object {}", header.number));
    }
    if header.hash != hash(body) {
        return Err("its checksum does not match".to_owned());
    }
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<T> =
        lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if lines.len() != header.lines {
        return Err(format!("it has {} lines and says {}", lines.len(), header.lines));
    }
    Ok(Found::Object(Object { token: header.token, lines }))
}

fn hash(body: &[u8]) -> String {
    format!("{:016x}", xxh3_64(body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Change;
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_any_flip_is_found(
            ids in prop::collection::vec(".{1,8}", 0..5), at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let changes: Vec<Change> = ids.into_iter().map(Change::Delete).collect();
            let token = Uuid::from_u128(7);
            let text = encode(3, token, &changes).unwrap();
            let object = Found::Object(Object { token, lines: changes });
            prop_assert_eq!(decode(3, &text), Ok(object.clone()));
            prop_assert!(decode::<Change>(4, &text).is_err());
            let mut flipped = text.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            // In the header a token may become another one, which harms nobody but the one who wrote it.
            if let Ok(Found::Object(found)) = decode::<Change>(3, &flipped) {
                let Found::Object(object) = object else { unreachable!() };
                prop_assert_eq!(found.lines, object.lines);
            }
            for cut in [0, text.len() / 2, text.len() - 1] {
                prop_assert!(decode::<Change>(3, &text[..cut]).is_err());
            }
        }
    }

    #[test]
    fn a_cut_body_and_what_was_given_up() {
        let text = encode(3, Uuid::nil(), &[Change::Delete("a".to_owned()), Change::Delete("b".to_owned())]).unwrap();
        let error = decode::<Change>(3, &text[..text.len() - 3]).unwrap_err();
        assert!(error.contains("checksum"), "{error}");
        assert_eq!(decode::<Change>(3, b"given up\n"), Ok(Found::GivenUp));
        assert!(decode::<Change>(3, b"").is_err());
    }
}
