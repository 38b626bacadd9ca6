//! Lines as fields: JSON, separated values, access logs.

use anyhow::{Result, anyhow};
use reckon_data::event::{Reason, Refusal};

use super::fields::{Fields, Object};
use super::mapping::Format;

/// Reads the lines of one file.
#[derive(Debug)]
pub enum LineReader {
    /// A JSON object a line.
    Ndjson,
    /// Values set apart by a byte; the names stand in the first line.
    Separated {
        /// The byte.
        separator: u8,
        /// Whether values may stand in quotes.
        quoting: bool,
        /// The names.
        header: Vec<String>,
    },
    /// The combined log format.
    Combined,
}

/// A line's fields.
#[derive(Debug)]
pub enum Line {
    /// An object.
    Json(Object),
    /// Names and values.
    Named(Vec<(String, String)>),
}

impl Fields for Line {
    fn text(&self, name: &str) -> Option<String> {
        match self {
            Self::Json(value) => value.text(name),
            Self::Named(pairs) => pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Json(value) => value.has(name),
            Self::Named(pairs) => pairs.iter().any(|(key, value)| key == name && !value.is_empty()),
        }
    }
}

impl LineReader {
    /// A reader of a format; the header of separated values comes later.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Separated { separator: b',', quoting: true, header: Vec::new() },
            Format::Tsv => Self::Separated { separator: b'\t', quoting: false, header: Vec::new() },
            Format::Combined => Self::Combined,
        }
    }

    /// Whether the first line holds names.
    #[must_use]
    pub const fn has_header(&self) -> bool {
        matches!(self, Self::Separated { .. })
    }

    /// Whether a line break in quotes does not end the line.
    #[must_use]
    pub const fn spans_lines(&self) -> bool {
        matches!(self, Self::Separated { quoting: true, .. })
    }

    /// Takes the names from the first line.
    ///
    /// # Errors
    /// When it is not text.
    pub fn read_header(&mut self, line: &[u8]) -> Result<()> {
        if let Self::Separated { separator, quoting, header } = self {
            *header = values(line, *separator, *quoting).ok_or_else(|| anyhow!("the header is not readable"))?;
        }
        Ok(())
    }

    /// The fields of a line.
    ///
    /// # Errors
    /// [`Reason::Malformed`], with what does not fit.
    pub fn read(&self, line: &[u8]) -> Result<Line, Refusal> {
        let malformed = |what: String| Refusal::whole(Reason::Malformed, what);
        match self {
            Self::Ndjson => serde_json::from_slice(line)
                .map(Line::Json)
                .map_err(|e| malformed(format!("the line is not a JSON object: {e}"))),
            Self::Separated { separator, quoting, header } => {
                let values = values(line, *separator, *quoting)
                    .ok_or_else(|| malformed("the line's values cannot be told apart".to_owned()))?;
                Ok(Line::Named(header.iter().cloned().zip(values).collect()))
            }
            Self::Combined => combined(line)
                .map(Line::Named)
                .ok_or_else(|| malformed("the line does not match the combined log format".to_owned())),
        }
    }
}

/// The values of a line; none when they cannot be told apart, or when a carriage return makes it two.
fn values(line: &[u8], separator: u8, quoting: bool) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .quoting(quoting)
        .has_headers(false)
        .flexible(true)
        .from_reader(line);
    let mut record = csv::StringRecord::new();
    if !reader.read_record(&mut record).ok()? || reader.read_record(&mut csv::StringRecord::new()).ok()? {
        return None;
    }
    Some(record.iter().map(str::to_owned).collect())
}

/// ```text
/// client ident user [time] "method target protocol" status bytes "referrer" "agent"
/// ```
/// A quote within a quoted part is written `\"`.
fn combined(line: &[u8]) -> Option<Vec<(String, String)>> {
    let line = std::str::from_utf8(line).ok()?;
    let (client, rest) = line.split_once(' ')?;
    let (ident, rest) = rest.split_once(' ')?;
    let (user, rest) = rest.split_once(" [")?;
    let (time, rest) = rest.split_once("] ")?;
    let (request, rest) = quoted(rest)?;
    let (status, rest) = rest.trim_start().split_once(' ')?;
    let (bytes, rest) = rest.split_once(' ')?;
    let (referrer, rest) = quoted(rest)?;
    let (agent, rest) = quoted(rest.trim_start())?;
    let known =
        rest.trim().is_empty() && status.parse::<u16>().is_ok() && (bytes == "-" || bytes.parse::<u64>().is_ok());
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    known.then(|| {
        [
            ("client", client),
            ("ident", ident),
            ("user", user),
            ("time", time),
            ("method", method),
            ("target", target),
            ("status", status),
            ("bytes", bytes),
            ("referrer", referrer),
            ("agent", agent),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    })
}

/// The part in quotes that a text begins with, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some((text.get(..at)?, text.get(at + 1..)?)),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log() {
        let line = br#"1.2.3.4 - bob [17/May/2015:10:05:03 +0000] "GET /a?b HTTP/1.1" 200 17 "-" "Agent \"x\"""#;
        let fields = LineReader::Combined.read(line).unwrap();
        assert_eq!(fields.text("target").as_deref(), Some("/a?b"));
        assert_eq!(fields.text("time").as_deref(), Some("17/May/2015:10:05:03 +0000"));
        let cut = &line[..line.len() - 1];
        assert!(LineReader::Combined.read(cut).is_err(), "the agent is not closed");
    }

    #[test]
    fn separated_values() {
        let mut reader = LineReader::new(Format::Csv);
        reader.read_header(b"a,b").unwrap();
        let fields = reader.read(b"\"x,\"\"y\",2,3").unwrap();
        assert_eq!((fields.text("a").as_deref(), fields.text("b").as_deref()), (Some("x,\"y"), Some("2")));
        assert!(reader.read(b"x,1\ry,2").is_err(), "two records are not one");
        assert!(reader.read(b"x,1\ny,2").is_err(), "two records are not one");
        let mut reader = LineReader::new(Format::Tsv);
        reader.read_header(b"a\tb").unwrap();
        assert_eq!(reader.read(b"\"x\t2\t\t").unwrap().text("a").as_deref(), Some("\"x"));
    }
}
