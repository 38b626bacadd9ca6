//! A server over HTTP.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reckon_data::event::time::parse_rfc3339;
use reckon_data::ingest::CANARY_HEADER;
use reckon_data::minute::{format_time, minute_of, start_of_minute};
use reckon_data::problem::Problem;
use reckon_data::receipt::Receipt;
use reqwest::{RequestBuilder, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::door::{Door, DoorError};
use super::judge::{Counted, Found};
use super::plan::{Body, Counts, Key, Plan};

/// Longest time of one request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Longest time until a connection stands.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Most characters of an answer that is no problem document, in an error.
const SHOWN: usize = 200;

/// A server over HTTP: events go to one of several front doors in turn, questions to one address.
pub struct HttpDoor {
    http: reqwest::Client,
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
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(REQUEST_TIME)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| bad_url(doors, &error))?;
        let doors = doors.split(',').map(|door| base(door.trim())).collect::<Result<_, _>>()?;
        Ok(Self { http, doors, asked: base(asked)?, token: token.to_owned(), next: AtomicUsize::new(0) })
    }

    fn door(&self) -> &Url {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.doors.len().max(1);
        self.doors.get(at).unwrap_or(&self.asked)
    }

    async fn sql(&self, query: &str) -> Result<(Vec<Vec<Value>>, bool), DoorError> {
        let url = below(&self.asked, &["v1", "sql"]);
        let body = json!({ "query": query }).to_string();
        let request = self.http.post(url.clone()).header("content-type", "application/json").body(body);
        let answer: Value = ask(&url, request).await?;
        let bad = || unreadable(&url, "it has no rows");
        let rows = answer["rows"].as_array().ok_or_else(bad)?;
        let rows = rows.iter().map(|row| row.as_array().cloned().ok_or_else(bad)).collect::<Result<_, _>>()?;
        let complete = answer["provenance"]["complete"] == true && answer["truncated"] == false;
        Ok((rows, complete))
    }
}

#[async_trait]
impl Door for HttpDoor {
    async fn send(&self, body: &Body) -> Result<Receipt, DoorError> {
        let url = below(self.door(), &["v1", "events"]);
        let request = self
            .http
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
        let (rows, complete) = self.sql(&query).await?;
        let counts = rows.iter().map(|row| counted(row)).collect::<Option<Counts>>();
        let counts = counts.ok_or_else(|| unreadable(&self.asked, "a row of SQL is not what was asked for"))?;
        Ok(Counted { counts, complete })
    }

    async fn count(&self, entity: &str, event_type: &str, minutes: Range<i64>) -> Result<Found, DoorError> {
        let mut url = below(&self.asked, &["v1", "entities", entity, "count"]);
        url.query_pairs_mut()
            .append_pair("type", event_type)
            .append_pair("from", &format_time(start_of_minute(minutes.start)))
            .append_pair("to", &format_time(start_of_minute(minutes.end)));
        let answer: Value = ask(&url, self.http.get(url.clone())).await?;
        let count = number(&answer["count"]).ok_or_else(|| unreadable(&url, "it has no count"))?;
        Ok(Found { count, complete: answer["provenance"]["complete"] == true })
    }

    async fn archived(&self, plan: &Plan) -> Result<BTreeSet<String>, DoorError> {
        let query = format!(
            "SELECT DISTINCT event_id FROM events WHERE entity_id IN ({}) AND event_date IN ({}) AND \
             starts_with(event_id, '{}')",
            quoted(plan.entities()),
            quoted(&plan.dates()),
            plan.id_prefix(),
        );
        let (rows, complete) = self.sql(&query).await?;
        if !complete {
            return Err(unreadable(&self.asked, "it does not have all raw events"));
        }
        Ok(rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect())
    }

    async fn is_known(&self, event_id: &str, entity: &str, date: &str) -> Result<bool, DoorError> {
        let mut url = below(&self.asked, &["v1", "events", event_id]);
        url.query_pairs_mut().append_pair("entity", entity).append_pair("date", date);
        match ask::<Value>(&url, self.http.get(url.clone())).await {
            Ok(answer) => Ok(answer["copies"].as_array().is_some_and(|copies| !copies.is_empty())),
            Err(DoorError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for HttpDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token.
        f.debug_struct("HttpDoor").field("doors", &self.doors).field("asked", &self.asked).finish_non_exhaustive()
    }
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
    DoorError::BadUrl { url: url.to_owned(), reason: reason.to_string() }
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
    let silent = |error: reqwest::Error| DoorError::Silent { url: url.to_string(), reason: root_cause(&error) };
    let response = request.send().await.map_err(silent)?;
    let status = response.status();
    let body = response.bytes().await.map_err(silent)?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| unreadable(url, &error.to_string()));
    }
    Err(DoorError::Refused { url: url.to_string(), status: status.as_u16(), detail: detail(&body) })
}

fn detail(body: &Bytes) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(body).chars().take(SHOWN).collect(),
    }
}

fn unreadable(url: &Url, reason: &str) -> DoorError {
    DoorError::Unreadable { url: url.to_string(), reason: reason.to_owned() }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
