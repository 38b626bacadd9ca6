//! When repeats arrive, beside the dedup window: how many it drops, and how many come after it.

use super::scale::{Scale, place};
use super::{Bar, Chart, KEY_BAR, KEY_RULE, LEAST, slot};
use crate::report::format::{bytes, count, duration, exact_minutes, exact_seconds, many};
use crate::report::model::{Horizon, HorizonBucket};
use crate::report::table::{Cell, Head, Table};

/// The upper end of the drawing.
const TOP: f64 = 44.0;
/// The lower end of the drawing.
const BOTTOM: f64 = 224.0;
/// Most labels below bars.
const LABELS_MAX: usize = 10;

/// Repeats by delay after the first copy, with the window of now and the recommended one.
#[must_use]
pub fn horizon(horizon: &Horizon) -> Chart {
    let (now, better) = (horizon.window_minutes.saturating_mul(60), horizon.recommended_minutes.saturating_mul(60));
    let buckets = reaching(&horizon.buckets, now.max(better));
    let mut chart = Chart::new("horizon", "Repeats by delay after the first copy", BOTTOM + 30.0);
    let most = buckets.iter().map(|bucket| bucket.repeats).max().unwrap_or(0);
    let scale = Scale::new(most as f64, BOTTOM, TOP);
    chart.axis(&scale);
    bars(&mut chart, &buckets, &scale, now);
    window(&mut chart, "now", place_of(&buckets, now), TOP - 24.0, &format!("now {}", duration(now)));
    if horizon.repeats > 0 {
        let text = format!("recommended {}", duration(better));
        window(&mut chart, "better", place_of(&buckets, better), TOP - 8.0, &text);
        chart.key("better", KEY_RULE, "recommended window (dashed)");
    }
    chart.key("now", KEY_RULE, "dedup window now (solid)");
    chart.key("found", KEY_BAR, "repeats that come within the window");
    chart.key("off", KEY_BAR, "repeats of buckets that end after it");
    chart.summary = format!(
        "{} looked at; {} after the window of {}.",
        many(horizon.repeats, "repeat", "repeats"),
        count(horizon.past_window),
        exact_minutes(horizon.window_minutes),
    );
    chart.note = "A bar is the repeats that came within its time and not within that of the bar before.".to_owned();
    chart.tables.extend([numbers(&horizon.buckets), sums(horizon)]);
    chart
}

/// The buckets, with an empty one behind them where a window would end outside of the picture.
fn reaching(buckets: &[HorizonBucket], seconds: u64) -> Vec<HorizonBucket> {
    let mut buckets = buckets.to_vec();
    if buckets.last().is_none_or(|last| last.seconds < seconds) {
        buckets.push(HorizonBucket { seconds, repeats: 0 });
    }
    buckets
}

fn bars(chart: &mut Chart, buckets: &[HorizonBucket], scale: &Scale, now: u64) {
    let every = buckets.len().div_ceil(LABELS_MAX).max(1);
    let mut from = 0;
    for (index, bucket) in buckets.iter().enumerate() {
        let (x, width) = slot(index, buckets.len());
        let height = scale.long(bucket.repeats as f64, LEAST);
        let class = if bucket.seconds <= now { "found" } else { "off" };
        let repeats = many(bucket.repeats, "repeat", "repeats");
        let hint = format!("after {} to {}: {repeats}", duration(from), duration(bucket.seconds));
        let (left, wide) = (place(x + width * 0.1), place(width * 0.8));
        chart.bars.push(Bar { class, x: left, y: place(BOTTOM - height), width: wide, height, hint });
        if (index + 1).is_multiple_of(every) {
            chart.label("end", x + width, BOTTOM + 18.0, format!("≤ {}", duration(bucket.seconds)));
        }
        from = bucket.seconds;
    }
}

fn window(chart: &mut Chart, class: &'static str, x: f64, y: f64, text: &str) {
    chart.rule(class, x, y + 4.0, BOTTOM);
    // Held on the side that has room.
    let label = if x > super::WIDTH / 2.0 { "end" } else { "start" };
    chart.label(label, x, y, text);
}

/// Where a delay lies among the buckets, of which each is drawn as wide as any other.
fn place_of(buckets: &[HorizonBucket], seconds: u64) -> f64 {
    let mut from = 0;
    for (index, bucket) in buckets.iter().enumerate() {
        if seconds <= bucket.seconds {
            let (x, width) = slot(index, buckets.len());
            return x + width * share(from, bucket.seconds, seconds);
        }
        from = bucket.seconds;
    }
    super::RIGHT
}

/// How far along a bucket a delay lies, 0 to 1; by logarithm, as the buckets grow.
fn share(from: u64, to: u64, seconds: u64) -> f64 {
    if to <= from || seconds <= from {
        return 0.0;
    }
    if from == 0 {
        return seconds as f64 / to as f64;
    }
    let from = from as f64;
    (seconds as f64 / from).ln() / (to as f64 / from).ln()
}

fn numbers(buckets: &[HorizonBucket]) -> Table {
    let heads = vec![Head::text("Up to"), Head::number("Seconds"), Head::number("Repeats")];
    let mut table = Table::new("Repeats by delay after the first copy", heads);
    for bucket in buckets {
        table.row(Cell::ours(duration(bucket.seconds)), vec![Cell::count(bucket.seconds), Cell::count(bucket.repeats)]);
    }
    table
}

fn sums(horizon: &Horizon) -> Table {
    let mut table = Table::new("Dedup window", vec![Head::text("What"), Head::number("How much")]);
    let recommended = if horizon.repeats == 0 {
        "no repeats, no recommendation".to_owned()
    } else {
        exact_minutes(horizon.recommended_minutes)
    };
    let rows = [
        ("Repeats looked at", count(horizon.repeats)),
        ("99 of 100 come within", exact_seconds(horizon.p99_seconds)),
        ("The latest came after", exact_seconds(horizon.max_seconds)),
        ("Window now", exact_minutes(horizon.window_minutes)),
        ("Memory of its dedup set", bytes(horizon.window_memory)),
        ("Repeats after the window", count(horizon.past_window)),
        ("Recommended window", recommended),
        ("Memory of its dedup set, if recommended", bytes(horizon.recommended_memory)),
    ];
    for (name, number) in rows {
        table.row(Cell::ours(name), vec![Cell::number(number)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{MARGIN, RIGHT};
    use super::*;

    fn buckets() -> Vec<HorizonBucket> {
        [(1, 50), (10, 20), (100, 5), (1_000, 1)].map(|(seconds, repeats)| HorizonBucket { seconds, repeats }).to_vec()
    }

    #[test]
    fn a_window_stands_where_its_delay_lies() {
        let slot_width = (RIGHT - MARGIN) / 4.0;
        assert_eq!(place_of(&buckets(), 0), MARGIN);
        assert!((place_of(&buckets(), 10) - (MARGIN + 2.0 * slot_width)).abs() < 1e-6);
        assert!((place_of(&buckets(), 1_000) - RIGHT).abs() < 1e-6);
        let between = place_of(&buckets(), 32) - MARGIN - 2.0 * slot_width;
        assert!((between - slot_width / 2.0).abs() < 1.0, "half a power of ten is half a bar: {between}");
    }

    #[test]
    fn a_window_beyond_all_buckets_is_still_in_the_picture() {
        let seen = Horizon { repeats: 76, buckets: buckets(), window_minutes: 600, ..Horizon::default() };
        let chart = horizon(&seen);
        assert_eq!(chart.bars.len(), 5);
        assert!(chart.rules.iter().all(|rule| rule.x1 <= RIGHT));
        assert_eq!(chart.tables[0].rows.len(), 4, "the table has what there was");
    }

    #[test]
    fn without_repeats_nothing_is_recommended() {
        let chart = horizon(&Horizon { window_minutes: 10, ..Horizon::default() });
        assert_eq!(chart.rules.len(), 1);
        assert!(chart.tables[1].rows.iter().any(|row| row.cells[0].text.contains("no recommendation")));
    }

    #[test]
    fn a_recommended_window_is_drawn_beside_that_of_now() {
        let seen = Horizon {
            repeats: 76,
            buckets: buckets(),
            window_minutes: 1,
            recommended_minutes: 15,
            ..Horizon::default()
        };
        let chart = horizon(&seen);
        assert_eq!(chart.rules.len(), 2);
        assert!(chart.rules[0].x1 < chart.rules[1].x1);
        assert_eq!(chart.bars[2].class, "off", "its bucket ends after the window");
    }
}
