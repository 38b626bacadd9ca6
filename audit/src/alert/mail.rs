//! Messages as e-mail, plain text, over SMTP: one for each recipient, so that an address that is refused silences nobody
//! else.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use futures::future::join_all;
use lettre::address::Envelope;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message as Email};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use parking_lot::Mutex;

use super::Message;
use super::receiver::{ATTEMPT_TIME_MAX, Receiver, SendError};
use super::rules::{AlertsError, MailSettings, invalid};

/// No TLS, said so that nobody has it by mistake.
const INSECURE: &str = "smtp+insecure://";
/// STARTTLS.
const STARTTLS: &str = "smtp://";
/// TLS from the start.
const TLS: &str = "smtps://";
/// How long a mail server may take. One that looks through a mail before it says that it has it does so meanwhile, and
/// who goes before it has answered would send again what has arrived: RFC 5321 (4.5.3.2.6) asks for this much.
const MAIL_TIME_MAX: Duration = Duration::from_secs(600);
/// The last second that a date of an e-mail can be: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// What has become of a message so far; of the one that is tried now, for a receiver has one at a time.
#[derive(Debug, Default)]
struct Tried {
    /// The message's key.
    key: String,
    /// Recipients to whom it is not sent again: they have it, or never will.
    settled: BTreeSet<usize>,
    /// Why those will not have it.
    refused: Vec<String>,
}

impl Tried {
    /// Takes the outcomes of an attempt, by recipient, and says what they mean for the message.
    fn after(&mut self, outcomes: Vec<(usize, Result<(), SendError>)>) -> Result<(), SendError> {
        let mut failed = Vec::new();
        for (recipient, outcome) in outcomes {
            match outcome {
                Err(error) if !error.is_final => {
                    failed.push(error.reason);
                    continue;
                }
                Err(error) => self.refused.push(error.reason),
                Ok(()) => {}
            }
            self.settled.insert(recipient);
        }
        let is_final = failed.is_empty();
        let reasons: Vec<String> = self.refused.iter().cloned().chain(failed).collect();
        if reasons.is_empty() { Ok(()) } else { Err(SendError { reason: reasons.join("; "), is_final }) }
    }
}

/// Sends each message as an e-mail.
pub struct Mail {
    name: String,
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    tried: Mutex<Tried>,
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
            // Of connecting only.
            server: server.timeout(Some(ATTEMPT_TIME_MAX)).build(),
            from: address("from", &settings.from)?,
            to,
            tried: Mutex::default(),
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

    /// Sends an e-mail to one of its recipients.
    async fn send_to(&self, to: &Mailbox, email: &[u8]) -> Result<(), SendError> {
        let failed = |reason: String, is_final| SendError { reason: format!("{}: {reason}", to.email), is_final };
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()]);
        let envelope = envelope.map_err(|error| failed(error.to_string(), true))?;
        match tokio::time::timeout(MAIL_TIME_MAX, self.server.send_raw(&envelope, email)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(error.to_string(), error.is_permanent())),
            Err(_) => Err(failed("the server takes too long".to_owned(), false)),
        }
    }

    /// Who has not been told of a message yet.
    fn open(&self, message: &Message) -> Vec<usize> {
        let mut tried = self.tried.lock();
        if tried.key != message.key {
            *tried = Tried { key: message.key.clone(), ..Tried::default() };
        }
        (0..self.to.len()).filter(|recipient| !tried.settled.contains(recipient)).collect()
    }
}

#[async_trait]
impl Receiver for Mail {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let email = self.email(message);
        let email = email.map_err(|error| SendError { reason: error.to_string(), is_final: true })?.formatted();
        let open = self.open(message);
        let attempts = open.iter().filter_map(|recipient| self.to.get(*recipient)).map(|to| self.send_to(to, &email));
        let attempts: Vec<_> = attempts.collect();
        let outcomes = join_all(attempts).await;
        self.tried.lock().after(open.into_iter().zip(outcomes).collect())
    }
}

/// The address as the transport wants it.
fn transport_url(server: &str) -> Result<String, String> {
    // What follows would be taken for a part of either, and not for what it looks like.
    if server.contains(['?', '#']) {
        return Err("has neither ? nor #: the scheme says what TLS there is, and a password has %23 for #".to_owned());
    }
    if let Some(rest) = server.strip_prefix(INSECURE) {
        if rest.contains('@') {
            return Err(format!("a password is not sent without TLS, which {INSECURE} is"));
        }
        return Ok(format!("smtp://{rest}"));
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
    use std::sync::Arc;

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};
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
        for server in [
            "smtp+insecure://me:x@host",
            "smtp://host?tls=opportunistic",
            "smtp://me:x#y@host",
            "smtp+insecure://host#x",
            "host:25",
            "http://host",
        ] {
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

    /// Whom a server was told to send to, attempt by attempt.
    type Heard = Arc<Mutex<Vec<String>>>;

    /// A mail server that never takes `bad@…`, and `busy@…` at the second time; what is for `slow@…` it looks through.
    async fn mail_server() -> (u16, Heard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Heard::default());
        let told = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&told)));
            }
        });
        (port, heard)
    }

    async fn talk(stream: TcpStream, heard: Heard) {
        let (reads, mut writes) = stream.into_split();
        let mut lines = BufReader::new(reads).lines();
        let mut is_data = false;
        writes.write_all(b"220 here\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let is_slow = is_data && line == "." && heard.lock().iter().any(|name| name == "slow");
            if is_slow {
                look_through().await;
            }
            let answer = match line.get(..4).unwrap_or_default() {
                _ if is_data && line != "." => continue,
                "RCPT" => heed(&line, &heard),
                "DATA" => "354 go on",
                "QUIT" => return,
                _ => "250 well",
            };
            is_data = answer.starts_with("354");
            // Who has gone does not hear it.
            if writes.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// Takes longer than an answer over HTTP may; not for who runs the test.
    async fn look_through() {
        tokio::time::pause();
        tokio::time::sleep(4 * ATTEMPT_TIME_MAX).await;
        tokio::time::resume();
    }

    fn heed(line: &str, heard: &Heard) -> &'static str {
        let mut heard = heard.lock();
        let name = line.split(['<', '@']).nth(1).unwrap().to_owned();
        let is_first = !heard.contains(&name);
        heard.push(name.clone());
        match name.as_str() {
            "bad" => "550 nobody of that name",
            "busy" if is_first => "451 later",
            _ => "250 well",
        }
    }

    #[tokio::test]
    async fn who_is_refused_silences_nobody_and_nobody_is_told_twice() {
        let (port, heard) = mail_server().await;
        let to = ["bad@there.example", "good@there.example", "busy@there.example"];
        let mail = mail(&format!("smtp+insecure://127.0.0.1:{port}"), &to).unwrap();
        let message = Message::test(Uuid::from_u128(7), 0);
        let heard_of = |name: &str| heard.lock().iter().filter(|heard| *heard == name).count();
        let first = mail.send(&message).await.unwrap_err();
        assert!(!first.is_final && first.reason.contains("busy@there.example: "), "{first}");
        let second = mail.send(&message).await.unwrap_err();
        assert!(second.is_final && second.reason.starts_with("bad@there.example: "), "{second}");
        assert!(!second.reason.contains("busy"), "{second}");
        assert_eq!(["bad", "good", "busy"].map(heard_of), [1, 1, 2]);
        // Another message is tried with all.
        let other = Message::test(Uuid::from_u128(8), 0);
        assert!(mail.send(&other).await.unwrap_err().is_final);
        assert_eq!(["bad", "good", "busy"].map(heard_of), [2, 2, 3]);
    }

    /// It has the mail by then: whoever does not wait sends it again.
    #[tokio::test]
    async fn a_server_that_looks_through_a_mail_is_waited_for() {
        let (port, heard) = mail_server().await;
        let mail = mail(&format!("smtp+insecure://127.0.0.1:{port}"), &["slow@there.example"]).unwrap();
        mail.send(&Message::test(Uuid::from_u128(7), 0)).await.unwrap();
        assert_eq!(*heard.lock(), ["slow"]);
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
