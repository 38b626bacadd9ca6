//! The text of a report as it is stored, and its hash.
//!
//! Keys are sorted and there is no space between anything, so one report has one text. The hash is that of the text as
//! it lies in the table: a float that is read and written again may come out as another text.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::report::model::Report;

/// A report as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its text.
    pub text: String,
    /// SHA-256 of that, hexadecimal.
    pub hash: String,
}

/// The text of a report with its hash. One that could not be read again is refused: no number, say, is `null` as JSON.
pub fn seal(report: &Report) -> Result<Sealed, StoreError> {
    let unfit = |error: serde_json::Error| StoreError::Unfit { run_id: report.run_id, reason: error.to_string() };
    let value = serde_json::to_value(report).map_err(unfit)?;
    let mut text = String::new();
    canonical(&value, &mut text);
    serde_json::from_str::<Report>(&text).map_err(unfit)?;
    Ok(Sealed { hash: hash_of(&text), text })
}

/// SHA-256 of a text, hexadecimal.
pub fn hash_of(text: &str) -> String {
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()).iter() {
        // Writing to a string cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

/// Writes a value with its keys sorted, whatever order a map keeps them in.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (at, (name, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                canonical(value, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_value_has_one_text() {
        let mut text = String::new();
        canonical(&json!({ "b": 1, "a": [{ "d": null, "c": "x\"y" }, true, 0.25] }), &mut text);
        assert_eq!(text, r#"{"a":[{"c":"x\"y","d":null},true,0.25],"b":1}"#);
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        assert_eq!(hash_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
