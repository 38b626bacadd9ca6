//! How bodies are set apart and judged.

use reckon_data::event::Reason;
use reckon_data::ingest::{Ingest, Submission};

use super::model::*;

#[tokio::test]
async fn one_event_an_array_and_lines_are_told_apart() {
    let pretty = event("a").replace(',', ",\n  ");
    for (submission, ids) in [
        (json(event("a")), vec!["a"]),
        (json(format!("\n {pretty}\r\n")), vec!["a"]),
        (json(format!(" [{} ,\n{}]\n", event("a"), event("b"))), vec!["a", "b"]),
        (json(format!("{}\n{}", event("a"), event("b"))), vec!["a", "b"]),
        (ndjson(format!("\r\n{}\r\n\n  \n{}\r\n", event("a"), event("b"))), vec!["a", "b"]),
        (ndjson(event("a")), vec!["a"]),
    ] {
        let (log, gateway) = start();
        let receipt = taken(&gateway, submission).await;
        assert_eq!((receipt.accepted, receipt.refused), (ids.len() as u64, 0));
        assert_eq!(sorted(log.at(&receipt)), ids);
        assert_eq!(log.letters(), []);
    }
}

#[tokio::test]
async fn a_body_without_an_event_is_malformed_and_leaves_nothing() {
    for submission in [json(""), json(" \n"), ndjson("\r\n\r\n"), json("[]"), json(" [ ] ")] {
        let (log, gateway) = start();
        let (message, receipt) = malformed(gateway.submit(submission).await);
        assert_eq!(message, "the body holds no event");
        assert_eq!((receipt.refused, log.letters().len()), (0, 0));
    }
}

#[tokio::test]
async fn a_truncated_array_is_refused_as_a_whole() {
    let whole = format!("[{},{}]", event("a"), event("b"));
    for length in 1..whole.len() {
        let (log, gateway) = start();
        let (message, receipt) = malformed(gateway.submit(json(whole[..length].to_owned())).await);
        assert!(message.contains(&format!("at byte {length}: the text ends too early")), "{length}: {message}");
        assert_eq!((receipt.accepted, receipt.refused, receipt.places.len()), (0, 1, 0));
        assert_eq!(log.event_ids(), [""; 0]);
        let letters = log.letters();
        assert_eq!(letters[0].body.as_deref(), Some(&whole.as_bytes()[..length]));
        assert_eq!((letters.len(), letters[0].source.as_deref()), (1, Some("http")));
    }
}

#[tokio::test]
async fn a_truncated_event_is_refused_as_one() {
    let whole = event("a").replace(',', ",\n");
    for length in 1..whole.len() {
        let (log, gateway) = start();
        let (_, receipt) = malformed(gateway.submit(json(whole[..length].to_owned())).await);
        assert_eq!((receipt.accepted, receipt.refused, log.letters().len()), (0, 1, 1));
        assert_eq!(log.letters()[0].body.as_deref(), Some(&whole.as_bytes()[..length]));
    }
}

#[tokio::test]
async fn a_broken_array_names_the_byte() {
    for (body, at) in [
        (format!("[{},]", event("a")), event("a").len() + 2),
        (format!("[{}] x", event("a")), event("a").len() + 3),
        (format!("[{}{}]", event("a"), event("b")), event("a").len() + 1),
    ] {
        let (log, gateway) = start();
        let (message, _) = malformed(gateway.submit(json(body)).await);
        assert!(message.contains(&format!("at byte {at}:")), "{message}");
        assert_eq!(log.event_ids(), [""; 0]);
    }
}

#[tokio::test]
async fn elements_and_lines_are_judged_alone() {
    let bad_type = event("b").replace("\"view\"", "7");
    for submission in [
        json(format!("[{},{bad_type},7,{}]", event("a"), event("c"))),
        ndjson(format!("{}\n{bad_type}\n{{\"cut\n{}", event("a"), event("c"))),
        json(format!("{}\n{bad_type}\n{{\"cut\n{}", event("a"), event("c"))),
    ] {
        let (log, gateway) = start();
        let receipt = taken(&gateway, submission).await;
        assert_eq!((receipt.accepted, receipt.refused), (2, 2));
        let errors: Vec<_> = receipt.errors.iter().map(|e| (e.index, e.reason, e.field.as_deref())).collect();
        assert_eq!(errors, [(1, Reason::WrongType, Some("event_type")), (2, Reason::Malformed, None)]);
        assert_eq!(sorted(log.at(&receipt)), ["a", "c"]);
        let mut letters = log.letters();
        letters.sort_by(|a, b| b.reason.cmp(&a.reason));
        assert_eq!(letters[0].body.as_deref(), Some(bad_type.as_bytes()));
        assert_eq!((letters[0].reason.as_str(), letters[1].reason.as_str()), ("wrong_type", "malformed"));
    }
}

#[tokio::test]
async fn a_broken_first_line_costs_the_others_nothing() {
    let (log, gateway) = start();
    let receipt = taken(&gateway, json(format!("{{\"x\n{}\n", event("a")))).await;
    assert_eq!((receipt.accepted, receipt.refused, receipt.errors[0].index), (1, 1, 0));
    assert_eq!(log.event_ids(), ["a"]);
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_refused() {
    let mut bad = event("b").into_bytes();
    bad[13] = 0xff;
    let lines = [event("a").as_bytes(), &bad].join(&b'\n');
    let (log, gateway) = start();
    let receipt = taken(&gateway, ndjson(lines)).await;
    assert_eq!((receipt.accepted, receipt.refused), (1, 1));
    assert_eq!(log.letters()[0].body.as_deref(), Some(&bad[..]));
    let array = [b"[", &bad[..], b"]"].concat();
    assert!(malformed(gateway.submit(json(array)).await).0.contains("at byte 14: not UTF-8"));
}

#[tokio::test]
async fn lines_of_which_none_can_be_read_are_malformed() {
    let (log, gateway) = start();
    let (message, receipt) = malformed(gateway.submit(ndjson("one\ntwo\n")).await);
    assert!(message.starts_with("none of the 2 events could be read; the first: "), "{message}");
    assert_eq!((receipt.refused, log.letters().len()), (2, 2));
    // Refused for what they say, they were read all the same.
    let receipt = taken(&gateway, ndjson("{}\n{}")).await;
    assert_eq!((receipt.accepted, receipt.refused), (0, 2));
}

#[tokio::test]
async fn text_nested_without_end_is_refused() {
    let (log, gateway) = start();
    for body in ["[".repeat(1 << 20), "{\"a\":".repeat(1 << 20), format!("[{}", "[".repeat(1 << 20))] {
        let (_, receipt) = malformed(gateway.submit(json(body)).await);
        assert_eq!(receipt.refused, 1);
    }
    assert_eq!(log.letters().len(), 3);
}

#[tokio::test]
async fn reserved_entities_come_from_inside_only() {
    let (log, gateway) = start();
    let canary = event("a").replace("v-a", "_reckon/canary");
    let receipt = taken(&gateway, json(canary.clone())).await;
    assert_eq!((receipt.errors[0].reason, receipt.refused), (Reason::Reserved, 1));
    assert_eq!(receipt.errors[0].message, "entity_id begins with _reckon/, which is reserved");
    assert_eq!(log.letters().len(), 1);
    assert_eq!(taken(&gateway, Submission { internal: true, ..json(canary) }).await.accepted, 1);
}

#[tokio::test]
async fn a_refused_line_names_its_line() {
    let (log, gateway) = start();
    let body = format!("\n{}\n\n{{\n{}\n7", event("a"), event("b"));
    let source = Some("clicks.gz".to_owned());
    let receipt = taken(&gateway, Submission { source, first_line: Some(10), ..ndjson(body) }).await;
    assert_eq!((receipt.accepted, receipt.refused), (2, 2));
    let mut places: Vec<_> = log.letters().into_iter().map(|letter| letter.source.unwrap()).collect();
    places.sort();
    assert_eq!(places, ["clicks.gz:13", "clicks.gz:15"]);
}

#[tokio::test]
async fn refusals_without_end_are_cut_short() {
    const MAX: usize = 100_000;
    let good = event("a");
    let lines = "0\n".repeat(MAX) + &good + "\n0";
    let array = format!("[{}{good},0]", "0,".repeat(MAX));
    for (submission, at) in [(ndjson(lines), 2 * MAX), (json(array), 2 * MAX + 1)] {
        let whole = submission.body.clone();
        let (log, gateway) = start();
        let (message, receipt) = malformed(gateway.submit(submission).await);
        assert!(message.contains(&format!("from event {MAX} at byte {at} on")), "{message}");
        assert_eq!((receipt.accepted, receipt.refused), (0, MAX as u64 + 1));
        let letters = log.letters();
        assert_eq!((letters.len(), log.event_ids().len()), (MAX + 1, 0));
        assert!(letters.iter().any(|letter| letter.body.as_deref() == Some(&whole[at..])));
    }
}

#[tokio::test]
async fn a_receipt_names_the_first_thousand_errors() {
    let (log, gateway) = start();
    let lines: String = (0..1_500).map(|_| "{}\n").collect();
    let receipt = taken(&gateway, ndjson(lines)).await;
    assert_eq!((receipt.refused, receipt.errors.len()), (1_500, 1_000));
    assert_eq!(receipt.errors.last().unwrap().index, 999);
    assert_eq!(log.letters().len(), 1_500);
}
