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
use crate::exchange::{Failure, FromBody, Json, built, exchange, header_text};
use crate::options::{Compression, Options};
use crate::round::Round;
use crate::server::Server;
use crate::servers::Servers;

#[cfg(test)]
mod tests;

/// Longest time of [`Client::look`] at one server.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// A client of one server, or of several. Cheap to share by reference; it keeps its connections.
///
/// Events go to each server in turn. When one cannot be reached, or says anything but a gateway's verdict, the next is
/// asked at once; only when all have failed is there a wait before another round
/// ([`Backoff`](crate::backoff::Backoff)), not shorter than the shortest `Retry-After`. Another round there is when one
/// of them may take the events later: it could not be reached, or answered 429, 502, 503 or 504.
///
/// Everything else is asked of one server, its home, at first the first: a job is known where it was started, and an
/// answer does not fall behind one that was given before. Only when home could not be reached in all attempts is the
/// next asked, which is home from then on if it answers.
///
/// A server that keeps failing rests for a while ([`Breaker`](crate::breaker::Breaker)). Redirects are not followed.
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
    /// A shorter time for a request than the client's.
    pub(crate) timeout: Option<Duration>,
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
        let builder = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none());
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
        let key = idempotency_key;
        self.deliver(Lines { body, key, source, first_line: None, timeout: None, retried: None }).await
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
        let (key, source, first_line) = (idempotency_key, Some(source), Some(first_line));
        self.deliver(Lines { body, key, source, first_line, timeout: None, retried: None }).await
    }

    /// Sends events, compressed once if at all, until a server has judged them.
    ///
    /// # Errors
    /// Those of [`Client::send_lines`].
    pub(crate) async fn deliver(&self, lines: Lines<'_>) -> Result<Receipt, ClientError> {
        let frame = if self.compresses { compressed(&lines.body).await } else { None };
        let source = lines.source.and_then(header_text);
        let timeout = lines.timeout.map_or(self.options.timeout, |most| most.min(self.options.timeout));
        let build = |base: &str| {
            let mut request = self
                .request(base, Method::POST, "/v1/events")
                .timeout(timeout)
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
        self.in_rounds(lines.retried, build).await
    }

    /// Sends dead letters that were found on this side. When it has to be asked again, they may be kept twice.
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
        let Json(answer) = self.at_home(true, build).await?;
        Ok(answer)
    }

    /// Gets a text: a page, say.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        self.at_home(true, |base: &str| self.request(base, Method::GET, path)).await
    }

    /// Posts JSON. It may be sent more than once when a server fails.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let (json, key) = (self.json(body)?, RandomNames.fresh().to_string());
        let Json(answer) = self.at_home(true, |base: &str| self.post_json(base, path, &key, json.clone())).await?;
        Ok(answer)
    }

    /// Posts JSON, once: for what is costly to ask, or does something every time it is asked. Another server is asked
    /// only when the connection to one could not be made, so that it cannot have got the request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_once<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let (json, key) = (self.json(body)?, RandomNames.fresh().to_string());
        let Json(answer) = self.at_home(false, |base: &str| self.post_json(base, path, &key, json.clone())).await?;
        Ok(answer)
    }

    /// Puts JSON, once; with an `if_match` only if the resource still has that ETag.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        if_match: Option<&str>,
    ) -> Result<T, ClientError> {
        let json = self.json(body)?;
        let build = |base: &str| {
            let request = self.request(base, Method::PUT, path).header("content-type", "application/json");
            matched(request, if_match).body(json.clone())
        };
        let Json(answer) = self.at_home(false, build).await?;
        Ok(answer)
    }

    /// Removes a resource, once; with an `if_match` only if it still has that ETag.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_once<T: DeserializeOwned>(&self, path: &str, if_match: Option<&str>) -> Result<T, ClientError> {
        let build = |base: &str| matched(self.request(base, Method::DELETE, path), if_match);
        let Json(answer) = self.at_home(false, build).await?;
        Ok(answer)
    }

    /// Status and text of a resource, whatever the status is: asked once of each server, until one answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when none does.
    pub async fn look(&self, path: &str) -> Result<(u16, String), ClientError> {
        let mut failure =
            ClientError::Unreachable { url: self.url().to_owned(), reason: "there is no server".to_owned() };
        for server in self.servers.all() {
            let request = self.request(server.base(), Method::GET, path).timeout(LOOK_MAX);
            let looked = async {
                let response = request.send().await?;
                let status = response.status().as_u16();
                Ok::<_, reqwest::Error>((status, response.text().await?))
            };
            match looked.await {
                Ok(looked) => return Ok(looked),
                Err(error) => {
                    let url = server.base().to_owned();
                    failure = ClientError::Unreachable { url, reason: error.without_url().to_string() };
                }
            }
        }
        Err(failure)
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

    /// Sends events round by round, until a server has judged them.
    async fn in_rounds(
        &self,
        retried: Option<&AtomicU64>,
        build: impl Fn(&str) -> RequestBuilder + Send + Sync,
    ) -> Result<Receipt, ClientError> {
        let mut asks = Asks { made: 0, retried };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.round(&mut asks, &build).await {
                Ok(receipt) => return Ok(receipt),
                Err(failure) => failure,
            };
            let Some(wait) = self.wait(attempt, &failure) else { return Err(failure.error) };
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends events to the servers one after another, until one has judged them.
    async fn round(
        &self,
        asks: &mut Asks<'_>,
        build: &(impl Fn(&str) -> RequestBuilder + Send + Sync),
    ) -> Result<Receipt, Failure> {
        let mut round = Round::default();
        for server in self.servers.in_turn(Instant::now()) {
            let request = built(server.base(), build(server.base()))?;
            if let Err(left) = server.admit(Instant::now()) {
                round.rests(server.base(), left);
                continue;
            }
            asks.count();
            match exchange(&self.http, server, request, true).await {
                Err(failure) if !failure.error.is_verdict() => round.failed(failure),
                answer => return answer.map(|Json(receipt)| receipt),
            }
        }
        Err(round.failure())
    }

    /// Asks home, and the next server only if home cannot be reached: in all attempts, or, when it is asked once,
    /// because the connection could not be made. Whoever answers is home from then on.
    async fn at_home<T: FromBody>(
        &self,
        is_repeated: bool,
        build: impl Fn(&str) -> RequestBuilder + Send + Sync,
    ) -> Result<T, ClientError> {
        let mut round = Round::default();
        let order = self.servers.home_first();
        let home = order.first().map_or(0, |(place, _)| *place);
        for (place, server) in order {
            let failure = match self.ask(server, is_repeated, &build).await {
                Ok(answer) => {
                    self.servers.move_home(home, place);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if !failure.is_silence() {
                self.servers.move_home(home, place);
                return Err(failure.error);
            }
            if !is_repeated && !failure.is_unsent {
                return Err(failure.error);
            }
            round.failed(failure);
        }
        Err(round.failure().error)
    }

    /// Asks one server, again if that may help; what it said at any time stands above that it said nothing later.
    async fn ask<T: FromBody>(
        &self,
        server: &Server,
        is_repeated: bool,
        build: &(impl Fn(&str) -> RequestBuilder + Send + Sync),
    ) -> Result<T, Failure> {
        let mut attempts = Round::default();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = built(server.base(), build(server.base()))?;
            let answer = match server.admit(Instant::now()) {
                Ok(()) => exchange(&self.http, server, request, false).await,
                Err(left) => Err(Failure::resting(server.base().to_owned(), left)),
            };
            let failure = match answer {
                Err(failure) if failure.is_passing() => failure,
                answer => return answer,
            };
            let wait = self.wait(attempt, &failure).filter(|_| is_repeated);
            attempts.failed(failure);
            let Some(wait) = wait else { return Err(attempts.failure()) };
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait after a failed attempt; none when there should be no further one.
    fn wait(&self, attempt: u32, failure: &Failure) -> Option<Duration> {
        let share = rand::random::<f64>();
        self.options.backoff.wait(attempt, share, failure.asked).filter(|_| failure.is_passing())
    }
}

/// A request that holds only of the resource as it was.
fn matched(request: RequestBuilder, if_match: Option<&str>) -> RequestBuilder {
    match if_match {
        Some(etag) => request.header("if-match", etag),
        None => request,
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
