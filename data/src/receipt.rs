//! What the gateway answers to events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::Reason;

/// The verdict on every event of a request; written after all of them are durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Events taken.
    pub accepted: u64,
    /// Events refused; they lie in the dead letters.
    pub refused: u64,
    /// Where the events taken lie.
    pub places: Vec<Places>,
    /// Every refused event, the first thousand of them.
    pub errors: Vec<RefusedEvent>,
}

/// Events that lie next to each other in one record: [`first_index`, `last_index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Places {
    /// Log partition.
    pub partition: u32,
    /// Record.
    pub offset: u64,
    /// Index in the record of the first.
    pub first_index: u32,
    /// Index in the record of the last.
    pub last_index: u32,
}

/// An event that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedEvent {
    /// Its index in the request, from 0.
    pub index: u64,
    /// What kind of thing is wrong.
    pub reason: Reason,
    /// The field it is wrong with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}
