//! Walking through JSON text: checks its grammar and finds where values begin and end, without making any.
//!
//! Strict where it matters to whoever reads the text later (escapes are real escapes, surrogates come in
//! pairs), and never deeper than [`DEPTH_MAX`], so that no text can exhaust the stack.

use std::ops::Range;

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: u32 = 128;

/// Where a text is no JSON, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset in the text.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// A position in a JSON text that moves forward.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The byte offset it stands at.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The byte it stands at; `None` at the end.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes over white space.
    #[inline]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes over `byte` if it stands there.
    #[inline]
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Passes over `byte`, which must stand there.
    ///
    /// # Errors
    /// `what`, when something else does, or the text has ended.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.eat(byte) { Ok(()) } else { Err(self.fault(what)) }
    }

    fn fault(&self, what: &'static str) -> Fault {
        let what = if self.at >= self.bytes.len() { "the text ends too early" } else { what };
        Fault { at: self.at, what }
    }

    /// Passes over a string; answers where its contents lie, and whether there are escapes in it.
    ///
    /// # Errors
    /// When it is no string.
    #[inline]
    pub fn text(&mut self) -> Result<(Range<usize>, bool), Fault> {
        self.expect(b'"', "a text should begin here")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = next_special(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((start..self.at - 1, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.fault("a control character in a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => match self.code_unit()? {
                0xD800..=0xDBFF if self.eat(b'\\') && self.peek() == Some(b'u') => match self.code_unit()? {
                    0xDC00..=0xDFFF => Ok(()),
                    _ => Err(self.fault("half a surrogate pair")),
                },
                0xD800..=0xDFFF => Err(self.fault("half a surrogate pair")),
                _ => Ok(()),
            },
            _ => Err(self.fault("not an escape")),
        }
    }

    /// The four digits after `u`.
    fn code_unit(&mut self) -> Result<u32, Fault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.fault("not a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(unit)
    }

    /// Passes over a number; answers where it lies.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        } else if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.fault("a number with a leading zero"));
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(start..self.at)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.fault("a digit should stand here")) }
    }

    /// Passes over `word`, which must stand there.
    ///
    /// # Errors
    /// When it does not.
    pub fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.fault("not a value"))
    }

    /// Passes over a value of any kind; answers where it lies.
    ///
    /// # Errors
    /// When it is no value, or nested deeper than [`DEPTH_MAX`].
    pub fn value(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.at;
        self.value_within(DEPTH_MAX)?;
        Ok(start..self.at)
    }

    /// Passes over a value of any kind.
    ///
    /// # Errors
    /// When it is no value, or nested deeper than `depth`.
    pub(super) fn value_within(&mut self, depth: u32) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.text().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b'{' | b'[') if depth == 0 => Err(self.fault("nested too deep")),
            Some(b'{') => self.object(depth - 1),
            Some(b'[') => self.array(depth - 1),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.fault("not a value")),
        }
    }

    fn object(&mut self, depth: u32) -> Result<(), Fault> {
        self.at += 1;
        self.space();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.text()?;
            self.space();
            self.expect(b':', "a colon should stand here")?;
            self.space();
            self.value_within(depth)?;
            self.space();
            if self.eat(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma or the end of the object should stand here")?;
            self.space();
        }
    }

    fn array(&mut self, depth: u32) -> Result<(), Fault> {
        self.at += 1;
        self.space();
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.value_within(depth)?;
            self.space();
            if self.eat(b']') {
                return Ok(());
            }
            self.expect(b',', "a comma or the end of the array should stand here")?;
            self.space();
        }
    }

    /// Passes over white space up to the end of the text.
    ///
    /// # Errors
    /// When something else follows.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fault("something follows the value")) }
    }
}

/// The offset of the next byte that a plain text cannot have: a quote, a backslash, a control character;
/// or the end.
#[inline]
fn next_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    // Eight bytes at once: most texts are short, so wider steps would not pay.
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = specials(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        at += 1;
    }
    at
}

/// The high bit of each special byte of a word; exact for the lowest of them, which is all that is used.
const fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGHS
    }
    let quotes = zeros(word ^ (ONES * b'"' as u64));
    let backslashes = zeros(word ^ (ONES * b'\\' as u64));
    let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    quotes | backslashes | controls
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> Result<(), Fault> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.space();
        scanner.value()?;
        scanner.end()
    }

    #[test]
    fn a_table_of_texts() {
        for good in [
            "0",
            "-0.5e+10",
            " [1, 2,{}] ",
            r#"{"a":{"b":[null,true,false]}}"#,
            r#""\u00e9\"\\\/\b\f\n\r\t""#,
            r#""\ud83d\ude00""#,
            "\"é and \u{7f}\"",
            "[]",
            "{}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, at) in [
            ("", 0),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
            ("+1", 0),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[", 1),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":1,}"#, 7),
            ("{a:1}", 1),
            ("\"a\nb\"", 2),
            (r#""\x""#, 2),
            (r#""\u12g4""#, 5),
            (r#""\ud800""#, 7),
            (r#""\udc00""#, 7),
            (r#""\ud800\n""#, 8),
            ("nul", 0),
            ("1 1", 2),
            ("\"open", 5),
            (r#""\"#, 2),
        ] {
            assert_eq!(check(bad).map_err(|fault| fault.at), Err(at), "{bad}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(&nested(DEPTH_MAX as usize)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX as usize + 1)).unwrap_err().what, "nested too deep");
        assert!(check(&"{\"a\":".repeat(1 << 20)).is_err());
    }

    proptest! {
        #[test]
        fn the_next_special_is_the_first(bytes in proptest::collection::vec(any::<u8>(), 0..40), from in 0..40_usize) {
            let from = from.min(bytes.len());
            let expected = bytes[from..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(next_special(&bytes, from), expected.map_or(bytes.len(), |n| from + n));
        }

        #[test]
        fn takes_what_serde_json_takes(text in r#"[-\[\]{}",:0-9.eEtrufalsn \\\n]{0,12}"#) {
            let taken = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(check(&text).is_ok(), taken, "{}", text);
        }
    }
}
