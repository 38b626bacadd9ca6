//! Messages as JSON over HTTP.

use std::fmt;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};

use super::Message;
use super::receiver::{ATTEMPT_TIME_MAX, Receiver, SendError};
use super::rules::{AlertsError, WebhookSettings, invalid};
use crate::error::root_cause;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Posts each message to an address.
pub struct Webhook {
    name: String,
    http: Client,
    url: Url,
    headers: HeaderMap,
}

/// Not the address, which may be a secret.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Webhook {
    /// A webhook as the settings want it.
    ///
    /// # Errors
    /// When its address or a header is none.
    pub fn new(name: &str, settings: &WebhookSettings) -> Result<Self, AlertsError> {
        let key = |field: &str| format!("webhooks.{name}.{field}");
        let url = Url::parse(&settings.url).map_err(|error| invalid(key("url"), error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(key("url"), "must be http://… or https://…"));
        }
        let mut headers = HeaderMap::new();
        for (header, value) in &settings.headers {
            let bad = |reason: &str| invalid(key(&format!("headers.{header}")), reason);
            let parsed: HeaderName = header.parse().map_err(|_| bad("is no name of a header"))?;
            if parsed == CONTENT_TYPE || parsed.as_str() == IDEMPOTENCY_KEY {
                return Err(bad("is sent with every message already"));
            }
            let mut value: HeaderValue = value.parse().map_err(|_| bad("its text may not stand in a header"))?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        // Whoever redirects a POST makes a GET of it, which tells nobody anything.
        let http = Client::builder().timeout(ATTEMPT_TIME_MAX).redirect(Policy::none()).build();
        let http = http.map_err(|error| invalid(key("url"), error.to_string()))?;
        Ok(Self { name: name.to_owned(), http, url, headers })
    }
}

#[async_trait]
impl Receiver for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let body = serde_json::to_vec(message);
        let body = body.map_err(|error| SendError { reason: error.to_string(), is_final: true })?;
        let request = self
            .http
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(IDEMPOTENCY_KEY, message.key.as_str())
            .body(body);
        // Without the address, which may be a secret.
        let unsent = |error: reqwest::Error| SendError { reason: root_cause(&error.without_url()), is_final: false };
        let status = request.send().await.map_err(unsent)?.status();
        if status.is_success() {
            return Ok(());
        }
        Err(SendError { reason: format!("it answers {status}"), is_final: is_final(status) })
    }
}

/// Whether the same request is refused later, too.
fn is_final(status: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_server_error() && !passing.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> WebhookSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_cannot_be_posted_to_is_refused() {
        for (text, part) in [
            ("url = 'chat'", "webhooks.a.url"),
            ("url = 'ftp://chat'", "https"),
            ("url = 'http://chat'\nheaders = { 'a b' = 'x' }", "headers.a b"),
            ("url = 'http://chat'\nheaders = { Idempotency-Key = 'x' }", "already"),
        ] {
            let error = Webhook::new("a", &settings(text)).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        let good = settings("url = 'https://chat/x'\nheaders = { Authorization = 'Bearer hush' }");
        let webhook = Webhook::new("a", &good).unwrap();
        assert!(!format!("{:?}", webhook.headers).contains("hush"));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for (status, expected) in [(301, true), (400, true), (404, true), (408, false), (429, false), (503, false)] {
            assert_eq!(is_final(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }
}
