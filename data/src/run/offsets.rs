//! Ends of consecutive ranges, four bytes each as long as they fit.

use std::ops::Range;

/// The ends of ranges that lie next to each other from 0 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offsets {
    Small(Vec<u32>),
    /// From the first end on that does not fit a `u32`.
    Large(Vec<u64>),
}

impl Default for Offsets {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Offsets {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self::Small(Vec::with_capacity(capacity))
    }

    pub(super) fn push(&mut self, end: usize) {
        match self {
            Self::Small(ends) => match u32::try_from(end) {
                Ok(end) => ends.push(end),
                Err(_) => {
                    let mut large: Vec<u64> = ends.iter().map(|end| u64::from(*end)).collect();
                    large.push(end as u64);
                    *self = Self::Large(large);
                }
            },
            Self::Large(ends) => ends.push(end as u64),
        }
    }

    /// The range at `at`, which must be there.
    pub(super) fn range(&self, at: usize) -> Range<usize> {
        let start = if at == 0 { 0 } else { self.end(at - 1) };
        start..self.end(at)
    }

    fn end(&self, at: usize) -> usize {
        match self {
            Self::Small(ends) => ends[at] as usize,
            Self::Large(ends) => ends[at] as usize,
        }
    }

    pub(super) fn shrink(&mut self) {
        match self {
            Self::Small(ends) => ends.shrink_to_fit(),
            Self::Large(ends) => ends.shrink_to_fit(),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Small(ends) => ends.capacity() * size_of::<u32>(),
            Self::Large(ends) => ends.capacity() * size_of::<u64>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_past_four_gibibytes_are_kept() {
        let mut offsets = Offsets::default();
        let ends = [3, 3, u32::MAX as usize, u32::MAX as usize + 5, u32::MAX as usize + 6];
        ends.iter().for_each(|end| offsets.push(*end));
        let mut start = 0;
        for (at, end) in ends.into_iter().enumerate() {
            assert_eq!(offsets.range(at), start..end);
            start = end;
        }
    }
}
