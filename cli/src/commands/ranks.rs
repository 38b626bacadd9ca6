//! What changes between one top list and the next, and how it is laid out: pure.

use serde_json::Value;

/// Columns of a bar at the least; where there is no room for so many there is none.
const BAR_MIN: usize = 8;
/// Columns of a name at the least.
const NAME_MIN: usize = 8;
/// Columns of how a rank has changed.
const MOVED: usize = 5;

/// An entity in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is ranked by.
    pub count: u64,
}

/// How a rank has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It was not in the list before; or there was none.
    New,
    /// It has risen by so many places.
    Up(usize),
    /// It has fallen by so many.
    Down(usize),
    /// It stands where it stood.
    Still,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// The entity.
    pub entry: Entry,
    /// How its rank has changed.
    pub moved: Moved,
    /// By how much its count has grown, if it was in the list before and has.
    pub grown: Option<u64>,
}

/// The entities of an answer to `GET /v1/top`, or its channels, in order.
#[must_use]
pub fn entries(answer: &Value) -> Vec<Entry> {
    let by_channel = answer["channels"].is_array();
    let (list, field) = if by_channel { ("channels", "channel") } else { ("entities", "entity_id") };
    let entry = |row: &Value| {
        let count = &row["count"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        // Entities without a channel stand together.
        let nameless = (by_channel && row[field].is_null()).then_some("-");
        Some(Entry { name: row[field].as_str().or(nameless)?.to_owned(), count })
    };
    answer[list].as_array().into_iter().flatten().filter_map(entry).collect()
}

/// What has changed since the list before; in the first list nothing has.
#[must_use]
pub fn compare(before: Option<&[Entry]>, now: &[Entry]) -> Vec<Ranked> {
    let ranked = |(rank, entry): (usize, &Entry)| {
        let Some(before) = before else {
            return Ranked { entry: entry.clone(), moved: Moved::Still, grown: None };
        };
        let then = before.iter().position(|other| other.name == entry.name);
        let moved = match then {
            None => Moved::New,
            Some(then) if then > rank => Moved::Up(then - rank),
            Some(then) if then < rank => Moved::Down(rank - then),
            Some(_) => Moved::Still,
        };
        let grown = then.and_then(|then| before.get(then)).and_then(|then| entry.count.checked_sub(then.count));
        Ranked { entry: entry.clone(), moved, grown: grown.filter(|grown| *grown > 0) }
    };
    now.iter().enumerate().map(ranked).collect()
}

/// The lines of a list, none wider than `columns`: rank, how it has changed, name, count, growth, and a bar as long as the
/// count is high where there is room for it.
#[must_use]
pub fn lines(list: &[Ranked], columns: usize) -> Vec<String> {
    let rank_width = digits(list.len() as u64);
    let count_width = list.iter().map(|ranked| digits(ranked.entry.count)).max().unwrap_or(1);
    let grown_width = list.iter().filter_map(|ranked| ranked.grown).map(|grown| digits(grown) + 1).max().unwrap_or(0);
    let longest = list.iter().map(|ranked| ranked.entry.name.chars().count()).max().unwrap_or(0);
    // With the spaces between them.
    let fixed = rank_width + 1 + MOVED + 1 + count_width + 1 + grown_width + 1;
    let name_width = longest.min(columns.saturating_sub(fixed)).max(NAME_MIN);
    let bar_width = columns.saturating_sub(fixed + name_width + 1);
    let most = list.iter().map(|ranked| ranked.entry.count).max().unwrap_or(0).max(1);
    let line = |(rank, ranked): (usize, &Ranked)| {
        let (rank, moved) = (rank + 1, moved(ranked.moved));
        let name = fitted(&ranked.entry.name, name_width);
        let count = ranked.entry.count;
        let grown = ranked.grown.map_or_else(String::new, |grown| format!("+{grown}"));
        let mut line = format!(
            "{rank:>rank_width$} {moved:<MOVED$} {name:<name_width$} {count:>count_width$} {grown:>grown_width$}"
        );
        if bar_width >= BAR_MIN {
            line.push(' ');
            line.push_str(&bar(count, most, bar_width));
        }
        fitted(line.trim_end(), columns)
    };
    list.iter().enumerate().map(line).collect()
}

fn moved(moved: Moved) -> String {
    match moved {
        Moved::New => "new".to_owned(),
        Moved::Up(places) => format!("▲{places}"),
        Moved::Down(places) => format!("▼{places}"),
        Moved::Still => String::new(),
    }
}

fn bar(count: u64, most: u64, width: usize) -> String {
    let share = u128::from(count) * width as u128 / u128::from(most.max(1));
    let length = usize::try_from(share).unwrap_or(width).min(width);
    "█".repeat(if count > 0 { length.max(1) } else { 0 })
}

/// A text in so many columns at the most, and without anything that a terminal would act upon.
#[must_use]
pub fn fitted(text: &str, columns: usize) -> String {
    let shown: Vec<char> = text.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    if shown.len() <= columns {
        return shown.into_iter().collect();
    }
    let mut cut: String = shown.into_iter().take(columns.saturating_sub(1)).collect();
    if columns > 0 {
        cut.push('…');
    }
    cut
}

const fn digits(mut number: u64) -> usize {
    let mut digits = 1;
    while number > 9 {
        number /= 10;
        digits += 1;
    }
    digits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(entries: &[(&str, u64)]) -> Vec<Entry> {
        entries.iter().map(|(name, count)| Entry { name: (*name).to_owned(), count: *count }).collect()
    }

    #[test]
    fn ranks_move() {
        let before = list(&[("a", 9), ("b", 5), ("c", 4)]);
        let now = list(&[("c", 11), ("a", 9), ("d", 6)]);
        let ranked = compare(Some(&before), &now);
        let told: Vec<(Moved, Option<u64>)> = ranked.iter().map(|ranked| (ranked.moved, ranked.grown)).collect();
        assert_eq!(told, [(Moved::Up(2), Some(7)), (Moved::Down(1), None), (Moved::New, None)]);
        assert!(compare(None, &now).iter().all(|ranked| ranked.moved == Moved::Still && ranked.grown.is_none()));
        let shrunk = compare(Some(&now), &list(&[("c", 3)]));
        assert_eq!((shrunk[0].moved, shrunk[0].grown), (Moved::Still, None), "a window may move on");
    }

    #[test]
    fn a_list_is_laid_out() {
        let ranked =
            compare(Some(&list(&[("video-2", 1), ("video-1", 10)])), &list(&[("video-1", 12), ("video-2", 3)]));
        let wide = lines(&ranked, 60);
        assert!(wide[0].starts_with("1 ▲1    video-1  12 +2 "), "{wide:?}");
        assert!(wide[1].starts_with("2 ▼1    video-2   3 +2 "), "{wide:?}");
        let bars: Vec<usize> = wide.iter().map(|line| line.matches('█').count()).collect();
        assert_eq!(bars, [37, 9], "a quarter, in whole columns: {wide:?}");
        assert_eq!(wide[0].chars().count(), 60);
        let narrow = lines(&ranked, 20);
        assert!(narrow.iter().all(|line| line.chars().count() <= 20 && !line.contains('█')), "{narrow:?}");
        assert!(lines(&[], 80).is_empty());
    }

    #[test]
    fn answers_are_read() {
        let answer =
            json!({"entities": [{"entity_id": "a", "count": 3}, {"entity_id": "b", "count": "2"}, {"count": 1}]});
        assert_eq!(entries(&answer), list(&[("a", 3), ("b", 2)]));
        assert!(entries(&json!({})).is_empty());
        let channels = json!({"channels": [{"channel": "a", "count": 3}, {"channel": null, "count": 2}]});
        assert_eq!(entries(&channels), list(&[("a", 3), ("-", 2)]));
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        assert_eq!(fitted("a\u{1b}[2J\nb", 80), "a·[2J·b");
        assert_eq!((fitted("abcdef", 4).as_str(), fitted("abc", 0).as_str()), ("abc…", ""));
    }

    #[test]
    fn no_line_is_too_wide() {
        let names = ["", "a", "an entity with a rather long name that has to be cut", "ünï\u{7}côde"];
        let now: Vec<Entry> = (0..12)
            .map(|number| Entry { name: names[number % names.len()].to_owned(), count: 10_u64.pow(number as u32) })
            .collect();
        let before: Vec<Entry> = now.iter().rev().cloned().collect();
        for columns in 1..200 {
            for line in lines(&compare(Some(&before), &now), columns) {
                assert!(line.chars().count() <= columns, "{line:?} in {columns}");
            }
        }
    }
}
