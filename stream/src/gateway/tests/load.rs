//! Full queues, large bodies, and the end.

use std::sync::Arc;
use std::time::Duration;

use reckon_data::ingest::{Ingest, SubmitError};
use reckon_data::log::RECORD_BYTES_MAX;
use reckon_data::record::Body;

use super::model::*;

fn small_queue() -> reckon_data::config::Gateway {
    let mut settings = settings();
    // As text, so that the type of sizes stays the settings' own.
    settings.queue = "64KiB".parse().unwrap();
    settings.body_max = "64KiB".parse().unwrap();
    settings
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let log = TestLog::new();
    let gateway = start_with(&log, small_queue());
    log.set_open(false);
    let body = event("a") + &" ".repeat(8 * 1024);
    let waiting: Vec<_> = (0..7)
        .map(|_| {
            let (gateway, body) = (Arc::clone(&gateway), body.clone());
            tokio::spawn(async move { taken(&gateway, ndjson(body)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(gateway.stats().queue_bytes > 56 * 1024);
    let refused = gateway.submit(ndjson(body.clone())).await;
    assert!(matches!(refused, Err(SubmitError::Busy { retry_after_seconds: 1 })), "{refused:?}");
    log.set_open(true);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().accepted, 1);
    }
    assert_eq!(gateway.stats().queue_bytes, 0);
    assert_eq!(taken(&gateway, ndjson(body)).await.accepted, 1);
    assert_eq!((gateway.stats().busy, log.event_ids().len()), (1, 8));
}

#[tokio::test]
async fn a_body_as_large_as_the_queue_is_taken() {
    let log = TestLog::new();
    let gateway = start_with(&log, small_queue());
    let mut body = event("a").into_bytes();
    body.resize(64 * 1024, b'\n');
    assert_eq!(taken(&gateway, ndjson(body)).await.accepted, 1);
}

#[tokio::test]
async fn no_record_exceeds_the_limit() {
    let (log, gateway) = start();
    let properties = format!(r#"{{"a":"{}"}}"#, "x".repeat(16 * 1024 - 8));
    let mut bodies = 0;
    for (count, extra) in [(450, format!(r#","properties":{properties}}}"#)), (40_000, "}".to_owned())] {
        let body: String = (0..count).map(|n| event(&format!("{n}")).replace('}', &extra) + "\n").collect();
        let receipt = taken(&gateway, ndjson(body)).await;
        assert_eq!((receipt.accepted, receipt.refused), (count, 0));
        let mut expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        expected.sort();
        assert_eq!(sorted(log.at(&receipt)), expected);
        bodies += count;
    }
    // The log itself checks the length of each record; here, that they are well filled.
    let records: Vec<_> = (0..PARTITIONS).flat_map(|p| log.records(p)).collect();
    let bytes = gateway.stats().record_bytes;
    assert!(bytes > RECORD_BYTES_MAX as u64 * 20 && (records.len() as u64) < 2 * bytes / RECORD_BYTES_MAX as u64 + 20);
    assert_eq!(records.iter().map(|(header, _)| u64::from(header.events)).sum::<u64>(), bodies);
}

#[tokio::test]
async fn letters_fill_records_within_the_limit() {
    let (log, gateway) = start();
    let lines: String = (0..70_000).map(|n| format!("{{\"{n:050}\n")).collect();
    let (_, receipt) = malformed(gateway.submit(ndjson(lines)).await);
    assert_eq!((receipt.refused, log.letters().len()), (70_000, 70_000));
    assert!(gateway.stats().rounds > 1, "a body full of faults is sent off in several rounds");
    let records: Vec<_> = (0..PARTITIONS).flat_map(|p| log.records(p)).collect();
    assert!(records.iter().all(|(_, body)| matches!(body, Body::Dead(_))) && records.len() < 100, "{}", records.len());
}

#[tokio::test]
async fn stopping_finishes_what_was_taken_and_takes_no_more() {
    let (log, gateway) = start();
    log.set_open(false);
    let waiting: Vec<_> = (0..30)
        .map(|n| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { gateway.submit(json(event(&n.to_string()))).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stopping = Arc::clone(&gateway);
    let stopped = tokio::spawn(async move { stopping.stop().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let late = gateway.submit(json(event("late"))).await;
    assert!(matches!(late, Err(SubmitError::Unavailable(_))), "{late:?}");
    assert!(!stopped.is_finished());
    log.set_open(true);
    stopped.await.unwrap();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().accepted, 1);
    }
    assert_eq!(log.event_ids().len(), 30);
    gateway.stop().await;
}
