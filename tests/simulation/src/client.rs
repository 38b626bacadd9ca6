//! Clients: they send until they are acknowledged, and remember what was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use reckon_data::ingest::{Framing, Ingest as _, Submission, SubmitError};
use reckon_data::receipt::Receipt;
use reckon_stream::gateway::Gateway;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::faults::Io;
use crate::oracle::{Key, Letter, Oracle, Place};
use crate::traffic::{Line, Request};

/// Names of events that had none when they were refused begin so.
const REPLAYED: &str = "dead-";

/// What clients know: who is in front, and what was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) sent: u64,
    pub(crate) submitted: BTreeSet<Key>,
    /// What was sent, by its text.
    pub(crate) lines: BTreeMap<String, Line>,
    pub(crate) acknowledged: BTreeSet<Key>,
    /// What has been acknowledged since it was last held to the log.
    pub(crate) unheld: Vec<Key>,
    /// What has been refused since, as it was sent.
    pub(crate) refused: Vec<String>,
    pub(crate) wrong: Option<String>,
}

pub(crate) type Front = Option<(Arc<Gateway>, Io)>;

impl Ledger {
    /// The key that the event of a dead letter is counted under when it is replayed; none if it is no event.
    pub(crate) fn replayed(&self, place: Place, letter: &Letter) -> Option<Key> {
        let line = self.lines.get(std::str::from_utf8(letter.body.as_deref()?).ok()?)?;
        let (id, entity, event_type, date) = line.key.clone()?;
        // An event without an id is named for the place where it was refused.
        let (partition, offset, index) = place;
        let id = if line.is_named { id } else { format!("{REPLAYED}{partition}-{offset}-{index}-0") };
        Some((id, entity, event_type, date))
    }

    /// Whether this is the key of an event that had none, and was refused where the key says.
    pub(crate) fn is_replayed(&self, oracle: &Oracle, key: &Key) -> bool {
        let place = key.0.strip_prefix(REPLAYED).and_then(|place| {
            let mut parts = place.split('-').map(str::parse::<u64>);
            let mut next = || parts.next()?.ok();
            let (partition, offset, index) = (next()?, next()?, next()?);
            Some((u32::try_from(partition).ok()?, offset, u32::try_from(index).ok()?))
        });
        let letter = place.and_then(|place| Some((place, oracle.letter(place).filter(|letter| !letter.is_again)?)));
        letter.and_then(|(place, letter)| self.replayed(place, letter)).as_ref() == Some(key)
    }

    /// The latest event that was sent and is one, microseconds.
    pub(crate) fn latest(&self) -> i64 {
        self.lines.values().filter(|line| line.key.is_some()).map(|line| line.time).max().unwrap_or(0)
    }
}

/// Somebody who sends a request until it is acknowledged, or gives up.
pub(crate) struct Client {
    pub(crate) front: watch::Receiver<Front>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) rng: StdRng,
}

impl Client {
    pub(crate) async fn send(mut self, request: Request) {
        {
            let mut ledger = self.ledger.lock();
            ledger.sent += request.lines.len() as u64;
            ledger.submitted.extend(request.lines.iter().filter_map(|line| line.key.clone()));
            ledger.lines.extend(request.lines.iter().map(|line| (line.json.clone(), line.clone())));
        }
        // Some come late to the network.
        if self.rng.random_ratio(1, 5) {
            sleep(Duration::from_millis(self.rng.random_range(1..120_000))).await;
        }
        let mut pause = 200;
        loop {
            if let Some(answer) = self.submit(&request).await {
                self.take(&request, answer);
                // A retry of what was acknowledged, by a client that did not hear of it.
                if !self.rng.random_ratio(1, 10) {
                    return;
                }
            } else if self.rng.random_ratio(1, 50) {
                return;
            }
            sleep(Duration::from_millis(self.rng.random_range(1..pause))).await;
            pause = (pause * 2).min(60_000);
        }
    }

    /// One try: the answer, if there is one that is final.
    async fn submit(&mut self, request: &Request) -> Option<Receipt> {
        let (gateway, io) = self.front.borrow_and_update().clone()?;
        let body: Vec<&str> = request.lines.iter().map(|line| line.json.as_str()).collect();
        let submission = Submission {
            body: Bytes::from(body.join("\n")),
            framing: Framing::Lines,
            idempotency_key: request.idempotency_key.clone(),
            ..Submission::default()
        };
        let patience = Duration::from_millis(self.rng.random_range(5_000..90_000));
        let answer = tokio::select! {
            biased;
            () = io.died() => return None,
            answer = timeout(patience, gateway.submit(submission)) => answer.ok()?,
        };
        match answer {
            Ok(receipt) => Some(receipt),
            Err(SubmitError::Malformed { receipt, .. }) => Some(*receipt),
            Err(_) => None,
        }
    }

    /// Every event has its verdict: what can be is taken, and the rest is refused.
    fn take(&self, request: &Request, receipt: Receipt) {
        let mut ledger = self.ledger.lock();
        let refused: BTreeSet<u64> = receipt.errors.iter().map(|error| error.index).collect();
        if receipt.accepted + receipt.refused != request.lines.len() as u64 {
            ledger.wrong = Some(format!("R-8: {} lines were sent and got {receipt:?}", request.lines.len()));
        }
        for (line, index) in request.lines.iter().zip(0..) {
            if refused.contains(&index) {
                ledger.refused.push(line.json.clone());
            }
            match (&line.key, refused.contains(&index)) {
                (Some(key), false) => {
                    if ledger.acknowledged.insert(key.clone()) {
                        ledger.unheld.push(key.clone());
                    }
                }
                // The clock may have been set back since it was made up: then it lies too far ahead.
                (Some(_), true) | (None, true) => {}
                (None, false) => {
                    ledger.wrong = Some(format!("R-8: {} was taken", line.json));
                }
            }
        }
    }
}
