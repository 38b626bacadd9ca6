//! Alerts: rules in SQL that are looked at again and again, and people who are told.
//!
//! ```text
//! rule ─every─▶ Ask (SQL) ─rows, none, an error─▶ Machine ─▶ Message ─▶ Outbox ─┬─queue─▶ Webhook
//!                                                  (pure)                       └─queue─▶ Mail
//! ```
//!
//! [`rules`] is the file that says what is looked at and who is told, [`state`] decides, purely, what is told and when,
//! [`message`] is what is told, [`deliver`] gets it to the receivers ([`webhook`], [`mail`]), again when one fails,
//! [`run`] does all of it by the clock, [`once`] a single time for the command line, [`stats`] counts.

pub mod deliver;
pub mod mail;
pub mod message;
pub mod once;
pub mod receiver;
pub mod rules;
pub mod run;
pub mod state;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod webhook;

use async_trait::async_trait;
use serde_json::Value;

pub use message::Message;
pub use receiver::{Receiver, SendError, receivers};
pub use rules::{AlertSettings, AlertsError, Rule};
pub use run::{Alerts, AlertsParts, IsMine, Running};
pub use stats::AlertStats;

/// Most rows of an answer that anybody is told.
pub const ROWS_MAX: usize = 20;

/// Whom rules ask.
#[async_trait]
pub trait Ask: Send + Sync {
    /// The rows of a query.
    ///
    /// # Errors
    /// A sentence: when it cannot be answered, and when there are no rows and some may be missing (R-7).
    async fn rows(&self, sql: &str) -> Result<Answer, String>;
}

/// The answer to a rule's query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Rows as objects, at most [`ROWS_MAX`].
    pub rows: Vec<Value>,
    /// How many rows there are.
    pub total: u64,
    /// Whether there are more than that.
    pub is_cut: bool,
    /// What the answer lacks, as it says; none when it is complete.
    pub missing: Option<String>,
}
