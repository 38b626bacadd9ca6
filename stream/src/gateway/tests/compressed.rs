//! Compressed bodies.

use std::io::Write;

use flate2::write::GzEncoder;
use reckon_data::ingest::{Compression, Ingest, Submission, SubmitError};

use super::super::Gateway;
use super::model::*;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(body, 3).unwrap()
}

fn both(body: &[u8]) -> [(Vec<u8>, Compression); 2] {
    [(gzip(body), Compression::Gzip), (zstd(body), Compression::Zstd)]
}

fn lines(count: usize) -> String {
    (0..count).map(|n| event(&format!("e{n}")) + "\n").collect()
}

#[tokio::test]
async fn compressed_bodies_are_read() {
    for (body, compression) in both(lines(500).as_bytes()) {
        let (log, gateway) = start();
        // Parts that were compressed apart are one body.
        let twice = [&body[..], &body[..]].concat();
        let receipt = taken(&gateway, Submission { compression, ..ndjson(twice) }).await;
        assert_eq!((receipt.accepted, log.event_ids().len()), (1_000, 1_000));
    }
}

#[tokio::test]
async fn truncated_and_corrupt_ones_are_kept_as_they_came() {
    for (whole, compression) in both(lines(50).as_bytes()) {
        let mut corrupt = whole.clone();
        let middle = corrupt.len() / 2;
        corrupt[middle..middle + 8].fill(0xff);
        for body in [whole[..whole.len() - 1].to_vec(), whole[..whole.len() / 2].to_vec(), corrupt, b"no".to_vec()] {
            let (log, gateway) = start();
            let (message, receipt) =
                malformed(gateway.submit(Submission { compression, ..ndjson(body.clone()) }).await);
            assert!(message.starts_with("the body cannot be decompressed as "), "{message}");
            assert_eq!((receipt.accepted, receipt.refused), (0, 1));
            assert_eq!(log.event_ids(), [""; 0]);
            assert_eq!(log.letters()[0].body, Some(body));
        }
    }
}

/// Answers how a body beyond the limit is refused.
async fn beyond(gateway: &Gateway, submission: Submission) -> u64 {
    match gateway.submit(submission).await {
        Err(SubmitError::TooLarge { limit }) => limit,
        other => panic!("not too large: {other:?}"),
    }
}

#[tokio::test]
async fn what_grows_beyond_the_limit_is_not_kept() {
    let (log, gateway) = start();
    let limit = settings().body_max.as_u64();
    let zeros = vec![b' '; limit as usize * 20];
    assert_eq!(beyond(&gateway, ndjson(vec![b' '; limit as usize + 1])).await, limit);
    for (body, compression) in both(&zeros) {
        assert_eq!(beyond(&gateway, Submission { compression, ..ndjson(body) }).await, limit);
    }
    assert_eq!((log.event_ids().len(), log.letters().len()), (0, 0));
    assert_eq!(gateway.stats().queue_bytes, 0);
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_taken() {
    let (_, gateway) = start();
    let mut body = event("a").into_bytes();
    body.resize(settings().body_max.as_u64() as usize, b' ');
    for (body, compression) in both(&body) {
        assert_eq!(taken(&gateway, Submission { compression, ..ndjson(body) }).await.accepted, 1);
    }
}
