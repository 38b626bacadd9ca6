//! One request to one server, and what its answer says.

use std::time::{Duration, Instant};

use reckon_data::problem::Problem;
use reqwest::header::HeaderValue;
use reqwest::{Request, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::ClientError;
use crate::server::Server;

/// Why a server did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: ClientError,
    /// How long it asked not to be asked again.
    pub(crate) asked: Option<Duration>,
    /// Whether the request cannot have reached it.
    pub(crate) is_unsent: bool,
}

impl Failure {
    /// Whether the same request may succeed later, or elsewhere.
    pub(crate) fn is_passing(&self) -> bool {
        self.error.is_passing()
    }

    /// Whether nothing was heard of the server.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self.error, ClientError::Unreachable { .. } | ClientError::Resting { .. })
    }

    /// A server that rests for so long still.
    pub(crate) fn resting(url: String, left: Duration) -> Self {
        let seconds = left.as_secs_f64().ceil() as u64;
        Self { error: ClientError::Resting { url, seconds }, asked: Some(left), is_unsent: true }
    }
}

/// What the body of an answer becomes.
pub(crate) trait FromBody: Sized {
    /// Takes a body.
    ///
    /// # Errors
    /// Why it is none of those.
    fn from_body(body: &[u8]) -> Result<Self, String>;
}

/// An answer in JSON; an empty one is null.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromBody for Json<T> {
    fn from_body(body: &[u8]) -> Result<Self, String> {
        let body = if body.is_empty() { &b"null"[..] } else { body };
        serde_json::from_slice(body).map(Self).map_err(|e| e.to_string())
    }
}

/// An answer that is a text.
impl FromBody for String {
    fn from_body(body: &[u8]) -> Result<Self, String> {
        std::str::from_utf8(body).map(str::to_owned).map_err(|e| e.to_string())
    }
}

/// A request that can be made.
///
/// # Errors
/// [`ClientError::BadRequest`]: whoever is asked, and however often.
pub(crate) fn built(base: &str, request: RequestBuilder) -> Result<Request, Failure> {
    request.build().map_err(|e| unmade(base, &e))
}

fn unmade(base: &str, error: &reqwest::Error) -> Failure {
    let error = ClientError::BadRequest { url: base.to_owned(), reason: root_cause(error) };
    Failure { error, asked: None, is_unsent: false }
}

/// Asks a server once, and notes how it is. Whoever is asked to take events and says something that no gateway does has
/// failed, too.
///
/// # Errors
/// See [`Failure`].
pub(crate) async fn exchange<T: FromBody>(
    http: &reqwest::Client,
    server: &Server,
    request: Request,
    is_events: bool,
) -> Result<T, Failure> {
    let answer = read(server.base(), http.execute(request).await).await;
    let now = Instant::now();
    match &answer {
        Ok(_) => server.answered(now, None),
        Err(Failure { error: ClientError::BadRequest { .. }, .. }) => {}
        Err(failure) if failure.is_silence() => server.failed(now),
        Err(failure) if is_events && !failure.is_passing() && !failure.error.is_verdict() => server.failed(now),
        Err(failure) => server.answered(now, failure.asked),
    }
    answer
}

async fn read<T: FromBody>(base: &str, sent: Result<Response, reqwest::Error>) -> Result<T, Failure> {
    let unreachable = |e: reqwest::Error| {
        if e.is_builder() {
            return unmade(base, &e);
        }
        let error = ClientError::Unreachable { url: base.to_owned(), reason: root_cause(&e) };
        Failure { error, asked: None, is_unsent: e.is_connect() }
    };
    let response = sent.map_err(unreachable)?;
    let url = response.url().to_string();
    let status = response.status();
    let asked =
        response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let body = response.bytes().await.map_err(unreachable)?;
    if status.is_success() {
        return T::from_body(&body).map_err(|reason| {
            let error = ClientError::BadAnswer { url, reason };
            Failure { error, asked: None, is_unsent: false }
        });
    }
    Err(Failure { error: ClientError::Refused(Box::new(problem(status, &body))), asked, is_unsent: false })
}

fn problem(status: StatusCode, body: &[u8]) -> Problem {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        Problem::new(status.as_u16(), "unknown", "The server refused the request", format!("{status}: {text}"))
    });
    // Whoever passed the document on may have given it another status.
    Problem { status: status.as_u16(), ..problem }
}

/// A text as a header's value: UTF-8, with a question mark for every character that may not stand there.
pub(crate) fn header_text(text: &str) -> Option<HeaderValue> {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_any_name() {
        let value = |text| header_text(text).unwrap();
        assert_eq!(value("klicks-März-点.ndjson").as_bytes(), "klicks-März-点.ndjson".as_bytes());
        assert_eq!(value("a\nb\u{7f}\tc\u{85}"), "a?b??c?");
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_shown() {
        let problem = problem(StatusCode::BAD_GATEWAY, b"<html>no</html>");
        assert_eq!((problem.status, problem.detail.as_str()), (502, "502 Bad Gateway: <html>no</html>"));
    }
}
