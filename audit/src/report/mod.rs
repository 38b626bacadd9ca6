//! The report of an audit: what it says ([`model`]) and how it looks.
//!
//! [`page`] is for people and for keeping, [`terminal`] for those who wait for it, [`json`] for programs.

mod chart;
mod format;
pub mod model;
mod page;
mod table;
mod terminal;
#[cfg(test)]
pub mod testing;
mod words;

pub use page::{PageError, page};
pub use terminal::terminal;

use model::Report;

/// A report as JSON, indented.
#[must_use]
pub fn json(report: &Report) -> String {
    // It has neither maps with other keys than texts nor anything else that JSON cannot say.
    serde_json::to_string_pretty(report)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_all_that_there_is() {
        let report = testing::sample();
        let text = json(&report);
        assert!(text.contains("\n  \"run_id\""), "it is indented");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
