//! The server as the canary sees it: a front door for events, and answers.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use reckon_data::receipt::Receipt;

use super::judge::{Counted, Found};
use super::plan::{Body, Plan};

/// Why something was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// The address is none.
    #[error("{url:?} is not the address of a server: {reason}")]
    BadUrl {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Nothing was heard, or not in time.
    #[error("{url} does not answer: {reason}")]
    Silent {
        /// What was asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It said no.
    #[error("{url} says {status}: {detail}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// The answer cannot be understood.
    #[error("the answer of {url} cannot be understood: {reason}")]
    Unreadable {
        /// What was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl DoorError {
    /// Whether the same request is refused later, too.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let Self::Refused { status, .. } = self else { return false };
        (400..500).contains(status) && ![408, 425, 429].contains(status)
    }
}

/// The server as the canary sees it. Each request is made once; whoever asks asks again. Minutes are since 1970.
#[async_trait]
pub trait Door: Debug + Send + Sync {
    /// Sends events. To send a body again is harmless.
    ///
    /// # Errors
    /// See [`DoorError`]; the events may or may not have been taken then.
    async fn send(&self, body: &Body) -> Result<Receipt, DoorError>;

    /// All that is counted of a round's entities in its minutes, by SQL.
    ///
    /// # Errors
    /// See [`DoorError`].
    async fn counts(&self, plan: &Plan) -> Result<Counted, DoorError>;

    /// What is counted of an entity and type in some minutes, by REST.
    ///
    /// # Errors
    /// See [`DoorError`].
    async fn count(&self, entity: &str, event_type: &str, minutes: Range<i64>) -> Result<Found, DoorError>;

    /// The ids of a round's events that are archived as raw events.
    ///
    /// # Errors
    /// See [`DoorError`].
    async fn archived(&self, plan: &Plan) -> Result<BTreeSet<String>, DoorError>;
}
