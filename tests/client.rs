//! The client of applications, over a network that fails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reckon_client::{Client, Options, Sender, SenderOptions};

use crate::harness::{RUNTIME, Server, number, proxy, rows, total};

const EVENTS: u64 = 1_000_000;
const ENTITIES: u64 = 1_000;

/// Every second event has no id: that a repeat of it is one, only its request's `Idempotency-Key` says.
fn event(number: u64) -> String {
    let (entity, second) = (number % ENTITIES, number / ENTITIES % 60);
    let id = if number.is_multiple_of(2) { format!(r#""event_id":"e{number}","#) } else { String::new() };
    format!(
        r#"{{{id}"event_type":"view","entity_id":"v{entity}","event_time":"2024-05-01T10:00:{second:02}Z","user_id":"u{number}"}}"#
    )
}

#[test]
fn a_million_events_over_a_network_that_fails_count_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (stats, done) = RUNTIME.block_on(async {
        let (url, done) = proxy::start(server.url().trim_start_matches("http://")).await;
        let options =
            Options { timeout: Duration::from_secs(5), connect_timeout: Duration::from_secs(2), ..Options::default() };
        let client = Client::new(&url, options).unwrap();
        let sender =
            Sender::start(client, SenderOptions { batch_bytes: 64 << 10, ..SenderOptions::default() }).unwrap();
        for number in 0..EVENTS {
            sender.send(event(number).as_bytes()).await.unwrap();
        }
        sender.close().await.unwrap();
        (sender.stats(), done)
    });
    println!("{done:?} {stats:?}");
    assert_eq!((stats.sent, stats.acknowledged, stats.refused), (EVENTS, EVENTS, 0), "{stats:?}");
    let struck = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert!(struck(&done.dropped) + struck(&done.delayed) + struck(&done.cut) > 0, "nothing failed: {done:?}");
    assert!(stats.retried > 0, "nothing was sent again: {stats:?}");
    assert_eq!(total(&server), EVENTS);
    let each = "select count(*), min(c), max(c) from (select entity_id, sum(count) c from stats group by 1)";
    let row = &rows(&server.sql(each))[0];
    let each = EVENTS / ENTITIES;
    assert_eq!([number(&row[0]), number(&row[1]), number(&row[2])], [ENTITIES, each, each]);
    server.batch();
    assert_eq!(total(&server), EVENTS, "after batch");
}
