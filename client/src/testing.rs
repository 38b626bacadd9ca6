//! A server for tests: it answers as it is told, and keeps what it was asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reckon_data::problem::Problem;
use reckon_data::receipt::Receipt;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::options::Options;

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `POST /v1/events`
    pub(crate) what: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn key(&self) -> String {
        self.header("idempotency-key").unwrap().to_owned()
    }

    /// The lines of the body, decompressed.
    pub(crate) fn lines(&self) -> Vec<String> {
        let body = match self.header("content-encoding") {
            Some("zstd") => zstd::stream::decode_all(&self.body[..]).unwrap(),
            _ => self.body.clone(),
        };
        String::from_utf8(body).unwrap().lines().map(str::to_owned).collect()
    }
}

/// An answer, as it goes over the wire.
pub(crate) struct Answer(String);

impl Answer {
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        Self::with(status, "", body)
    }

    pub(crate) fn with(status: u16, headers: &str, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).unwrap();
        let length = body.len();
        Self(format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"))
    }

    /// Takes every event.
    pub(crate) fn taken(asked: &Asked) -> Self {
        Self::json(200, &Receipt { accepted: asked.lines().len() as u64, ..Receipt::default() })
    }

    /// A refusal that says no more than its status.
    pub(crate) fn problem(status: u16) -> Self {
        Self::json(status, &Problem::new(status, "test", "A refusal", format!("refused with {status}")))
    }

    /// A refusal that asks to come again later.
    pub(crate) fn later(status: u16, seconds: u64) -> Self {
        let problem = Problem::new(status, "test", "Not now", "later");
        Self::with(status, &format!("retry-after: {seconds}\r\n"), &problem)
    }

    /// The connection ends without an answer.
    pub(crate) fn silence() -> Self {
        Self(String::new())
    }
}

/// The server.
pub(crate) struct Fake {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(listen(listener, Arc::new(answer), Arc::clone(&asked)));
        Self { url, asked, task }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    listener: TcpListener,
    answer: Arc<impl Fn(&Asked) -> Answer + Send + Sync + 'static>,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            let Some(request) = read(&mut stream).await else { return };
            let text = answer(&request).0;
            asked.lock().push(request);
            // Whoever asked may be gone.
            let _ = stream.write_all(text.as_bytes()).await;
        });
    }
}

/// The request that comes in; none when it does not come whole.
async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes: Vec<u8> = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = head.lines();
    let what = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Asked { what, headers, body })
}

/// An address where nobody listens: only privileged processes may.
pub(crate) const NOBODY: &str = "http://127.0.0.1:1";

/// Four attempts a millisecond apart, so that a test need not wait.
pub(crate) fn quick() -> Options {
    let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1), attempts: 4 };
    Options { backoff, ..Options::default() }
}
