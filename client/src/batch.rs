//! Gathers events into bodies of a useful size.

use bytes::Bytes;

/// Lines of JSON, up to a number of bytes.
#[derive(Debug)]
pub struct Batch {
    body: Vec<u8>,
    events: u64,
    bytes_max: usize,
}

impl Batch {
    /// A batch of at most about `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { body: Vec::with_capacity(bytes_max), events: 0, bytes_max }
    }

    /// Adds the JSON of one event, which must not contain a line break.
    pub fn push(&mut self, json: &[u8]) {
        debug_assert!(!json.contains(&b'\n'), "an event is one line");
        self.body.extend_from_slice(json);
        self.body.push(b'\n');
        self.events += 1;
    }

    /// Adds blank lines, which are no events: so that the lines of the body are numbered as those of a file.
    pub fn pad(&mut self, lines: u64) {
        let length = self.body.len().saturating_add(usize::try_from(lines).unwrap_or(usize::MAX));
        self.body.resize(length, b'\n');
    }

    /// How many events it holds.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// How many bytes its body has.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether it should be sent before another event is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.body.len() >= self.bytes_max
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Takes the body; the batch is empty again.
    pub fn take(&mut self) -> Bytes {
        self.events = 0;
        // A body that waits should not hold room that it does not fill.
        if self.body.len() < self.body.capacity() / 2 {
            let body = Bytes::copy_from_slice(&self.body);
            self.body.clear();
            return body;
        }
        let next = Vec::with_capacity(self.bytes_max);
        Bytes::from(std::mem::replace(&mut self.body, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let mut batch = Batch::new(8);
        batch.push(b"{}");
        assert!(!batch.is_full());
        batch.pad(1);
        batch.push(b"{\"a\":1}");
        assert!(batch.is_full());
        assert_eq!((batch.events(), batch.bytes()), (2, 12));
        assert_eq!(batch.take(), Bytes::from_static(b"{}\n\n{\"a\":1}\n"));
        assert!(batch.is_empty());
    }

    #[test]
    fn a_batch_that_was_taken_begins_anew() {
        let mut batch = Batch::new(1_000);
        for _ in 0..2 {
            batch.push(b"{}");
            assert_eq!(batch.take(), Bytes::from_static(b"{}\n"));
            assert_eq!((batch.events(), batch.bytes()), (0, 0));
        }
    }
}
