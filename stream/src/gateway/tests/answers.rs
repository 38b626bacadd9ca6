//! What is answered, and when: receipts, ids, failures of the log.

use std::sync::Arc;
use std::time::Duration;

use reckon_data::clock::ManualClock;
use reckon_data::event::Reason;
use reckon_data::ingest::{Ingest, Submission, SubmitError};
use reckon_data::log::LogError;
use reckon_data::record::Body;

use super::super::{Gateway, GatewayParts};
use super::model::*;

#[tokio::test]
async fn receipts_point_at_exactly_the_events_of_the_request() {
    let (log, gateway) = start();
    // Held up, so that requests share records.
    log.set_open(false);
    let requests: Vec<_> = (0..60)
        .map(|request| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let ids: Vec<_> = (0..request % 7 + 1).map(|n| format!("{request:02}-{n}")).collect();
                let body: String = ids.iter().map(|id| event(id) + "\n").collect();
                (ids, taken(&gateway, ndjson(body)).await)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    log.set_open(true);
    for request in requests {
        let (ids, receipt) = request.await.unwrap();
        assert_eq!(receipt.accepted, ids.len() as u64);
        assert_eq!(sorted(log.at(&receipt)), ids);
    }
    let stats = gateway.stats();
    assert!(stats.rounds < 60, "requests should share rounds: {}", stats.rounds);
    assert_eq!((stats.requests, stats.accepted), (60, log.event_ids().len() as u64));
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let (log, gateway) = start();
    log.set_open(false);
    for body in [event("a"), "{}".to_owned(), "[".to_owned()] {
        let submit = gateway.submit(json(body));
        assert!(
            tokio::time::timeout(Duration::from_millis(50), submit).await.is_err(),
            "answered before it was durable"
        );
    }
    log.set_open(true);
    gateway.stop().await;
    // Whoever asked had gone; that takes nothing back.
    assert_eq!((log.event_ids().len(), log.letters().len()), (1, 2));
}

#[tokio::test]
async fn a_retry_with_an_idempotency_key_makes_the_same_events() {
    let (log, gateway) = start();
    let body = format!("{}\n{{}}\n\n{}", nameless("v1"), nameless("v2"));
    let submission = Submission { idempotency_key: Some("retry-7".to_owned()), ..ndjson(body) };
    let receipt = taken(&gateway, submission.clone()).await;
    assert_eq!(sorted(log.at(&receipt)), ["retry-7-0", "retry-7-2"]);
    let first = log.keys();
    taken(&gateway, submission).await;
    let mut twice = [first.clone(), first].concat();
    twice.sort();
    assert_eq!(log.keys(), twice);
}

#[tokio::test]
async fn without_a_key_every_event_gets_a_name_of_its_own() {
    let (log, gateway) = start();
    for idempotency_key in [None, Some(String::new())] {
        let submission = Submission { idempotency_key, ..ndjson(format!("{0}\n{0}", nameless("v1"))) };
        assert_eq!(taken(&gateway, submission).await.accepted, 2);
    }
    let mut ids = log.event_ids();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn a_key_too_long_to_make_an_id_of_is_named() {
    let (log, gateway) = start();
    let body = format!("{}\n{}", nameless("v1"), event("a"));
    let submission = Submission { idempotency_key: Some("k".repeat(127)), ..ndjson(body) };
    let receipt = taken(&gateway, submission).await;
    assert_eq!((receipt.accepted, receipt.errors[0].reason), (1, Reason::TooLong));
    assert_eq!(
        receipt.errors[0].message,
        "event_id is missing, and the one made of the Idempotency-Key and its index has 129 bytes, the limit is 128"
    );
    assert_eq!(log.event_ids(), ["a"]);
}

#[tokio::test]
async fn failures_of_the_log_reach_those_concerned() {
    let (log, gateway) = start();
    log.fail(|partition| (partition == 0).then_some(LogError::Full));
    let mut full = 0;
    for n in 0..40 {
        match gateway.submit(json(event(&n.to_string()))).await {
            Ok(receipt) => assert_eq!(log.at(&receipt), [n.to_string()]),
            Err(SubmitError::Full) => full += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(full > 0 && full < 40, "{full}");
    assert_eq!(log.event_ids().len(), 40 - full);
    log.fail(|partition| Some(if partition == 0 { LogError::Full } else { LogError::Storage("gone".to_owned()) }));
    let lines: String = (0..40).map(|n| event(&n.to_string()) + "\n").collect();
    let answer = gateway.submit(ndjson(lines)).await;
    assert!(matches!(&answer, Err(SubmitError::Unavailable(why)) if why.contains("gone")), "{answer:?}");
    assert!(gateway.stats().rounds_failed > 0);
}

#[tokio::test]
async fn events_are_judged_as_of_the_append_time_in_their_record() {
    let log = TestLog::new();
    let clock = Arc::new(ManualClock::at(NOW));
    let parts = GatewayParts {
        log: Arc::clone(&log) as _,
        router: reckon_data::partition::Router::new(PARTITIONS, Default::default()),
        definition: Arc::default(),
        limits: Default::default(),
        clock: Arc::clone(&clock) as _,
        names: Arc::new(reckon_data::clock::SeededNames::new(1)),
        settings: settings(),
    };
    let gateway = Gateway::start(parts);
    let ahead = event("a").replace("21:29:00Z", "21:39:00.000001Z");
    let receipt = taken(&gateway, json(ahead.clone())).await;
    assert_eq!(receipt.errors[0].reason, Reason::InFuture);
    clock.advance(1);
    assert_eq!(taken(&gateway, json(ahead)).await.accepted, 1);
    let records: Vec<_> = (0..PARTITIONS).flat_map(|p| log.records(p)).collect();
    assert_eq!(records.len(), 2);
    for (header, body) in records {
        let expected = if matches!(body, Body::Events(_)) { NOW + 1 } else { NOW };
        assert_eq!((header.append_time, header.events), (expected, 1));
    }
}

#[tokio::test]
async fn letters_found_elsewhere_are_kept() {
    use reckon_data::dead::{BODY_BYTES_MAX, DeadLetter};
    use reckon_data::event::Refusal;
    let (log, gateway) = start();
    gateway.bury(Vec::new()).await.unwrap();
    let refusal = Refusal::whole(Reason::Malformed, "not a line".to_owned());
    let small = DeadLetter::new(&refusal, Some("clicks.gz:7"), b"x");
    let largest = DeadLetter::new(&refusal, None, &vec![b'x'; BODY_BYTES_MAX]);
    let absurd = DeadLetter { message: "é".repeat(1 << 20), source: Some("s".repeat(1 << 20)), ..largest.clone() };
    gateway.bury(vec![small.clone(), largest.clone(), absurd, small.clone()]).await.unwrap();
    let letters = log.letters();
    assert_eq!(letters.len(), 4);
    assert_eq!(letters.iter().filter(|letter| **letter == small).count(), 2);
    assert!(letters.contains(&largest));
    assert!(letters.iter().any(|letter| letter.message.starts_with('é') && letter.body == largest.body));
    assert_eq!(gateway.stats().buried, 4);
}
