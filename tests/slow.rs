//! Clients that are slow, and many: they cost little, and nobody else waits for them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Server, total};

/// So many at the same time.
const CLIENTS: usize = 1_000;
/// What one of them may cost, bytes: a connection with its buffers.
const BYTES_MAX: u64 = 128 << 10;
const BODY: usize = 4_000;

/// What each of them has sent so far.
fn beginning(number: usize) -> String {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {BODY}\r\n\
         connection: close\r\n"
    );
    match number % 4 {
        // Nothing at all, half a head, half a body; and a question whose answer is not read.
        0 => String::new(),
        1 => head,
        2 => head + "\r\n" + &"x".repeat(BODY / 2),
        _ => "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20),
    }
}

#[test]
fn a_thousand_slow_clients_cost_little_and_hold_nobody_up() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let event = |number: usize| {
        json!({"event_id": format!("e{number}"), "event_type": "view", "entity_id": "v1",
            "event_time": "2026-01-01T00:00:00Z"})
    };
    assert_eq!(server.post("/v1/events", &event(0)).0, 200);
    let before = server.memory();
    let address = server.url().trim_start_matches("http://");
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(beginning(number).as_bytes()).unwrap();
        clients.push(client);
    }
    // Whoever is not slow is answered.
    for number in 1..=100 {
        let (status, answer) = server.post("/v1/events", &event(number));
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(total(&server), 101);
    if let (Some(before), Some(now)) = (before, server.memory()) {
        let more = now.saturating_sub(before);
        assert!(more < CLIENTS as u64 * BYTES_MAX, "{} KiB for {CLIENTS} clients", more >> 10);
    }
    // A body that comes after all is taken, for what it is.
    let mut late = clients.swap_remove(2);
    late.write_all("x".repeat(BODY - BODY / 2).as_bytes()).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(r#""refused":1"#), "{answer}");
}
