//! Requests to one server, or to several of which each will do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reckon_data::clock::{Names as _, RandomNames};
use reckon_data::dead::DeadLetter;
use reckon_data::receipt::Receipt;
use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::compress::compressed;
use crate::error::ClientError;
use crate::exchange::{Failure, exchange, header_text};
use crate::options::{Compression, Options, Turns};
use crate::round::Round;
use crate::server::Server;
use crate::servers::{Servers, Turn};

#[cfg(test)]
mod tests;

/// A client of one server, or of several. Cheap to share by reference; it keeps its connections.
///
/// A request goes to the next server in turn ([`Turns`]). When that one cannot be reached, or answers that it cannot
/// now (429, 502, 503, 504), the next one is asked at once; only when all have failed is there a wait before another
/// round ([`Backoff`](crate::backoff::Backoff)), not shorter than the shortest `Retry-After`. A server that keeps
/// failing rests for a while ([`Breaker`](crate::breaker::Breaker)) and is passed over; when all rest, nobody is
/// asked until the first is back.
///
/// Every POST carries an `Idempotency-Key`, the same whenever and wherever it is sent again.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    servers: Servers,
    options: Options,
    compresses: bool,
}

/// A body of events to send.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    /// An event a line.
    pub(crate) body: Bytes,
    /// Names the body, and the events in it that have no id.
    pub(crate) key: &'a str,
    /// Where the events are from.
    pub(crate) source: Option<&'a str>,
    /// The first one's line in the source.
    pub(crate) first_line: Option<u64>,
    /// Counts requests that were made again.
    pub(crate) retried: Option<&'a AtomicU64>,
}

impl Client {
    /// A client of the server at `urls`, `http://127.0.0.1:7700`, or of several, separated by commas:
    /// `http://a:7700,http://b:7700`. A server that is named twice is one.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] with the address that is none.
    pub fn new(urls: &str, options: Options) -> Result<Self, ClientError> {
        let servers = Servers::parse(urls, &options)?;
        let builder = reqwest::Client::builder().connect_timeout(options.connect_timeout).timeout(options.timeout);
        let bad = |e: reqwest::Error| ClientError::BadUrl { url: urls.to_owned(), reason: e.to_string() };
        let http = builder.build().map_err(bad)?;
        let compresses = match options.compression {
            Compression::Never => false,
            Compression::Always => true,
            Compression::Remote => !servers.all().iter().all(Server::is_local),
        };
        Ok(Self { http, servers, options, compresses })
    }

    /// The first server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.servers.all().first().map_or("", Server::base)
    }

    /// The addresses of all servers.
    #[must_use]
    pub fn urls(&self) -> Vec<&str> {
        self.servers.all().iter().map(Server::base).collect()
    }

    /// How it makes requests.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
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
        self.deliver(Lines { body, key: idempotency_key, source, first_line: None, retried: None }).await
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
        let (source, first_line) = (Some(source), Some(first_line));
        self.deliver(Lines { body, key: idempotency_key, source, first_line, retried: None }).await
    }

    /// Sends events, compressed once if at all, until a server has judged them.
    ///
    /// # Errors
    /// Those of [`Client::send_lines`].
    pub(crate) async fn deliver(&self, lines: Lines<'_>) -> Result<Receipt, ClientError> {
        let frame = if self.compresses { compressed(&lines.body).await } else { None };
        let source = lines.source.and_then(header_text);
        let build = |base: &str| {
            let mut request = self
                .request(base, Method::POST, "/v1/events")
                .header("content-type", "application/x-ndjson")
                .header("idempotency-key", lines.key);
            if let Some(source) = &source {
                request = request.header("reckon-source", source.clone());
            }
            if let Some(line) = lines.first_line {
                request = request.header("reckon-first-line", line);
            }
            match &frame {
                Some(frame) => request.header("content-encoding", "zstd").body(frame.clone()),
                None => request.body(lines.body.clone()),
            }
        };
        self.with_retries(Turn::Next, lines.retried, build).await
    }

    /// Sends dead letters that were found on this side.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bury(&self, letters: &[DeadLetter]) -> Result<(), ClientError> {
        let _: Value = self.post("/v1/dead-letters", &letters).await?;
        Ok(())
    }

    /// Runs an SQL query, once; the answer is `{"columns", "rows", …}`.
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
        let build = |base: &str| self.request(base, Method::GET, path).query(query);
        self.with_retries(self.turn(), None, build).await
    }

    /// Posts JSON. It may be sent more than once when a server fails.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let (json, key) = (self.json(body)?, RandomNames.fresh().to_string());
        self.with_retries(self.turn(), None, |base: &str| self.post_json(base, path, &key, json.clone())).await
    }

    /// Posts JSON, once: for what is costly to ask, or does something every time it is asked. Another server is asked
    /// only when the connection to one could not be made, so that it cannot have got the request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_once<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let (json, key) = (self.json(body)?, RandomNames.fresh().to_string());
        let build = |base: &str| self.post_json(base, path, &key, json.clone());
        let mut asks = Asks { made: 0, retried: None };
        let answer = self.round(self.turn(), &mut asks, &build, |failure| failure.is_unsent).await;
        answer.map_err(|failure| failure.error)
    }

    /// Whether one of the servers answers at its address.
    pub async fn is_up(&self) -> bool {
        for server in self.servers.all() {
            let request = self.request(server.base(), Method::GET, "/healthz").timeout(Duration::from_secs(2));
            if request.send().await.is_ok_and(|response| response.status().is_success()) {
                return true;
            }
        }
        false
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let json = serde_json::to_vec(body);
        json.map(Bytes::from).map_err(|e| ClientError::BadAnswer { url: self.url().to_owned(), reason: e.to_string() })
    }

    fn post_json(&self, base: &str, path: &str, key: &str, json: Bytes) -> RequestBuilder {
        self.request(base, Method::POST, path)
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(json)
    }

    fn request(&self, base: &str, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{base}{path}"))
    }

    const fn turn(&self) -> Turn {
        match self.options.turns {
            Turns::Every => Turn::Next,
            Turns::Events => Turn::Home,
        }
    }

    /// Asks round by round, until a server answers for good.
    async fn with_retries<T: DeserializeOwned>(
        &self,
        turn: Turn,
        retried: Option<&AtomicU64>,
        build: impl Fn(&str) -> RequestBuilder + Send + Sync,
    ) -> Result<T, ClientError> {
        let mut asks = Asks { made: 0, retried };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.round(turn, &mut asks, &build, Failure::is_passing).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let share = rand::random::<f64>();
            let wait = self.options.backoff.wait(attempt, share, failure.asked).filter(|_| failure.is_passing());
            let Some(wait) = wait else { return Err(failure.error) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks the servers one after another, until one answers, or fails in a way that another should not be asked after.
    async fn round<T: DeserializeOwned>(
        &self,
        turn: Turn,
        asks: &mut Asks<'_>,
        build: &(impl Fn(&str) -> RequestBuilder + Send + Sync),
        goes_on: fn(&Failure) -> bool,
    ) -> Result<T, Failure> {
        let mut round = Round::default();
        for (place, server) in self.servers.in_turn(turn, Instant::now()) {
            if let Err(left) = server.admit(Instant::now()) {
                round.rests(server.base(), left);
                continue;
            }
            asks.count();
            match exchange(server, build(server.base())).await {
                Ok(answer) => {
                    if turn == Turn::Home {
                        self.servers.stay(place);
                    }
                    return Ok(answer);
                }
                Err(failure) if goes_on(&failure) => round.failed(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(round.failure())
    }
}

/// How often a request was made.
struct Asks<'a> {
    made: u64,
    /// Counts all but the first.
    retried: Option<&'a AtomicU64>,
}

impl Asks<'_> {
    fn count(&mut self) {
        if self.made > 0
            && let Some(retried) = self.retried
        {
            retried.fetch_add(1, Ordering::Relaxed);
        }
        self.made += 1;
    }
}
