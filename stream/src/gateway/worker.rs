//! A worker: a thread that turns waiting bodies into rounds of records.
//!
//! It takes what waits, without waiting for more: under load rounds are large and few, otherwise each
//! body is on its way at once. Room for the round is taken before its first body, so while the log is
//! behind, bodies gather in the queue instead of in ever more rounds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use reckon_data::dead::DeadLetter;
use reckon_data::event::{Reason, Refusal, wire};
use reckon_data::ingest::{Framing, Submission};
use reckon_data::invariant::DEAD_LETTERS;
use reckon_data::receipt::RefusedEvent;
use tokio::sync::OwnedSemaphorePermit;

use super::framing::{Events, lines, split};
use super::gather::Gather;
use super::inflate::{InflateError, inflate};
use super::judge::Circumstances;
use super::queue::{Job, Work};
use super::stats::{add, add_since, nanos_since};
use super::ticket::{Ticket, Verdict};
use super::{Shared, round};

/// Refused events of one request that are judged one by one. Each leaves a letter of a hundred bytes or more
/// in the log, so a small body that inflates to millions of them could fill it.
const REFUSED_MAX: u64 = 100_000;

/// A worker's own state.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    gather: Gather,
    /// The round's room.
    room: Option<OwnedSemaphorePermit>,
    /// Bytes of bodies in the round, decompressed.
    taken_bytes: usize,
    /// Holds the ids that are made here.
    id: String,
}

/// The request at hand.
struct Request<'a> {
    ticket: Arc<Ticket>,
    source: Option<&'a str>,
    /// The line of the source that the body begins with.
    first_line: Option<u64>,
    /// The line of the source that is being judged.
    line: Option<u64>,
    idempotency_key: Option<&'a str>,
    internal: bool,
    verdict: Verdict,
    next_index: u64,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let gather = Gather::new(shared.router.partitions(), shared.router.version());
        Self { shared, gather, room: None, taken_bytes: 0, id: String::new() }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while self.take_room() {
            let Some(job) = self.shared.queue.pop() else { return };
            // The tickets of a round that failed are dropped, which answers that the outcome is unknown.
            if catch_unwind(AssertUnwindSafe(|| self.turn(job))).is_err() {
                tracing::error!("a worker of the gateway failed and begins anew");
                self = Self::new(self.shared);
            }
        }
    }

    /// One round of what waits now, if anything does.
    pub(super) fn turn_with(&mut self, room: OwnedSemaphorePermit) {
        if let Some(job) = self.shared.queue.try_pop() {
            self.room = Some(room);
            self.turn(job);
        }
    }

    /// Waits until there is room for a round.
    fn take_room(&mut self) -> bool {
        if self.room.is_none() {
            let room = Arc::clone(&self.shared.rounds).acquire_owned();
            self.room = self.shared.runtime.block_on(room).ok();
        }
        self.room.is_some()
    }

    /// Gathers a round, beginning with `job`, and sends it off.
    fn turn(&mut self, job: Job) {
        self.begin();
        self.work(job);
        while self.taken_bytes < self.shared.round_bytes {
            let Some(job) = self.shared.queue.try_pop() else { break };
            self.work(job);
        }
        self.send();
    }

    fn begin(&mut self) {
        self.taken_bytes = 0;
        self.gather.begin(self.shared.clock.now());
    }

    fn send(&mut self) {
        let load = self.gather.take();
        add(&self.shared.stats.encode_nanos, self.gather.take_encode_nanos());
        let Some(room) = self.room.take() else { return };
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move {
            round::append(&*shared.log, &shared.stats, load).await;
            drop(room);
        });
    }

    fn work(&mut self, job: Job) {
        let Job { work, ticket } = job;
        match work {
            Work::Body(submission) => self.body(submission, ticket),
            Work::Letters(letters) => self.letters(letters, ticket),
        }
    }

    fn letters(&mut self, letters: Vec<DeadLetter>, ticket: Arc<Ticket>) {
        add(&self.shared.stats.buried, letters.len() as u64);
        for letter in letters {
            self.taken_bytes += letter.size();
            self.gather.bury(letter);
            self.send_if_full(&ticket);
        }
        ticket.judged(Verdict::default());
        self.gather.end_part(ticket);
    }

    fn body(&mut self, submission: Submission, ticket: Arc<Ticket>) {
        let Submission { body, framing, compression, idempotency_key, source, first_line, internal } = submission;
        let mut request = Request {
            ticket,
            source: source.as_deref(),
            first_line,
            line: first_line,
            // An empty key would give the events of all who send one the same ids.
            idempotency_key: idempotency_key.as_deref().filter(|key| !key.is_empty()),
            internal,
            verdict: Verdict::default(),
            next_index: 0,
        };
        let stats = &self.shared.stats;
        add(&stats.received_bytes, body.len() as u64);
        let start = Instant::now();
        let inflated = inflate(body.clone(), compression, self.shared.body_bytes_max);
        add_since(&stats.inflate_nanos, start);
        match inflated {
            Ok(inflated) => {
                add(&stats.inflated_bytes, inflated.len() as u64);
                self.taken_bytes += inflated.len();
                self.judge_all(&mut request, &inflated, framing);
            }
            Err(InflateError::TooLarge) => {
                self.taken_bytes += self.shared.body_bytes_max;
                request.verdict.too_large = Some(self.shared.body_bytes_max as u64);
            }
            Err(InflateError::Corrupt(error)) => {
                let message = format!("the body cannot be decompressed as {compression:?}: {error}").to_lowercase();
                self.refuse_whole(&mut request, message, &body);
            }
        }
        request.ticket.judged(request.verdict);
        self.gather.end_part(request.ticket);
    }

    /// Judges the events of a decompressed body.
    fn judge_all(&mut self, request: &mut Request<'_>, body: &[u8], framing: Framing) {
        let start = Instant::now();
        match split(body, framing) {
            Ok(Events::One(event)) => self.event(request, event.trim_ascii()),
            Ok(Events::Array(events)) => self.events(request, body, events.into_iter().map(|event| (0, event))),
            Ok(Events::Lines(body)) => self.events(request, body, lines(body)),
            Err(fault) => {
                let message = format!("the body is not JSON at byte {}: {}", fault.at, fault.what);
                self.refuse_whole(request, message, body);
            }
        }
        let verdict = &mut request.verdict;
        let judged = verdict.accepted + verdict.refused;
        if !DEAD_LETTERS.holds(judged == request.next_index) {
            verdict.malformed = Some(format!("{judged} of {} events got a verdict", request.next_index));
        } else if request.next_index == 0 {
            verdict.malformed = Some("the body holds no event".to_owned());
        } else if verdict.readable == 0 && verdict.malformed.is_none() {
            let first = verdict.errors.first().map_or("", |error| error.message.as_str());
            let message = format!("none of the {} events could be read; the first: {first}", request.next_index);
            verdict.malformed = Some(message);
        }
        // Records that were closed on the way are counted as encoding.
        let encoding = self.gather.take_encode_nanos();
        add(&self.shared.stats.encode_nanos, encoding);
        add(&self.shared.stats.judge_nanos, nanos_since(start).saturating_sub(encoding));
        add(&self.shared.stats.accepted, verdict.accepted);
    }

    /// Judges the events of a body one by one, unless there is no end of refusals.
    fn events<'b>(&mut self, request: &mut Request<'_>, body: &'b [u8], events: impl Iterator<Item = (u64, &'b [u8])>) {
        for (line, event) in events {
            request.line = request.first_line.map(|first| first.saturating_add(line));
            if request.verdict.refused >= REFUSED_MAX {
                return self.refuse_rest(request, body, event);
            }
            self.event(request, event);
        }
    }

    /// Refuses a body from `event` on as one.
    fn refuse_rest(&mut self, request: &mut Request<'_>, body: &[u8], event: &[u8]) {
        let index = request.next_index;
        let at = event.as_ptr().addr().saturating_sub(body.as_ptr().addr());
        let message = format!(
            "{REFUSED_MAX} events of the body were refused; the rest, from event {index} at byte {at} on, was not \
             judged: put right what is wrong and send it again"
        );
        let refusal = Refusal::whole(Reason::Malformed, message.clone());
        self.refuse(request, index, &refusal, body.get(at..).unwrap_or(event));
        request.next_index += 1;
        request.verdict.malformed = Some(message);
        self.send_if_full(&request.ticket);
    }

    /// Judges one event and puts it where it belongs.
    fn event(&mut self, request: &mut Request<'_>, json: &[u8]) {
        let index = request.next_index;
        request.next_index += 1;
        let given = Circumstances {
            idempotency_key: request.idempotency_key,
            internal: request.internal,
            append_time: self.gather.append_time(),
        };
        let wire = wire::parse(json);
        let judged = match &wire {
            Ok(wire) => wire.draft().and_then(|draft| self.shared.judge.judge(draft, index, &given, &mut self.id)),
            Err(refusal) => Err(refusal.clone()),
        };
        match judged {
            Ok(event) => {
                let partition = self.shared.router.partition(event.entity_id, event.event_id);
                self.gather.push(&event, partition);
                request.verdict.accepted += 1;
                request.verdict.readable += 1;
            }
            Err(refusal) => self.refuse(request, index, &refusal, json),
        }
        self.send_if_full(&request.ticket);
    }

    fn refuse(&mut self, request: &mut Request<'_>, index: u64, refusal: &Refusal, bytes: &[u8]) {
        self.shared.stats.refuse(refusal.reason);
        let place = request.source.zip(request.line).map(|(source, line)| format!("{source}:{line}"));
        self.gather.bury(DeadLetter::new(refusal, place.as_deref().or(request.source), bytes));
        let Refusal { reason, field, message } = refusal.clone();
        request.verdict.refuse(RefusedEvent { index, reason, field, message });
    }

    /// Refuses a body of which no event could be read.
    fn refuse_whole(&mut self, request: &mut Request<'_>, message: String, body: &[u8]) {
        request.next_index = 1;
        self.refuse(request, 0, &Refusal::whole(Reason::Malformed, message.clone()), body);
        request.verdict.malformed = Some(message);
    }

    /// Sends the round off in the middle of a request when it has grown too large, and begins another.
    fn send_if_full(&mut self, ticket: &Arc<Ticket>) {
        if self.gather.bytes() < self.shared.round_bytes {
            return;
        }
        self.gather.end_part(Arc::clone(ticket));
        self.send();
        self.take_room();
        self.begin();
    }
}
