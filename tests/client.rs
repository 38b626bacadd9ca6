//! The client of applications, over a network that fails.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reckon_client::{Client, Compression, Options, Sender, SenderOptions, SpillOptions, Stats};

use crate::harness::{RUNTIME, Server, number, proxy, rows, total};

const EVENTS: u64 = 1_000_000;
const ENTITIES: u64 = 1_000;
/// How long it may take until the last of them is acknowledged.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Every second event has no id: that a repeat of it is one, only its request's `Idempotency-Key` says.
fn event(number: u64) -> String {
    let (entity, second) = (number % ENTITIES, number / ENTITIES % 60);
    let id = if number.is_multiple_of(2) { format!(r#""event_id":"e{number}","#) } else { String::new() };
    format!(
        r#"{{{id}"event_type":"view","entity_id":"v{entity}","event_time":"2024-05-01T10:00:{second:02}Z","user_id":"u{number}"}}"#
    )
}

/// Sends all events through the servers at `urls`, with little memory, and what does not fit in `folder`.
async fn send_all(urls: &str, folder: &Path) -> Stats {
    let (timeout, connect_timeout) = (Duration::from_secs(5), Duration::from_secs(2));
    let options = Options { timeout, connect_timeout, compression: Compression::Always, ..Options::default() };
    let client = Client::new(urls, options).unwrap();
    let spill = Some(SpillOptions { dir: folder.to_owned(), bytes_max: 1 << 30 });
    let options = SenderOptions { batch_bytes: 64 << 10, buffer_bytes: 1 << 20, spill, ..SenderOptions::default() };
    let sender = Sender::start(client, options).unwrap();
    for number in 0..EVENTS {
        sender.send(event(number).as_bytes()).await.unwrap();
    }
    // Set down is not sent.
    sender.flush().await.unwrap();
    let start = Instant::now();
    while sender.stats().acknowledged < EVENTS {
        assert!(start.elapsed() < TIME_MAX, "{:?}", sender.stats());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sender.close().await.unwrap();
    sender.stats()
}

#[test]
fn a_million_events_over_a_network_that_fails_count_once() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path());
    let (stats, done) = RUNTIME.block_on(async {
        let to = server.url().trim_start_matches("http://");
        let ((a, one), (b, other)) = (proxy::start(to, 42).await, proxy::start(to, 43).await);
        (send_all(&format!("{a},{b}"), folder.path()).await, [one, other])
    });
    println!("{done:?} {stats:?}");
    assert_eq!((stats.sent, stats.acknowledged, stats.refused), (EVENTS, EVENTS, 0), "{stats:?}");
    for done in &done {
        assert!(done.lost.load(Ordering::Relaxed) > 0, "nothing failed: {done:?}");
    }
    assert!(stats.retried > 0, "nothing was sent again: {stats:?}");
    assert_eq!(total(&server), EVENTS);
    let repeats = number(&server.get("/readyz")["totals"]["duplicate"]);
    assert!(repeats > 0, "no event came twice");
    let each = "select count(*), min(c), max(c) from (select entity_id, sum(count) c from stats group by 1)";
    let row = &rows(&server.sql(each))[0];
    let each = EVENTS / ENTITIES;
    assert_eq!([number(&row[0]), number(&row[1]), number(&row[2])], [ENTITIES, each, each]);
    server.batch();
    assert_eq!(total(&server), EVENTS, "after batch");
}
