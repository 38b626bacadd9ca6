//! Who is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Message;
use super::mail::Mail;
use super::rules::{AlertSettings, AlertsError};
use super::webhook::Webhook;

/// How long it may take to post a message, or to connect to a mail server.
pub const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SendError {
    /// A sentence.
    pub reason: String,
    /// Whether the same message cannot be delivered later, either.
    pub is_final: bool,
}

/// Somebody who is told.
///
/// A message that arrives twice, because the first answer was lost, has the same [`Message::key`] both times.
#[async_trait]
pub trait Receiver: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// Delivers a message, once.
    ///
    /// # Errors
    /// When it was not taken, or nobody knows.
    async fn send(&self, message: &Message) -> Result<(), SendError>;
}

/// All receivers of the settings.
///
/// # Errors
/// The first that cannot be made, by name.
pub fn receivers(settings: &AlertSettings) -> Result<Vec<Arc<dyn Receiver>>, AlertsError> {
    let mut receivers: Vec<Arc<dyn Receiver>> = Vec::new();
    for (name, webhook) in &settings.webhooks {
        receivers.push(Arc::new(Webhook::new(name, webhook)?));
    }
    for (name, mail) in &settings.mail {
        receivers.push(Arc::new(Mail::new(name, mail)?));
    }
    Ok(receivers)
}
