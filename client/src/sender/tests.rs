//! Senders with servers and files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reckon_data::event::Reason;
use reckon_data::problem::Problem;
use reckon_data::receipt::{Receipt, RefusedEvent};
use uuid::Uuid;

use super::spill::file_bytes;
use super::*;
use crate::options::Options;
use crate::testing::{Answer, Asked, Fake, quick};

/// What must happen happens within this time, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Bytes of an event with its line break.
const EVENT: usize = 21;

/// A server that takes events, or answers 503 while it is down.
struct Server {
    fake: Fake,
    is_down: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    async fn start(is_down: bool) -> Self {
        let (is_down, taken) = (Arc::new(AtomicBool::new(is_down)), Arc::new(Mutex::new(Vec::new())));
        let (down, bodies) = (Arc::clone(&is_down), Arc::clone(&taken));
        let fake = Fake::start(move |asked| {
            if down.load(Ordering::SeqCst) {
                return Answer::problem(503);
            }
            bodies.lock().push(asked.clone());
            Answer::taken(asked)
        })
        .await;
        Self { fake, is_down, taken }
    }

    fn comes_up(&self) {
        self.is_down.store(false, Ordering::SeqCst);
    }

    /// The events it took, in order of their numbers.
    fn events(&self) -> Vec<String> {
        let mut events: Vec<_> = self.taken.lock().iter().flat_map(Asked::lines).collect();
        events.sort();
        events
    }

    /// The names of the batches it took.
    fn keys(&self) -> BTreeSet<String> {
        self.taken.lock().iter().map(Asked::key).collect()
    }

    fn client(&self) -> Client {
        Client::new(&self.fake.url, quick()).unwrap()
    }
}

fn event(number: u64) -> String {
    format!("{{\"entity_id\":\"{number:04}\"}}")
}

fn events(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(event).collect()
}

/// Batches of ten events, which never go off by themselves.
fn tens() -> SenderOptions {
    SenderOptions { batch_bytes: 10 * EVENT, linger: Duration::from_secs(3_600), ..SenderOptions::default() }
}

fn spill(dir: &Path, bytes_max: u64) -> SenderOptions {
    let spill = Some(SpillOptions { dir: dir.to_owned(), bytes_max });
    SenderOptions { spill, buffer_bytes: 200 * EVENT, ..tens() }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it waits")
}

async fn send(sender: &Sender, numbers: std::ops::Range<u64>) {
    for number in numbers {
        soon(sender.send(event(number).as_bytes())).await.unwrap();
    }
}

/// Flushes in spite of what failed a moment ago.
async fn flush(sender: &Sender) {
    let start = Instant::now();
    while let Err(error) = soon(sender.flush()).await {
        assert!(matches!(error, SendError::Failing { .. }) && start.elapsed() < SOON, "{error}");
    }
}

async fn until(happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < SOON, "it does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The names of the files with an ending.
fn files(dir: &Path, ending: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

#[tokio::test]
async fn every_event_arrives_once_and_in_batches() {
    let (a, b) = (Server::start(false).await, Server::start(false).await);
    let client = Client::new(&format!("{},{}", a.fake.url, b.fake.url), quick()).unwrap();
    let sender = Sender::start(client, tens()).unwrap();
    send(&sender, 0..95).await;
    soon(sender.flush()).await.unwrap();
    let mut arrived = [a.events(), b.events()].concat();
    arrived.sort();
    assert_eq!(arrived, events(0..95));
    let keys: BTreeSet<_> = a.keys().union(&b.keys()).cloned().collect();
    assert_eq!(keys.len(), 10);
    assert!(keys.iter().all(|key| key.parse::<Uuid>().unwrap().get_version_num() == 7), "{keys:?}");
    assert!(a.keys().len() == 5 && b.keys().len() == 5, "in turn");
    assert!(a.taken.lock().iter().all(|asked| asked.what == "POST /v1/events" && asked.lines().len() <= 10));
    let expected = Stats { sent: 95, acknowledged: 95, ..Stats::default() };
    assert_eq!(sender.stats(), expected);
}

#[tokio::test]
async fn one_event_does_not_wait_for_others() {
    let server = Server::start(false).await;
    let sender = Sender::start(server.client(), SenderOptions::default()).unwrap();
    send(&sender, 0..1).await;
    until(|| sender.stats().acknowledged == 1).await;
    assert_eq!(server.events(), events(0..1));
}

#[tokio::test]
async fn what_is_not_one_line_is_refused_here() {
    let server = Server::start(false).await;
    let sender = Sender::start(server.client(), SenderOptions { buffer_bytes: 400, ..tens() }).unwrap();
    for json in ["", " \n ", "{\n}", "{}\n{}"] {
        assert!(matches!(sender.send(json.as_bytes()).await, Err(SendError::BadEvent { .. })), "{json:?}");
        assert!(matches!(sender.try_send(json.as_bytes()), Err(SendError::BadEvent { .. })), "{json:?}");
    }
    let long = "1".repeat(400);
    let too_large = SendError::TooLarge { bytes: 401, bytes_max: 400 };
    assert_eq!(sender.send(long.as_bytes()).await, Err(too_large));
    soon(sender.send(&long.as_bytes()[1..])).await.unwrap();
    soon(sender.send(format!(" {}\r\n", event(0)).as_bytes())).await.unwrap();
    soon(sender.flush()).await.unwrap();
    assert_eq!(server.events(), ["1".repeat(399), event(0)]);
    assert_eq!(sender.stats().sent, 2);
}

#[tokio::test]
async fn when_memory_is_full_senders_wait() {
    let server = Server::start(true).await;
    let options = SenderOptions { buffer_bytes: 50 * EVENT, ..tens() };
    let sender = Sender::start(server.client(), options).unwrap();
    for number in 0..50 {
        sender.try_send(event(number).as_bytes()).unwrap();
    }
    assert_eq!(sender.try_send(event(50).as_bytes()), Err(SendError::Full));
    assert_eq!(sender.stats().waiting_bytes, 50 * EVENT as u64);
    let late = event(50);
    let waits = tokio::time::timeout(Duration::from_millis(200), sender.send(late.as_bytes())).await;
    assert!(waits.is_err(), "{waits:?}");
    server.comes_up();
    send(&sender, 50..100).await;
    flush(&sender).await;
    assert_eq!(server.events(), events(0..100));
    assert_eq!((sender.stats().sent, sender.stats().waiting_bytes), (100, 0));
}

#[tokio::test]
async fn a_batch_is_tried_until_it_is_taken_and_stays_the_same() {
    let server = Server::start(true).await;
    let sender = Sender::start(server.client(), tens()).unwrap();
    send(&sender, 0..3).await;
    for _ in 0..2 {
        assert!(matches!(soon(sender.flush()).await, Err(SendError::Failing { .. })));
    }
    server.comes_up();
    flush(&sender).await;
    assert_eq!(server.events(), events(0..3));
    let asked = server.fake.asked();
    assert!(asked.len() > 8, "{} requests", asked.len());
    assert!(asked.iter().all(|asked| asked.key() == *server.keys().first().unwrap() && asked.lines() == events(0..3)));
    assert_eq!(sender.stats().retried, asked.len() as u64 - 1);
    assert!(sender.stats().error.is_some());
}

/// Takes what is called `good`, refuses what is called `bad`, and any body with something `large`.
fn judge(asked: &Asked) -> Answer {
    let lines = asked.lines();
    if lines.iter().any(|line| line.contains("large")) {
        let problem = Problem::new(413, "too-large", "The body is too large", "refused with 413");
        return Answer::json(413, &problem);
    }
    let bad = (0..).zip(&lines).filter(|(_, line)| line.contains("bad"));
    let errors: Vec<_> = bad.map(|(index, _)| refused_event(index)).collect();
    let (all, refused) = (lines.len() as u64, errors.len() as u64);
    let receipt = Receipt { accepted: all - refused, refused, errors, ..Receipt::default() };
    if refused < all {
        return Answer::json(200, &receipt);
    }
    let problem = Problem::new(422, "refused", "Every event was refused", "bad");
    Answer::json(422, &Problem { receipt: Some(receipt), ..problem })
}

fn refused_event(index: u64) -> RefusedEvent {
    RefusedEvent { index, reason: Reason::Missing, field: None, message: "bad".to_owned() }
}

#[tokio::test]
async fn what_is_refused_is_counted_and_not_tried_again() {
    let server = Fake::start(judge).await;
    let sender = Sender::start(Client::new(&server.url, quick()).unwrap(), tens()).unwrap();
    for json in ["\"good 1\"", "\"bad 2\"", "\"good 3\""] {
        sender.send(json.as_bytes()).await.unwrap();
    }
    soon(sender.flush()).await.unwrap();
    sender.send(b"\"bad 4\"").await.unwrap();
    soon(sender.flush()).await.unwrap();
    for json in ["\"good 5\"", "\"large 6\""] {
        sender.send(json.as_bytes()).await.unwrap();
    }
    let refused = soon(sender.flush()).await;
    assert!(matches!(&refused, Err(SendError::Refused { events: 2, reason }) if reason.contains("413")), "{refused:?}");
    soon(sender.flush()).await.unwrap();
    let stats = sender.stats();
    assert_eq!((stats.sent, stats.acknowledged, stats.refused, stats.retried), (6, 2, 4, 0));
    let kept: Vec<_> = stats.refusals.iter().map(|refusal| (refusal.index, refusal.reason)).collect();
    assert_eq!(kept, [(Some(1), Some(Reason::Missing)), (Some(0), Some(Reason::Missing)), (None, None)]);
    assert_eq!(server.asked().len(), 3);
    assert_eq!(stats.refusals[0].batch.to_string(), server.asked()[0].key());
}

#[tokio::test]
async fn the_spill_takes_what_no_server_does_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(true).await;
    let sender = Sender::start(server.client(), spill(dir.path(), 10_000_000)).unwrap();
    send(&sender, 0..1_000).await;
    soon(sender.flush()).await.unwrap();
    let stats = sender.stats();
    assert_eq!((stats.sent, stats.acknowledged, stats.spilled, stats.waiting_bytes), (1_000, 0, 1_000, 0));
    assert!(stats.spill_bytes > 1_000 * EVENT as u64, "{stats:?}");
    let names = files(dir.path(), ".batch");
    assert!(names.len() >= 100, "{} files", names.len());
    server.comes_up();
    until(|| sender.stats().acknowledged == 1_000).await;
    assert_eq!(server.events(), events(0..1_000));
    assert_eq!(server.keys(), names);
    assert_eq!(sender.stats().spill_bytes, 0);
    assert!(files(dir.path(), ".batch").is_empty());
}

#[tokio::test]
async fn what_one_sender_leaves_the_next_one_sends() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(true).await;
    let sender = Sender::start(server.client(), spill(dir.path(), 10_000_000)).unwrap();
    send(&sender, 0..95).await;
    let second = Sender::start(server.client(), spill(dir.path(), 10_000_000));
    assert!(matches!(&second, Err(SpillError::Held { .. })), "{second:?}");
    soon(sender.close()).await.unwrap();
    let names = files(dir.path(), ".batch");
    assert_eq!((names.len(), server.events().len()), (10, 0));
    server.comes_up();
    let sender = Sender::start(server.client(), spill(dir.path(), 10_000_000)).unwrap();
    until(|| sender.stats().acknowledged == 95).await;
    assert_eq!((server.events(), server.keys()), (events(0..95), names));
    soon(sender.close()).await.unwrap();
    assert!(files(dir.path(), ".batch").is_empty());
}

#[tokio::test]
async fn a_full_spill_makes_senders_wait() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(true).await;
    let (bytes_max, room) = (3_000, 150 * EVENT as u64);
    let sender = Sender::start(server.client(), spill(dir.path(), bytes_max)).unwrap();
    let mut sent = 0;
    loop {
        let next = event(sent);
        let done = tokio::time::timeout(Duration::from_secs(2), sender.send(next.as_bytes())).await;
        let stats = sender.stats();
        assert!(stats.spill_bytes <= bytes_max && stats.waiting_bytes <= room, "{stats:?}");
        match done {
            Ok(done) => done.unwrap(),
            Err(_) if stats.spill_bytes + file_bytes(&[0; 10 * EVENT]) > bytes_max => break,
            // The disk is slow.
            Err(_) => continue,
        }
        sent += 1;
        assert!(sent * EVENT as u64 <= bytes_max + room, "it takes more than there is room for");
    }
    assert!(matches!(soon(sender.flush()).await, Err(SendError::Failing { .. })));
    server.comes_up();
    until(|| sender.stats().acknowledged == sent).await;
    assert_eq!(server.events(), events(0..sent));
}

#[tokio::test]
async fn a_file_that_is_damaged_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let id = Uuid::from_u128(7).to_string();
    std::fs::write(dir.path().join(format!("{id}.batch")), "reckon-batch-1 0123456789abcdef\n{\"torn").unwrap();
    let server = Server::start(false).await;
    let sender = Sender::start(server.client(), spill(dir.path(), 10_000)).unwrap();
    until(|| sender.stats().damaged == 1).await;
    assert!(sender.stats().error.unwrap().contains(&id));
    assert_eq!(files(dir.path(), ".damaged"), BTreeSet::from([id]));
    send(&sender, 0..1).await;
    soon(sender.close()).await.unwrap();
    assert_eq!(server.events(), events(0..1));
}

#[tokio::test]
async fn a_file_that_is_refused_as_a_whole_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let id = Uuid::from_u128(7);
    let (earlier, _) = Spill::open(dir.path()).unwrap();
    earlier.write(id, b"\"large 1\"\n\"large 2\"\n").unwrap();
    drop(earlier);
    let server = Fake::start(judge).await;
    let sender = Sender::start(Client::new(&server.url, quick()).unwrap(), spill(dir.path(), 10_000)).unwrap();
    until(|| sender.stats().refused_files == 1).await;
    let refused = soon(sender.close()).await;
    assert!(matches!(refused, Err(SendError::Refused { events: 2, .. })), "{refused:?}");
    assert_eq!((sender.stats().refused, sender.stats().spill_bytes), (2, 0));
    assert_eq!(files(dir.path(), ".refused"), BTreeSet::from([id.to_string()]));
    assert!(files(dir.path(), ".batch").is_empty());
}

#[tokio::test]
async fn what_no_gateway_says_is_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let left = Mutex::new(vec![400, 401, 403, 404, 405, 408, 413, 415, 422, 500]);
    let server = Fake::start(move |asked| match left.lock().pop() {
        Some(status) => Answer::problem(status),
        None => Answer::taken(asked),
    })
    .await;
    let client = Client::new(&server.url, Options { failures_max: 100, ..quick() }).unwrap();
    let sender = Sender::start(client, spill(dir.path(), 10_000)).unwrap();
    send(&sender, 0..10).await;
    until(|| sender.stats().acknowledged == 10).await;
    assert_eq!((sender.stats().refused, server.asked().len()), (0, 11));
    soon(sender.close()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_long() {
    assert!(SenderOptions::default().timeout <= Duration::from_secs(30));
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let options = SenderOptions { timeout: Duration::from_millis(50), ..tens() };
    let sender = Sender::start(Client::new(&url, quick()).unwrap(), options).unwrap();
    send(&sender, 0..1).await;
    assert!(matches!(soon(sender.flush()).await, Err(SendError::Failing { .. })));
}

#[tokio::test]
async fn who_is_closed_has_sent_everything_and_takes_nothing_more() {
    let server = Server::start(false).await;
    let sender = Sender::start(server.client(), tens()).unwrap();
    send(&sender, 0..15).await;
    soon(sender.close()).await.unwrap();
    assert_eq!(server.events(), events(0..15));
    assert_eq!(sender.send(b"{}").await, Err(SendError::Closed));
    assert_eq!(sender.try_send(b"{}"), Err(SendError::Closed));
    soon(sender.flush()).await.unwrap();
    soon(sender.close()).await.unwrap();
    assert_eq!(sender.stats().sent, 15);
}

#[tokio::test]
async fn closing_says_what_is_left_and_can_be_tried_again() {
    let server = Server::start(true).await;
    let sender = Sender::start(server.client(), tens()).unwrap();
    send(&sender, 0..15).await;
    assert!(matches!(soon(sender.close()).await, Err(SendError::Failing { .. })));
    server.comes_up();
    while soon(sender.close()).await.is_err() {}
    assert_eq!(server.events(), events(0..15));
}
