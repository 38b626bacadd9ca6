//! The usual form of an event's JSON, read in one pass: known fields, each given once and of its type, and
//! no escapes in a text. Nearly all events have it. Anything else is left to [`super::wire`], which knows
//! what to say about it.

use std::ops::Range;

use super::json::{DEPTH_MAX, Scanner};
use super::{Draft, time};
use crate::decimal;

/// The fields of an event in the usual form; `None` when it has another.
pub(super) fn read(text: &str) -> Option<Draft<'_>> {
    let mut reader = Reader { text, scanner: Scanner::new(text.as_bytes()) };
    let mut draft = Draft::default();
    reader.scanner.space();
    reader.eat(b'{')?;
    let mut seen = 0_u32;
    loop {
        reader.scanner.space();
        let name = reader.text()?;
        reader.scanner.space();
        reader.eat(b':')?;
        reader.scanner.space();
        let bit = reader.field(name, &mut draft)?;
        if seen & bit != 0 {
            return None;
        }
        seen |= bit;
        reader.scanner.space();
        match reader.scanner.peek()? {
            b',' => reader.scanner.eat(b','),
            _ => break,
        };
    }
    reader.eat(b'}')?;
    reader.scanner.end().ok()?;
    Some(draft)
}

struct Reader<'a> {
    text: &'a str,
    scanner: Scanner<'a>,
}

impl<'a> Reader<'a> {
    #[inline]
    fn eat(&mut self, byte: u8) -> Option<()> {
        self.scanner.eat(byte).then_some(())
    }

    #[inline]
    fn slice(&self, range: Range<usize>) -> Option<&'a str> {
        self.text.get(range)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a str> {
        let (range, escaped) = self.scanner.text().ok()?;
        if escaped { None } else { self.slice(range) }
    }

    /// Reads a value into its field; answers with the field's bit.
    #[inline]
    fn field(&mut self, name: &str, draft: &mut Draft<'a>) -> Option<u32> {
        // In the order of `wire::FIELDS`.
        let index = match name {
            "event_id" => 0,
            "event_type" => 1,
            "entity_id" => 2,
            "event_time" => 3,
            "user_id" => 4,
            "ip" => 5,
            "country" => 6,
            "value" => 7,
            "properties" => 8,
            _ => return None,
        };
        if self.scanner.peek() == Some(b'n') {
            self.scanner.literal("null").ok()?;
            return Some(1 << index);
        }
        match index {
            0 => draft.event_id = Some(self.text()?),
            1 => draft.event_type = Some(self.text()?),
            2 => draft.entity_id = Some(self.text()?),
            3 => draft.event_time = Some(self.time()?),
            4 => draft.user_id = Some(self.text()?),
            5 => draft.ip = Some(self.text()?),
            6 => draft.country = Some(self.text()?),
            7 => draft.value = Some(self.value()?),
            _ => draft.properties = Some(self.object()?),
        }
        Some(1 << index)
    }

    fn text_or_number(&mut self) -> Option<(&'a str, bool)> {
        if self.scanner.peek()? == b'"' {
            return Some((self.text()?, true));
        }
        let range = self.scanner.number().ok()?;
        Some((self.slice(range)?, false))
    }

    fn time(&mut self) -> Option<i64> {
        match self.text_or_number()? {
            (text, true) => time::parse_rfc3339(text),
            (number, false) => time::from_millis(number.parse().ok()?),
        }
    }

    fn value(&mut self) -> Option<i64> {
        decimal::parse_micro(self.text_or_number()?.0).ok()
    }

    fn object(&mut self) -> Option<&'a str> {
        if self.scanner.peek()? != b'{' {
            return None;
        }
        let start = self.scanner.at();
        // The event around it is a level too.
        self.scanner.value_within(DEPTH_MAX - 1).ok()?;
        self.slice(start..self.scanner.at())
    }
}
