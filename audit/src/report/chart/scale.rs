//! Scales: from a number to its place, and the numbers that stand at an axis.

/// Most steps of an axis.
const STEPS: f64 = 5.0;

/// A linear scale.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// From one number at the axis to the next.
    step: f64,
    /// The largest number.
    top: f64,
    /// The place of 0.
    zero: f64,
    /// The place of the largest number.
    end: f64,
}

impl Scale {
    /// A scale from 0, at `zero`, to what is round and no less than `most`, at `end`.
    #[must_use]
    pub fn new(most: f64, zero: f64, end: f64) -> Self {
        let step = step(most);
        let top = ((most / step).ceil() * step).max(step);
        Self { step, top, zero, end }
    }

    /// The place of a number.
    #[must_use]
    pub fn at(&self, value: f64) -> f64 {
        place(self.zero + value / self.top * (self.end - self.zero))
    }

    /// How long a number is; what is not 0 is never too short to be seen.
    #[must_use]
    pub fn long(&self, value: f64, least: f64) -> f64 {
        if value == 0.0 { 0.0 } else { place((value / self.top * (self.end - self.zero)).abs().max(least)) }
    }

    /// Round numbers from 0 to the top.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        let steps = (self.top / self.step).round() as u32;
        (0..=steps).map(|n| f64::from(n) * self.step).collect()
    }
}

/// A whole and round step: 1, 2 or 5, times a power of ten.
fn step(most: f64) -> f64 {
    let raw = most / STEPS;
    if raw <= 1.0 {
        return 1.0;
    }
    let power = 10_f64.powi(raw.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| raw <= factor * power).unwrap_or(10.0);
    factor * power
}

/// A place, as exactly as a picture needs it.
#[must_use]
pub fn place(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Which of `all` get a label when there is room for `most`: spread evenly, the first and the last among them.
#[must_use]
pub fn labelled(all: usize, most: usize) -> Vec<usize> {
    if all <= most || most < 2 {
        return (0..all.min(most)).collect();
    }
    (0..most).map(|n| n * (all - 1) / (most - 1)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_are_round() {
        for (most, expected) in [(0.0, 1.0), (1.0, 1.0), (5.0, 1.0), (6.0, 2.0), (24.0, 5.0), (26.0, 10.0), (1e6, 2e5)]
        {
            assert_eq!(step(most), expected, "{most}");
        }
    }

    #[test]
    fn an_axis_of_nothing_still_has_a_top() {
        let scale = Scale::new(0.0, 100.0, 0.0);
        assert_eq!(scale.ticks(), [0.0, 1.0]);
        assert_eq!(scale.at(0.0), 100.0);
        assert_eq!(scale.long(0.0, 3.0), 0.0);
    }

    #[test]
    fn the_first_and_the_last_get_a_label() {
        assert_eq!(labelled(0, 5), Vec::<usize>::new());
        assert_eq!(labelled(1, 5), [0]);
        assert_eq!(labelled(3, 5), [0, 1, 2]);
        assert_eq!(labelled(200, 5), [0, 49, 99, 149, 199]);
    }

    proptest! {
        #[test]
        fn whatever_is_drawn_lies_on_its_axis(most in any::<u64>(), share in 0.0..=1.0_f64) {
            let most = most as f64;
            let scale = Scale::new(most, 300.0, 20.0);
            let ticks = scale.ticks();
            prop_assert!((2..=7).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks.last().is_some_and(|top| *top >= most * 0.999_999_999));
            prop_assert!((20.0..=300.0).contains(&scale.at(most * share)));
        }

        #[test]
        fn nothing_that_differs_is_too_short_to_be_seen(value in 1_u64.., more in any::<u64>()) {
            let scale = Scale::new(value.max(more) as f64, 300.0, 20.0);
            prop_assert!(scale.long(value as f64, 3.0) >= 3.0);
        }
    }
}
