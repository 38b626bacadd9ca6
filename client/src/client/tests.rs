//! The client against servers that answer as they are told.

use std::sync::atomic::AtomicBool;

use reckon_data::problem::Problem;
use serde_json::json;

use super::*;
use crate::backoff::Backoff;
use crate::testing::{Answer, Asked, Fake, NOBODY, quick};

/// Long enough that a test that waits for it does not end.
const FOR_EVER: Duration = Duration::from_secs(100_000);

fn two(first: &str, second: &str, options: Options) -> Client {
    Client::new(&format!("{first},{second}"), options).unwrap()
}

async fn well() -> Fake {
    Fake::start(|_| Answer::json(200, &json!({}))).await
}

async fn ill(status: u16) -> Fake {
    Fake::start(move |_| Answer::problem(status)).await
}

async fn get(client: &Client) -> Result<Value, ClientError> {
    tokio::time::timeout(Duration::from_secs(30), client.get("/v1/top", &[])).await.expect("it waits")
}

/// A server that takes events.
async fn takes() -> Fake {
    Fake::start(Answer::taken).await
}

async fn send(client: &Client) -> Result<Receipt, ClientError> {
    let sent = client.send_lines("{}\n".into(), "key", None);
    tokio::time::timeout(Duration::from_secs(30), sent).await.expect("it waits")
}

/// Waits that no test lives through.
fn patient() -> Options {
    Options { backoff: Backoff { first: FOR_EVER, longest: FOR_EVER, attempts: 4 }, ..Options::default() }
}

#[test]
fn an_address_that_is_none_is_refused() {
    for url in ["", "127.0.0.1:7700", "ftp://host", "http://", "http://a,b"] {
        assert!(matches!(Client::new(url, Options::default()), Err(ClientError::BadUrl { .. })), "{url}");
    }
}

#[test]
fn the_first_address_is_the_clients() {
    let client = two("http://127.0.0.1:1/", "http://127.0.0.1:2", Options::default());
    assert_eq!(client.url(), "http://127.0.0.1:1");
    assert_eq!(client.urls(), ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
}

#[tokio::test]
async fn a_text_is_taken_as_it_is() {
    let server = Fake::start(|_| Answer::json(200, &"<p>")).await;
    let client = Client::new(&server.url, quick()).unwrap();
    assert_eq!(client.get_text("/v1/audit/page").await.unwrap(), "\"<p>\"");
}

#[tokio::test]
async fn what_took_too_long_is_not_asked_again() {
    let problem = Problem::new(504, "query-timeout", "The query took too long", "it took 60 s");
    let slow = Fake::start(move |_| Answer::json(504, &problem)).await;
    let other = well().await;
    let client = two(&slow.url, &other.url, quick());
    assert!(get(&client).await.is_err());
    assert_eq!((slow.asked().len(), other.asked().len()), (1, 0));
}

#[tokio::test]
async fn a_question_is_asked_once_and_a_resource_again() {
    let server = ill(503).await;
    let client = Client::new(&server.url, quick()).unwrap();
    assert!(client.sql("select 1").await.is_err());
    assert_eq!(server.asked().len(), 1);
    assert!(get(&client).await.is_err());
    assert_eq!(server.asked().len(), 1 + 4);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let client = Client::new(NOBODY, quick()).unwrap();
    let error = client.sql("select 1").await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { url, .. } if url == client.url()), "{error}");
}

#[tokio::test]
async fn events_go_round() {
    let (a, b) = (takes().await, takes().await);
    let client = two(&a.url, &b.url, quick());
    for _ in 0..6 {
        send(&client).await.unwrap();
    }
    assert_eq!((a.asked().len(), b.asked().len()), (3, 3));
}

#[tokio::test]
async fn when_one_fails_the_next_is_asked_at_once() {
    let b = takes().await;
    let client = two(NOBODY, &b.url, patient());
    for _ in 0..4 {
        send(&client).await.unwrap();
    }
    assert_eq!(b.asked().len(), 4);
    for status in [302, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 502, 503, 504] {
        let (a, b) = (ill(status).await, takes().await);
        let client = two(&a.url, &b.url, patient());
        send(&client).await.unwrap();
        assert_eq!((a.asked().len(), b.asked().len()), (1, 1), "{status}");
    }
}

#[tokio::test]
async fn what_is_no_receipt_is_none_and_who_says_so_rests() {
    let (a, b) = (well().await, takes().await);
    let client = two(&a.url, &b.url, Options { failures_max: 1, rest: FOR_EVER, ..patient() });
    for _ in 0..4 {
        send(&client).await.unwrap();
    }
    assert_eq!((a.asked().len(), b.asked().len()), (1, 4));
}

#[tokio::test]
async fn a_gateways_verdict_is_final() {
    let receipt = Some(Receipt { refused: 1, ..Receipt::default() });
    let verdicts = [
        Problem { receipt: receipt.clone(), ..Problem::new(422, "refused", "Every event was refused", "bad") },
        Problem { receipt, ..Problem::new(400, "malformed", "The body holds no event that can be read", "bad") },
        Problem::new(413, "too-large", "The body is too large", "bad"),
    ];
    for problem in verdicts {
        let status = problem.status;
        let (a, b) = (Fake::start(move |_| Answer::json(status, &problem)).await, takes().await);
        let options = Options { failures_max: 1, rest: FOR_EVER, ..patient() };
        let client = two(&a.url, &b.url, options);
        assert!(matches!(send(&client).await, Err(ClientError::Refused(problem)) if problem.status == status));
        assert_eq!((a.asked().len(), b.asked().len()), (1, 0), "{status}");
        send(&client).await.unwrap();
        assert!(send(&client).await.is_err());
        assert_eq!(a.asked().len(), 2, "it does not rest after {status}");
    }
}

#[tokio::test]
async fn who_is_sent_elsewhere_does_not_go() {
    let there = well().await;
    let location = format!("location: {}/v1/top\r\n", there.url);
    let away = Fake::start(move |_| Answer::with(302, &location, &json!({}))).await;
    assert!(get(&Client::new(&away.url, quick()).unwrap()).await.is_err());
    assert_eq!((away.asked().len(), there.asked().len()), (1, 0));
}

#[tokio::test]
async fn a_request_that_cannot_be_made_says_nothing_of_the_server() {
    let server = takes().await;
    let options = Options { failures_max: 1, rest: FOR_EVER, ..patient() };
    let client = Client::new(&server.url, options).unwrap();
    let bad = client.send_lines("{}\n".into(), "no\nkey", None).await;
    assert!(matches!(bad, Err(ClientError::BadRequest { .. })), "{bad:?}");
    send(&client).await.unwrap();
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn home_is_not_left_for_a_moments_silence() {
    let silent = AtomicBool::new(true);
    let a = Fake::start(move |_| {
        if silent.swap(false, Ordering::Relaxed) { Answer::silence() } else { Answer::json(200, &json!({})) }
    });
    let (a, b) = (a.await, well().await);
    let client = two(&a.url, &b.url, quick());
    get(&client).await.unwrap();
    assert_eq!((a.asked().len(), b.asked().len()), (2, 0));
    let (a, b) = (ill(503).await, well().await);
    assert!(get(&two(&a.url, &b.url, quick())).await.is_err());
    assert_eq!((a.asked().len(), b.asked().len()), (4, 0), "it is there, and says not now");
}

#[tokio::test]
async fn what_is_wrong_is_wrong_everywhere() {
    let (a, b) = (ill(400).await, well().await);
    assert!(get(&two(&a.url, &b.url, quick())).await.is_err());
    assert_eq!((a.asked().len(), b.asked().len()), (1, 0));
}

#[tokio::test]
async fn who_asked_for_time_is_not_the_first_to_be_asked() {
    let (a, b) = (Fake::start(|_| Answer::later(503, 60)).await, takes().await);
    let client = two(&a.url, &b.url, patient());
    for _ in 0..4 {
        send(&client).await.unwrap();
    }
    assert_eq!((a.asked().len(), b.asked().len()), (1, 4));
}

#[tokio::test]
async fn when_all_ask_for_time_the_shortest_is_waited_for() {
    let (a, b) = (Fake::start(|_| Answer::later(429, 60)).await, Fake::start(|_| Answer::later(503, 1)).await);
    let backoff = Backoff { attempts: 2, ..quick().backoff };
    let client = two(&a.url, &b.url, Options { backoff, ..quick() });
    let start = Instant::now();
    assert!(send(&client).await.is_err());
    assert!((1..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!((a.asked().len(), b.asked().len()), (2, 2));
}

#[tokio::test]
async fn who_keeps_failing_rests() {
    let (a, b) = (Fake::start(|_| Answer::silence()).await, takes().await);
    let options = Options { failures_max: 1, rest: FOR_EVER, ..patient() };
    let client = two(&a.url, &b.url, options);
    for _ in 0..4 {
        send(&client).await.unwrap();
    }
    assert_eq!((a.asked().len(), b.asked().len()), (1, 4));
    let client = Client::new(&a.url, options).unwrap();
    assert!(matches!(client.sql("select 1").await, Err(ClientError::Unreachable { .. })));
    assert!(matches!(client.sql("select 1").await, Err(ClientError::Resting { .. })));
    assert_eq!(a.asked().len(), 2);
}

#[tokio::test]
async fn what_is_asked_once_goes_elsewhere_only_if_it_was_not_sent() {
    let there = well().await;
    let client = two(NOBODY, &there.url, patient());
    for _ in 0..2 {
        client.sql("select 1").await.unwrap();
    }
    let answers: [fn() -> Answer; 2] = [Answer::silence, || Answer::problem(503)];
    for answer in answers {
        let (a, b) = (Fake::start(move |_| answer()).await, well().await);
        let client = two(&a.url, &b.url, patient());
        assert!(client.sql("select 1").await.is_err());
        assert_eq!((a.asked().len(), b.asked().len()), (1, 0));
    }
}

#[tokio::test]
async fn a_job_is_asked_after_where_it_was_started() {
    let (a, b) = (Fake::start(Answer::taken).await, Fake::start(Answer::taken).await);
    let client = two(&a.url, &b.url, quick());
    for _ in 0..3 {
        get(&client).await.unwrap();
        send(&client).await.unwrap();
    }
    let what = |asked: &Asked| asked.what.clone();
    let (at_a, at_b): (Vec<_>, Vec<_>) = (a.asked().iter().map(what).collect(), b.asked().iter().map(what).collect());
    assert_eq!(at_b, ["POST /v1/events"], "the second body of three");
    assert_eq!(at_a.iter().filter(|what| *what == "GET /v1/top").count(), 3, "{at_a:?}");
    drop(a);
    for _ in 0..3 {
        get(&client).await.unwrap();
    }
    assert_eq!(b.asked().len(), 1 + 3);
}

#[tokio::test]
async fn every_post_has_a_key_that_stays_the_same() {
    let (a, b) = (ill(503).await, ill(503).await);
    let client = two(&a.url, &b.url, quick());
    assert!(client.post::<Value>("/v1/imports", &json!({})).await.is_err());
    assert!(client.send_lines("{}\n".into(), "mine", None).await.is_err());
    assert!(client.sql("select 1").await.is_err());
    assert!(get(&client).await.is_err());
    let all: Vec<Asked> = a.asked().into_iter().chain(b.asked()).collect();
    let keys = |what: &str| {
        let mut keys: Vec<_> = all.iter().filter(|asked| asked.what == what).map(Asked::key).collect();
        let count = keys.len();
        keys.dedup();
        (count, keys)
    };
    let (imports, sql) = (keys("POST /v1/imports"), keys("POST /v1/sql"));
    assert_eq!((imports.0, imports.1.len()), (4, 1), "{imports:?}");
    assert_eq!((sql.0, sql.1.len()), (1, 1), "{sql:?}");
    assert_ne!(imports.1, sql.1);
    assert_eq!(keys("POST /v1/events"), (2 * 4, vec!["mine".to_owned()]));
    let nameless = all.iter().filter(|asked| asked.header("idempotency-key").is_none());
    assert_eq!(nameless.filter(|asked| asked.what == "GET /v1/top").count(), 4);
}

#[tokio::test]
async fn events_are_compressed_when_that_pays() {
    let long = "{\"entity_id\":\"video-1\",\"event_type\":\"view\"}\n".repeat(100);
    let cases = [
        (Compression::Never, long.as_str(), None),
        (Compression::Remote, long.as_str(), None),
        (Compression::Always, "{}\n", None),
        (Compression::Always, long.as_str(), Some("zstd")),
    ];
    for (compression, body, expected) in cases {
        let failed = AtomicBool::new(false);
        let server =
            Fake::start(
                move |asked| {
                    if failed.swap(true, Ordering::Relaxed) { Answer::taken(asked) } else { Answer::problem(503) }
                },
            )
            .await;
        let client = Client::new(&server.url, Options { compression, ..quick() }).unwrap();
        let receipt = client.send_lines(body.to_owned().into(), "key", Some("test")).await.unwrap();
        assert_eq!(receipt.accepted, body.lines().count() as u64);
        let asked = server.asked();
        assert_eq!(asked.len(), 2, "once in vain");
        for asked in asked {
            assert_eq!(asked.header("content-encoding"), expected, "{compression:?}");
            assert!(asked.lines().iter().map(String::as_str).eq(body.lines()));
            assert_eq!(asked.header("reckon-source"), Some("test"));
        }
    }
}

#[tokio::test]
async fn requests_that_are_made_again_are_counted() {
    let (a, b) = (ill(503).await, ill(503).await);
    let client = two(&a.url, &b.url, quick());
    let count = AtomicU64::new(0);
    let retried = Some(&count);
    let lines = Lines { body: "{}\n".into(), key: "key", source: None, first_line: None, timeout: None, retried };
    assert!(client.deliver(lines).await.is_err());
    assert_eq!(a.asked().len() + b.asked().len(), 8);
    assert_eq!(count.load(Ordering::Relaxed), 7);
}
