//! Tables: what the page shows in rows. The first cell of a row names it.

use super::format::{count, signed, visible};

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What it is.
    pub caption: String,
    /// The head of each column.
    pub heads: Vec<Head>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What to know about it, or nothing.
    pub note: String,
}

/// The head of a column.
#[derive(Debug, Clone)]
pub struct Head {
    /// What is in the column.
    pub text: &'static str,
    /// Its CSS class.
    pub class: &'static str,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// What the row is about.
    pub name: Cell,
    /// All other cells.
    pub cells: Vec<Cell>,
}

/// A cell. A line break in its text is one on the page.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// Its CSS class.
    pub class: &'static str,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(caption: &str, heads: Vec<Head>) -> Self {
        Self { caption: caption.to_owned(), heads, ..Self::default() }
    }

    /// One more row.
    pub fn row(&mut self, name: Cell, cells: Vec<Cell>) {
        self.rows.push(Row { name, cells });
    }
}

impl Head {
    /// Of a column of texts.
    #[must_use]
    pub const fn text(text: &'static str) -> Self {
        Self { text, class: "t" }
    }

    /// Of a column of numbers.
    #[must_use]
    pub const fn number(text: &'static str) -> Self {
        Self { text, class: "n" }
    }
}

impl Cell {
    /// A text from outside, with everything in it to be seen.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::ours(visible(text))
    }

    /// A text of our own making, which may have line breaks.
    #[must_use]
    pub fn ours(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: "t" }
    }

    /// Sentences of our own making, which need some room.
    #[must_use]
    pub fn long(text: String) -> Self {
        Self { text, class: "t long" }
    }

    /// A number.
    #[must_use]
    pub fn count(number: impl Into<u128>) -> Self {
        Self { text: count(number), class: "n" }
    }

    /// A number as it is written already.
    #[must_use]
    pub fn number(text: String) -> Self {
        Self { text, class: "n" }
    }

    /// A number that may not be known.
    #[must_use]
    pub fn maybe(number: Option<u64>) -> Self {
        number.map_or_else(|| Self { text: "not read".to_owned(), class: "n" }, Self::count)
    }

    /// A difference, which should be 0.
    #[must_use]
    pub fn difference(number: i128) -> Self {
        Self { text: signed(number), class: if number == 0 { "n" } else { "n bad" } }
    }

    /// A number that should be 0.
    #[must_use]
    pub fn wrong(number: impl Into<u128>) -> Self {
        let number = number.into();
        Self { text: count(number), class: if number == 0 { "n" } else { "n bad" } }
    }

    /// Whether something is as it should be.
    #[must_use]
    pub fn right(right: bool) -> Self {
        let (text, class) = if right { ("✓ yes", "t") } else { ("✗ no", "t bad") };
        Self { text: text.to_owned(), class }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_stand_out() {
        assert_eq!(Cell::difference(0).class, "n");
        assert_eq!(Cell::difference(-3).class, "n bad");
        assert_eq!(Cell::difference(-3).text, "-3");
        assert_eq!(Cell::wrong(0_u64).class, "n");
        assert_eq!(Cell::maybe(None).text, "not read");
        assert!(Cell::right(false).text.contains("no"), "it is told without its colour");
    }
}
