//! Messages as e-mail, plain text, over SMTP.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message as Email};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::Message;
use super::receiver::{ATTEMPT_TIME_MAX, Receiver, SendError};
use super::rules::{AlertsError, MailSettings, invalid};

/// No TLS, said so that nobody has it by mistake.
const INSECURE: &str = "smtp+insecure://";
/// STARTTLS.
const STARTTLS: &str = "smtp://";
/// TLS from the start.
const TLS: &str = "smtps://";
/// The last second that a date of an e-mail can be: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Sends each message as an e-mail.
pub struct Mail {
    name: String,
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// Not the server: it may have a password.
impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("name", &self.name).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Mail {
    /// E-mail as the settings want it.
    ///
    /// # Errors
    /// When the server or an address is none.
    pub fn new(name: &str, settings: &MailSettings) -> Result<Self, AlertsError> {
        let key = |field: &str| format!("mail.{name}.{field}");
        let address = |field: &str, text: &str| {
            text.parse::<Mailbox>().map_err(|error| invalid(key(field), format!("{text:?}: {error}")))
        };
        let url = transport_url(&settings.server).map_err(|reason| invalid(key("server"), reason))?;
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url);
        let server = server.map_err(|error| invalid(key("server"), error.to_string()))?;
        let to = settings.to.iter().map(|text| address("to", text)).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(invalid(key("to"), "must name somebody"));
        }
        Ok(Self {
            name: name.to_owned(),
            server: server.timeout(Some(ATTEMPT_TIME_MAX)).build(),
            from: address("from", &settings.from)?,
            to,
        })
    }

    /// The e-mail of a message. One message has one id, however often it is sent; messages of one alert belong together.
    fn email(&self, message: &Message) -> Result<Email, lettre::error::Error> {
        let at = u64::try_from(message.at_micros).unwrap_or(0);
        let at = UNIX_EPOCH + Duration::from_micros(at).min(Duration::from_secs(SECONDS_MAX));
        let domain = self.from.email.domain();
        let mut email = Email::builder()
            .from(self.from.clone())
            .subject(message.subject())
            .date(at)
            .message_id(Some(format!("<{}@{domain}>", message.key)))
            .references(format!("<{}@{domain}>", message.id));
        for to in &self.to {
            email = email.to(to.clone());
        }
        email.header(ContentType::TEXT_PLAIN).body(message.text())
    }
}

#[async_trait]
impl Receiver for Mail {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let email = self.email(message);
        let email = email.map_err(|error| SendError { reason: error.to_string(), is_final: true })?;
        // The server's own limit is that of one command.
        match tokio::time::timeout(ATTEMPT_TIME_MAX, self.server.send(email)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(SendError { reason: error.to_string(), is_final: error.is_permanent() }),
            Err(_) => Err(SendError { reason: "the server takes too long".to_owned(), is_final: false }),
        }
    }
}

/// The address as the transport wants it.
fn transport_url(server: &str) -> Result<String, String> {
    if let Some(rest) = server.strip_prefix(INSECURE) {
        if rest.contains('@') {
            return Err(format!("a password is not sent without TLS, which {INSECURE} is"));
        }
        return Ok(format!("smtp://{rest}"));
    }
    if server.contains('?') {
        return Err("has no parameters: the scheme says what TLS there is".to_owned());
    }
    if server.starts_with(STARTTLS) {
        return Ok(format!("{server}?tls=required"));
    }
    if server.starts_with(TLS) {
        return Ok(server.to_owned());
    }
    Err(format!("must begin with {TLS}, {STARTTLS} (with STARTTLS) or {INSECURE} (without TLS)"))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn mail(server: &str, to: &[&str]) -> Result<Mail, AlertsError> {
        let to = to.iter().map(|&to| to.to_owned()).collect();
        Mail::new("a", &MailSettings { server: server.to_owned(), from: "Reckon <r@here.example>".to_owned(), to })
    }

    #[test]
    fn tls_is_left_out_only_by_name() {
        assert_eq!(transport_url("smtp://me:x@host:587").unwrap(), "smtp://me:x@host:587?tls=required");
        assert_eq!(transport_url("smtps://host").unwrap(), "smtps://host");
        assert_eq!(transport_url("smtp+insecure://localhost:25").unwrap(), "smtp://localhost:25");
        for server in ["smtp+insecure://me:x@host", "smtp://host?tls=opportunistic", "host:25", "http://host"] {
            let error = transport_url(server).unwrap_err();
            assert!(!error.contains("me:x"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_email_has_sender_receivers_subject_and_text() {
        let mail = mail("smtp+insecure://localhost", &["a@there.example", "B <b@there.example>"]).unwrap();
        let message = Message::test(Uuid::from_u128(7), 0);
        let text = String::from_utf8(mail.email(&message).unwrap().formatted()).unwrap();
        for line in [
            "Subject: [reckon] firing: test",
            "Date: Thu, 01 Jan 1970 00:00:00 +0000",
            "References: <00000000-0000-0000-0000-000000000007@here.example>",
            "Message-ID: <00000000-0000-0000-0000-000000000007-firing-0@here.example>",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("a@there.example") && text.contains("b@there.example"), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused() {
        for (server, to, part) in [
            ("host", &["a@b.c"][..], "mail.a.server"),
            ("smtp+insecure://host", &[][..], "mail.a.to"),
            ("smtp+insecure://host", &["nobody"][..], "nobody"),
        ] {
            let error = mail(server, to).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
