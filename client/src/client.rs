//! Requests to a server.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use reckon_data::dead::DeadLetter;
use reckon_data::problem::Problem;
use reckon_data::receipt::Receipt;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backoff::Backoff;
use crate::breaker::Breaker;
use crate::error::ClientError;

/// How requests are made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// When to try again.
    pub backoff: Backoff,
    /// Failures in a row after which the server is left alone.
    pub failures_max: u32,
    /// For how long.
    pub rest: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            backoff: Backoff::default(),
            failures_max: 8,
            rest: Duration::from_secs(2),
        }
    }
}

/// A client of one server. Cheap to share by reference; it keeps its connections.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    options: Options,
    breaker: Mutex<Breaker>,
}

impl Client {
    /// A client of the server at `url`: `http://127.0.0.1:7700`.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub fn new(url: &str, options: Options) -> Result<Self, ClientError> {
        let bad = |reason: String| ClientError::BadUrl { url: url.to_owned(), reason };
        let parsed = reqwest::Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(bad("it should look like http://127.0.0.1:7700".to_owned()));
        }
        let http = reqwest::Client::builder().timeout(options.timeout).build().map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            http,
            base: url.trim_end_matches('/').to_owned(),
            options,
            breaker: Mutex::new(Breaker::new(options.failures_max, options.rest)),
        })
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Sends events, one a line of `body`, and returns the verdicts.
    ///
    /// Tried again under one `Idempotency-Key`, so that events without an id are not counted twice.
    ///
    /// # Errors
    /// See [`ClientError`]; when all events were malformed, the receipt stands in the problem.
    pub async fn send_lines(
        &self,
        body: Bytes,
        idempotency_key: &str,
        source: Option<&str>,
    ) -> Result<Receipt, ClientError> {
        self.send(body, idempotency_key, source, None).await
    }

    /// The same for lines of a file, of which the first is line `first_line`: a refused event is kept with its line.
    /// Blank lines count as lines.
    ///
    /// # Errors
    /// Those of [`Client::send_lines`].
    pub async fn send_numbered_lines(
        &self,
        body: Bytes,
        idempotency_key: &str,
        source: &str,
        first_line: u64,
    ) -> Result<Receipt, ClientError> {
        self.send(body, idempotency_key, Some(source), Some(first_line)).await
    }

    async fn send(
        &self,
        body: Bytes,
        idempotency_key: &str,
        source: Option<&str>,
        first_line: Option<u64>,
    ) -> Result<Receipt, ClientError> {
        let source = source.and_then(header_text);
        self.with_retries(|| {
            let mut request = self
                .request(Method::POST, "/v1/events")
                .header("content-type", "application/x-ndjson")
                .header("idempotency-key", idempotency_key)
                .body(body.clone());
            if let Some(source) = &source {
                request = request.header("reckon-source", source.clone());
            }
            if let Some(line) = first_line {
                request = request.header("reckon-first-line", line);
            }
            request
        })
        .await
    }

    /// Sends dead letters that were found on this side.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bury(&self, letters: &[DeadLetter]) -> Result<(), ClientError> {
        let _: Value = self.post("/v1/dead-letters", &letters).await?;
        Ok(())
    }

    /// Runs an SQL query; the answer is `{"columns", "rows", …}`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sql(&self, query: &str) -> Result<Value, ClientError> {
        self.post_once("/v1/sql", &serde_json::json!({ "query": query })).await
    }

    /// Gets a resource with parameters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, ClientError> {
        self.with_retries(|| self.request(Method::GET, path).query(query)).await
    }

    /// Posts JSON. It may be sent more than once when the server fails.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let json = self.json(body)?;
        self.with_retries(|| self.post_json(path, json.clone())).await
    }

    /// Posts JSON, once: for what is costly to ask, or does something every time it is asked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_once<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let json = self.json(body)?;
        self.once(self.post_json(path, json)).await.map_err(|(error, _)| error)
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let json = serde_json::to_vec(body);
        json.map(Bytes::from).map_err(|e| ClientError::BadAnswer { url: self.base.clone(), reason: e.to_string() })
    }

    fn post_json(&self, path: &str, json: Bytes) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(json)
    }

    /// Whether a server answers at the address.
    pub async fn is_up(&self) -> bool {
        let request = self.request(Method::GET, "/healthz").timeout(Duration::from_secs(2));
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn with_retries<T: DeserializeOwned>(
        &self,
        build: impl Fn() -> RequestBuilder + Send + Sync,
    ) -> Result<T, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, asked) = match self.once(build()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let share = rand::random::<f64>();
            match self.options.backoff.wait(attempt, share, asked).filter(|_| error.is_passing()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            }
        }
    }

    async fn once<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, (ClientError, Option<Duration>)> {
        if let Some(left) = self.breaker.lock().rest_left(Instant::now()) {
            let error = ClientError::Resting { url: self.base.clone(), seconds: left.as_secs() };
            return Err((error, Some(left)));
        }
        let answer = read(&self.base, request.send().await).await;
        let mut breaker = self.breaker.lock();
        match &answer {
            // Being told to come later is a sign of life.
            Err((ClientError::Unreachable { .. }, _)) => breaker.failed(Instant::now()),
            _ => breaker.succeeded(),
        }
        drop(breaker);
        answer
    }
}

async fn read<T: DeserializeOwned>(
    base: &str,
    sent: Result<Response, reqwest::Error>,
) -> Result<T, (ClientError, Option<Duration>)> {
    let unreachable =
        |e: reqwest::Error| (ClientError::Unreachable { url: base.to_owned(), reason: root_cause(&e) }, None);
    let response = sent.map_err(unreachable)?;
    let url = response.url().to_string();
    let status = response.status();
    let asked =
        response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let body = response.bytes().await.map_err(unreachable)?;
    if status.is_success() {
        let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
        return serde_json::from_slice(&body)
            .map_err(|e| (ClientError::BadAnswer { url, reason: e.to_string() }, None));
    }
    Err((ClientError::Refused(Box::new(problem(status, &body))), asked))
}

fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        Problem::new(status.as_u16(), "unknown", "The server refused the request", format!("{status}: {text}"))
    })
}

/// A text as a header's value: UTF-8, with a question mark for every character that may not stand there.
fn header_text(text: &str) -> Option<HeaderValue> {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused() {
        for url in ["", "127.0.0.1:7700", "ftp://host", "http://"] {
            assert!(matches!(Client::new(url, Options::default()), Err(ClientError::BadUrl { .. })), "{url}");
        }
    }

    #[test]
    fn a_file_may_have_any_name() {
        let value = |text| header_text(text).unwrap();
        assert_eq!(value("klicks-März-点.ndjson").as_bytes(), "klicks-März-点.ndjson".as_bytes());
        assert_eq!(value("a\nb\u{7f}\tc\u{85}"), "a?b??c?");
    }

    /// A server that gives everybody one answer, and how often it was asked.
    async fn answering(status: &str, body: &str) -> (String, Arc<AtomicU32>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let mut request = vec![0; 65_536];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, asked)
    }

    fn quick() -> Options {
        let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1), attempts: 4 };
        Options { backoff, ..Options::default() }
    }

    #[tokio::test]
    async fn what_took_too_long_is_not_asked_again() {
        let problem = Problem::new(504, "query-timeout", "The query took too long", "it took 60 s");
        let (url, asked) = answering("504 Gateway Timeout", &serde_json::to_string(&problem).unwrap()).await;
        let client = Client::new(&url, quick()).unwrap();
        assert!(client.get::<Value>("/v1/top", &[]).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_question_is_asked_once_and_a_resource_again() {
        let (url, asked) = answering("503 Service Unavailable", "{}").await;
        let client = Client::new(&url, quick()).unwrap();
        assert!(client.sql("select 1").await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(client.get::<Value>("/readyz", &[]).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1 + 4);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1), attempts: 2 };
        let options = Options { backoff, ..Options::default() };
        let client = Client::new("http://127.0.0.1:1", options).unwrap();
        let error = client.sql("select 1").await.unwrap_err();
        assert!(matches!(&error, ClientError::Unreachable { url, .. } if url.ends_with(":1")), "{error}");
    }
}
