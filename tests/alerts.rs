//! Alerts end to end: a server that asks its rules by itself, a receiver over HTTP that fails at first, and a mail server
//! (`RECKON_TEST_SMTP` is a Python that has aiosmtpd; without it what is skipped is said).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{RUNTIME, Server, command};

/// A message that was posted.
#[derive(Debug, Clone)]
struct Posted {
    key: String,
    message: Value,
    was_taken: bool,
}

type Posts = Arc<Mutex<Vec<Posted>>>;

/// A receiver over HTTP.
struct Hook {
    url: String,
    posts: Posts,
    server: JoinHandle<()>,
}

impl Hook {
    /// One that refuses so many messages first.
    fn start(refusals: usize) -> Self {
        let posts = Posts::default();
        let routes = Router::new().route("/hook", post(take)).with_state((Arc::clone(&posts), refusals));
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = RUNTIME.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, posts, server }
    }

    fn posts(&self) -> Vec<Posted> {
        self.posts.lock().clone()
    }

    /// What was taken of an alert.
    fn taken(&self, alert: &str) -> Vec<Value> {
        let taken = self.posts().into_iter().filter(|posted| posted.was_taken && posted.message["alert"] == alert);
        taken.map(|posted| posted.message).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    State((posts, refusals)): State<(Posts, usize)>,
    headers: HeaderMap,
    Json(message): Json<Value>,
) -> StatusCode {
    let mut posts = posts.lock();
    let was_taken = posts.len() >= refusals;
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    posts.push(Posted { key, message, was_taken });
    if was_taken { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// A mail server that ends with the test.
struct MailServer {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl MailServer {
    fn start(test: &str, dir: &Path) -> Option<Self> {
        let Ok(python) = std::env::var("RECKON_TEST_SMTP") else {
            println!("skipped: e-mail in {test}, for RECKON_TEST_SMTP names no Python that has aiosmtpd");
            return None;
        };
        let folder = dir.join("mails");
        std::fs::create_dir(&folder).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/smtp.py");
        let mut command = Command::new(python);
        command.arg(script).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the mail server does not start: {line:?}"));
        Some(Self { child, port, folder })
    }

    /// The mails so far, in the order of their arrival.
    fn mails(&self) -> Vec<String> {
        let paths = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "eml")).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // Gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two rules: one over counts, that fires while there are 3 to 5 events; one over the server's metrics, that fires when its
/// description was asked for once, and not twice.
fn rules(hook: &Hook, mail: Option<&MailServer>) -> String {
    let mail = mail.map_or_else(String::new, |mail| {
        format!(
            "[mail.people]\nserver = 'smtp+insecure://127.0.0.1:{}'\nfrom = 'Reckon <reckon@here.example>'\n\
             to = ['oncall@there.example', 'B <b@there.example>']\n",
            mail.port
        )
    });
    format!(
        "[webhooks.chat]\nurl = '{}'\n{mail}\
         [rules.busy]\nevery = '1s'\nsummary = 'it is busy'\n\
         sql = 'select entity_id, sum(count) as n from stats group by 1 having sum(count) between 3 and 5'\n\
         [rules.metered]\nevery = '1s'\nfor = '2s'\nto = ['chat']\n\
         sql = \"select value from metrics where name = 'reckon_http_request_seconds_count' and labels like '%/openapi.json%' and value = 1\"\n",
        hook.url
    )
}

fn send(server: &Server, ids: std::ops::Range<u32>) {
    let event = |id: u32| json!({"event_id": id.to_string(), "event_type": "view", "entity_id": "a", "event_time": "2013-02-08T21:29:10Z"});
    let (status, receipt) = server.post("/v1/events", &ids.map(event).collect());
    assert_eq!(status, 200, "{receipt}");
}

/// A folder for data, apart from the rules.
fn folder(dir: &Path) -> PathBuf {
    let folder = dir.join("data");
    std::fs::create_dir(&folder).unwrap();
    folder
}

fn metric(server: &Server, line: &str) -> u64 {
    let text = server.get("/metrics");
    let text = text.as_str().unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {line} in {text}"))
}

fn states(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["state"].as_str().unwrap()).collect()
}

#[test]
fn an_alert_is_told_when_it_fires_and_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start(2);
    let mail = MailServer::start("an_alert_is_told_when_it_fires_and_when_it_is_over", dir.path());
    let file = dir.path().join("alerts.toml");
    std::fs::write(&file, rules(&hook, mail.as_ref())).unwrap();
    let server = Server::start_with(&folder(dir.path()), &["--alerts-rules", file.to_str().unwrap()]);
    let mails = || mail.as_ref().map_or_else(Vec::new, MailServer::mails);
    // One for each of the two people.
    let all_mails = |n: usize| mail.is_none() || mails().len() == 2 * n;

    send(&server, 0..3);
    server.get("/openapi.json");
    server.wait_until("it fires", || hook.taken("busy").len() == 1 && hook.taken("metered").len() == 1 && all_mails(1));
    let firing = hook.taken("busy").remove(0);
    assert_eq!((&firing["state"], &firing["summary"]), (&json!("firing"), &json!("it is busy")), "{firing}");
    assert_eq!((&firing["rows_total"], &firing["rows"][0]["entity_id"]), (&json!(1), &json!("a")), "{firing}");
    assert!(firing["node"].as_str().unwrap().ends_with(server.url()), "{firing}");
    assert_eq!(metric(&server, "reckon_alerts_firing{alert=\"busy\"}"), 1);
    // Those who failed at first were told again, under the same key.
    let posts = hook.posts();
    for refused in posts.iter().filter(|posted| !posted.was_taken) {
        let again = posts.iter().filter(|posted| posted.was_taken && posted.key == refused.key);
        assert_eq!(again.count(), 1, "{posts:?}");
    }
    assert_eq!(posts.iter().filter(|posted| !posted.was_taken).count(), 2);

    // While it fires nobody is told again.
    let asked = metric(&server, "reckon_alert_evaluations_total");
    server.wait_until("it is asked again", || metric(&server, "reckon_alert_evaluations_total") > asked + 6);
    assert_eq!((hook.taken("busy").len(), hook.taken("metered").len()), (1, 1));
    assert!(all_mails(1), "{:?}", mails());

    send(&server, 3..6);
    server.get("/openapi.json");
    server
        .wait_until("it is over", || hook.taken("busy").len() == 2 && hook.taken("metered").len() == 2 && all_mails(2));
    for alert in ["busy", "metered"] {
        let told = hook.taken(alert);
        assert_eq!(states(&told), ["firing", "resolved"]);
        assert_eq!(told[0]["id"], told[1]["id"], "{told:?}");
    }
    for (mails, state) in mails().chunks(2).zip(["firing", "resolved"]) {
        for person in ["oncall@there.example", "b@there.example"] {
            let own: Vec<_> = mails.iter().filter(|mail| mail.lines().next() == Some(person)).collect();
            assert!(own.len() == 1 && own[0].contains(&format!("Subject: [reckon] {state}: busy")), "{mails:?}");
        }
    }
    assert_eq!(metric(&server, "reckon_alerts_firing{alert=\"busy\"}"), 0);
    assert_eq!(metric(&server, "reckon_alert_messages_sent_total{receiver=\"chat\"}"), 4);
    assert_eq!(metric(&server, "reckon_alert_messages_failed_total{receiver=\"chat\"}"), 0);
    let took = server.terminate();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_command_asks_each_rule_and_tries_each_receiver_once() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start(0);
    let file = dir.path().join("alerts.toml");
    std::fs::write(&file, rules(&hook, None)).unwrap();
    let server = Server::start(&folder(dir.path()));
    let run = |action: &str, arguments: &[&str]| {
        let mut command = command();
        command.args(["alerts", action, "--alerts-rules", file.to_str().unwrap()]).args(arguments);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code(), text)
    };
    let check = || run("check", &["--url", server.url()]);
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    send(&server, 0..3);
    server.get("/openapi.json");
    server.wait_counted();
    let (code, text) = check();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("fires    busy, 1 rows") && text.contains("fires    metered"), "{text}");
    assert!(hook.posts().is_empty(), "nobody is told");

    let (code, text) = run("test", &[]);
    assert_eq!((code, text.trim()), (Some(0), "chat                 has taken it"));
    assert_eq!(states(&hook.taken("test")), ["firing"]);

    std::fs::write(&file, "[rules.wrong]\nsql = 'select x from nothing'").unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("failing  wrong: "), "{text}");
    std::fs::write(&file, "[rules.wrong]\nsequel = 'select 1'").unwrap();
    let (code, text) = check();
    assert!(code == Some(2) && text.contains("sequel"), "{text}");
}
