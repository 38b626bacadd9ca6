//! The report as one page of HTML, with everything in it: no script, and nothing from elsewhere.

mod facts;
mod findings;
mod tables;
#[cfg(test)]
mod tests;
mod view;

use askama::Template;
use uuid::Uuid;

use self::view::View;
use super::model::{Report, RunSummary};

/// A page that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the page of audit run {run_id} cannot be written: {source}")]
pub struct PageError {
    /// The run.
    pub run_id: Uuid,
    /// What is wrong.
    source: askama::Error,
}

/// The page of a report, whose own hash is `hash`. `trend` is other runs, in any order, with this one or without it;
/// later ones are left out.
///
/// # Errors
/// When the page cannot be put together.
pub fn page(report: &Report, hash: &str, trend: &[RunSummary]) -> Result<String, PageError> {
    let view = View::new(report, hash, trend);
    view.render().map_err(|source| PageError { run_id: report.run_id, source })
}
