//! A server over HTTP.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reckon_data::event::time::parse_rfc3339;
use reckon_data::ingest::CANARY_HEADER;
use reckon_data::minute::{format_time, minute_of, start_of_minute};
use reckon_data::problem::Problem;
use reckon_data::receipt::Receipt;
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::door::{Door, DoorError};
use super::judge::{Counted, Found};
use super::plan::{Body, Counts, Key, Plan};
use crate::error::root_cause;

/// Longest time of one request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Longest time until a connection stands.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Most characters of an answer that is no problem document, in an error.
const SHOWN: usize = 200;
/// Longest body of an answer: ten times what the largest round is answered with.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A server over HTTP: events go to one of several front doors in turn, questions to one address.
pub struct HttpDoor {
    http: reqwest::Client,
    /// For the process itself, which no proxy stands before.
    own: reqwest::Client,
    is_own: bool,
    doors: Vec<Url>,
    asked: Url,
    token: String,
    next: AtomicUsize,
}

impl HttpDoor {
    /// Events go to `doors`, `http://127.0.0.1:7700` or several, separated by commas; questions to `asked`.
    ///
    /// # Errors
    /// [`DoorError::BadUrl`].
    pub fn new(doors: &str, asked: &str, token: &str) -> Result<Self, DoorError> {
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIME)
                .timeout(REQUEST_TIME)
                .redirect(reqwest::redirect::Policy::none())
        };
        let http = builder().build().map_err(|error| bad_url(doors, &error))?;
        let own = builder().no_proxy().build().map_err(|error| bad_url(doors, &error))?;
        let doors = doors.split(',').map(|door| base(door.trim())).collect::<Result<_, _>>()?;
        let (asked, token) = (base(asked)?, token.to_owned());
        Ok(Self { http, own, is_own: false, doors, asked, token, next: AtomicUsize::new(0) })
    }

    /// The same when questions go to the process itself: whatever goes to its address takes no proxy.
    #[must_use]
    pub fn of_itself(self) -> Self {
        Self { is_own: true, ..self }
    }

    fn client(&self, url: &Url) -> &reqwest::Client {
        if self.is_own && url.origin() == self.asked.origin() { &self.own } else { &self.http }
    }

    fn door(&self) -> &Url {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.doors.len().max(1);
        self.doors.get(at).unwrap_or(&self.asked)
    }

    /// The rows, and what they lack.
    async fn sql(&self, query: &str) -> Result<(Vec<Vec<Value>>, Option<String>), DoorError> {
        let url = below(&self.asked, &["v1", "sql"]);
        let body = json!({ "query": query }).to_string();
        let request = self.client(&url).post(url.clone()).header("content-type", "application/json").body(body);
        let answer: Value = ask(&url, request).await?;
        let bad = || unreadable(&url, "it has no rows");
        let rows = answer["rows"].as_array().ok_or_else(bad)?;
        let rows = rows.iter().map(|row| row.as_array().cloned().ok_or_else(bad)).collect::<Result<_, _>>()?;
        let is_cut = answer["truncated"] != false;
        let cut = || is_cut.then(|| "rows, for there are more than an answer may have".to_owned());
        Ok((rows, missing(&answer).or_else(cut)))
    }
}

#[async_trait]
impl Door for HttpDoor {
    async fn send(&self, body: &Body) -> Result<Receipt, DoorError> {
        let url = below(self.door(), &["v1", "events"]);
        let request = self
            .client(&url)
            .post(url.clone())
            .header("content-type", "application/x-ndjson")
            .header("idempotency-key", &body.key)
            .header("reckon-source", "canary")
            .header(CANARY_HEADER, &self.token)
            .body(body.lines.clone());
        ask(&url, request).await
    }

    async fn counts(&self, plan: &Plan) -> Result<Counted, DoorError> {
        let minutes = plan.minutes();
        let query = format!(
            "SELECT entity_id, event_type, minute, sum(count) FROM stats WHERE entity_id IN ({}) AND minute >= '{}' AND \
             minute < '{}' GROUP BY entity_id, event_type, minute",
            quoted(plan.entities()),
            format_time(start_of_minute(minutes.start)),
            format_time(start_of_minute(minutes.end)),
        );
        let (rows, missing) = self.sql(&query).await?;
        let counts = rows.iter().map(|row| counted(row)).collect::<Option<Counts>>();
        let counts = counts.ok_or_else(|| unreadable(&self.asked, "a row of SQL is not what was asked for"))?;
        Ok(Counted { counts, complete: missing.is_none(), missing: missing.unwrap_or_default() })
    }

    async fn count(&self, entity: &str, event_type: &str, minutes: Range<i64>) -> Result<Found, DoorError> {
        let mut url = below(&self.asked, &["v1", "entities", entity, "count"]);
        url.query_pairs_mut()
            .append_pair("type", event_type)
            .append_pair("from", &format_time(start_of_minute(minutes.start)))
            .append_pair("to", &format_time(start_of_minute(minutes.end)));
        let answer: Value = ask(&url, self.client(&url).get(url.clone())).await?;
        let count = number(&answer["count"]).ok_or_else(|| unreadable(&url, "it has no count"))?;
        let missing = missing(&answer);
        Ok(Found { count, complete: missing.is_none(), missing: missing.unwrap_or_default() })
    }

    async fn archived(&self, plan: &Plan) -> Result<BTreeSet<String>, DoorError> {
        let query = format!(
            "SELECT DISTINCT event_id FROM events WHERE entity_id IN ({}) AND event_date IN ({}) AND \
             starts_with(event_id, '{}')",
            quoted(plan.entities()),
            quoted(&plan.dates()),
            plan.id_prefix(),
        );
        let (rows, missing) = self.sql(&query).await?;
        if let Some(missing) = missing {
            return Err(unreadable(&self.asked, &format!("it does not have all raw events: {missing}")));
        }
        Ok(rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect())
    }
}

impl fmt::Debug for HttpDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token, and without passwords.
        let doors: Vec<String> = self.doors.iter().map(|door| shown(door.as_str())).collect();
        f.debug_struct("HttpDoor")
            .field("doors", &doors)
            .field("asked", &shown(self.asked.as_str()))
            .finish_non_exhaustive()
    }
}

/// What an answer says that it lacks; none when it says that it is whole.
fn missing(answer: &Value) -> Option<String> {
    let provenance = &answer["provenance"];
    (provenance["complete"] != true).then(|| provenance["missing"].to_string())
}

/// An address without the user and the password that may stand in it.
fn shown(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    parts.map_or_else(|| url.to_owned(), |(scheme, rest)| format!("{scheme}://{rest}"))
}

/// A row of counts.
fn counted(row: &[Value]) -> Option<(Key, u64)> {
    let [entity, event_type, minute, count] = row else { return None };
    let minute = minute_of(parse_rfc3339(minute.as_str()?)?);
    Some((
        Key { entity: entity.as_str()?.to_owned(), event_type: event_type.as_str()?.to_owned(), minute },
        number(count)?,
    ))
}

/// A number, as a number or as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Texts for SQL; those of a plan hold nothing that would have to be escaped.
fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect();
    texts.join(", ")
}

fn base(url: &str) -> Result<Url, DoorError> {
    let base = Url::parse(url).map_err(|error| bad_url(url, &error))?;
    if base.cannot_be_a_base() || !base.has_host() {
        return Err(bad_url(url, &"it should look like http://127.0.0.1:7700"));
    }
    Ok(base)
}

fn bad_url(url: &str, reason: &dyn fmt::Display) -> DoorError {
    DoorError::BadUrl { url: shown(url), reason: reason.to_string() }
}

/// A path below an address, each of its parts escaped.
fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    // An address that has no path was refused before.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// Makes a request, once.
async fn ask<T: DeserializeOwned>(url: &Url, request: RequestBuilder) -> Result<T, DoorError> {
    let silent = |error: reqwest::Error| DoorError::Silent {
        url: shown(url.as_str()),
        reason: root_cause(&error.without_url()),
    };
    let mut response = request.send().await.map_err(silent)?;
    let status = response.status();
    let body = body_of(&mut response).await.map_err(silent)?;
    let body = body.ok_or_else(|| unreadable(url, "it is too long"))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| unreadable(url, &error.to_string()));
    }
    Err(DoorError::Refused { url: shown(url.as_str()), status: status.as_u16(), detail: detail(&body) })
}

/// The body; none when it is too long.
async fn body_of(response: &mut Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn detail(body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(body).chars().take(SHOWN).collect(),
    }
}

fn unreadable(url: &Url, reason: &str) -> DoorError {
    DoorError::Unreadable { url: shown(url.as_str()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::plan::Shape;

    #[test]
    fn an_entity_is_one_part_of_a_path() {
        let base = base("http://127.0.0.1:7700/").unwrap();
        let url = below(&base, &["v1", "entities", "_reckon/canary/1", "count"]);
        assert_eq!(url.as_str(), "http://127.0.0.1:7700/v1/entities/_reckon%2Fcanary%2F1/count");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["", "here", "mailto:me", "127.0.0.1:7700"] {
            assert!(matches!(HttpDoor::new(url, "http://a", ""), Err(DoorError::BadUrl { .. })), "{url}");
        }
    }

    #[test]
    fn rows_are_read_or_refused() {
        let row = [json!("e"), json!("view"), json!("2013-02-08T21:29:00Z"), json!("7")];
        let key = Key { entity: "e".into(), event_type: "view".into(), minute: 22_672_649 };
        assert_eq!(counted(&row), Some((key, 7)));
        assert_eq!(counted(&[json!("e"), json!("view"), json!("soon"), json!(7)]), None);
        assert_eq!(counted(&row[..3]), None);
    }

    #[test]
    fn a_door_does_not_tell_its_token() {
        let door = HttpDoor::new("http://a,http://b", "http://c", "secret").unwrap();
        assert!(!format!("{door:?}").contains("secret"));
        let turns: Vec<&str> = (0..3).map(|_| door.door().host_str().unwrap()).collect();
        assert_eq!(turns, ["a", "b", "a"]);
    }

    #[tokio::test]
    async fn no_error_shows_a_password() {
        let door = HttpDoor::new("http://me:hush@127.0.0.1:1", "http://me:hush@127.0.0.1:1/", "").unwrap().of_itself();
        let plan = Shape::new(1, 1, 1, Duration::ZERO).plan(0, 20_000_000);
        let errors = [door.counts(&plan).await.unwrap_err(), door.send(&plan.requests()[0]).await.unwrap_err()];
        let bad = HttpDoor::new("me://me:hush@", "http://a", "").unwrap_err();
        for error in errors.iter().chain([&bad]) {
            assert!(!format!("{error} {error:?} {door:?}").contains("hush"), "{error}");
        }
        assert!(errors[0].to_string().contains("http://127.0.0.1:1/v1/sql"), "{}", errors[0]);
    }

    #[test]
    fn what_an_answer_lacks_is_what_it_says() {
        assert_eq!(missing(&json!({"provenance": {"complete": true, "missing": []}})), None);
        let lacks = json!({"provenance": {"complete": false, "missing": [{"partition": 3}]}});
        assert_eq!(missing(&lacks).as_deref(), Some(r#"[{"partition":3}]"#));
        assert!(missing(&json!({})).is_some(), "who does not say so is not whole");
    }
}
