//! Validators of answers: who has one already asks whether it still holds, and is told so without its text.
//!
//! The answer is worked out each time, so what is told is never older than it says. A tag is a hash of the answer without
//! its watermark: that follows the clock, and the same counts as of the same positions are the same answer.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

use super::fail::internal;

/// Whoever keeps an answer asks each time whether it still holds.
const CACHE_CONTROL: &str = "private, no-cache";
const WATERMARK: &[u8] = b"\"watermark\":";

/// Tags answers, and answers 304 where the client has the same one.
pub async fn validate(request: Request, next: Next) -> Response {
    let is_get = request.method() == Method::GET;
    let held = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !(is_get && is_json && response.status() == StatusCode::OK) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It is in memory already.
    let bytes = match to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return internal(error.to_string()).into_response(),
    };
    let tag = tag_of(&bytes);
    let is_held = held.as_ref().and_then(|held| held.to_str().ok()).is_some_and(|held| holds(held, &tag));
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    if is_held {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// A weak tag: answers with the same one say the same, if not to the byte.
fn tag_of(answer: &[u8]) -> String {
    let mut hash = Xxh3::new();
    let mut rest = answer;
    // Within a text of JSON no quote stands by itself, so this is found as a name only.
    while let Some(at) = memmem::find(rest, WATERMARK) {
        let (before, after) = rest.split_at(at + WATERMARK.len());
        hash.update(before);
        let end = after.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(after.len());
        rest = after.get(end..).unwrap_or_default();
    }
    hash.update(rest);
    format!("W/\"{:032x}\"", hash.digest128())
}

/// Whether `If-None-Match` names a tag.
fn holds(held: &str, tag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    held.split(',').any(|one| one.trim() == "*" || strong(one) == strong(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_what_is_said_and_not_the_clock() {
        let answer = |count: u64, watermark: &str| {
            tag_of(format!(r#"{{"count":{count},"provenance":{{"watermark":{watermark},"late":0}}}}"#).as_bytes())
        };
        assert_eq!(answer(1, "null"), answer(1, "\"2013-02-08T21:29:00Z\""));
        assert_ne!(answer(1, "null"), answer(2, "null"));
        let named = |id: &str| tag_of(serde_json::json!({ "entity_id": id }).to_string().as_bytes());
        assert_ne!(named("\"watermark\":1,"), named("\"watermark\":2,"), "an id may be anything");
        assert_ne!(tag_of(b"{\"watermark\":1}"), tag_of(b"{\"watermark\":1,\"n\":1}"));
    }

    #[test]
    fn lists_of_tags_are_read() {
        let tag = "W/\"07\"";
        for held in ["*", "W/\"07\"", "\"07\"", "\"1\", W/\"07\"", " W/\"07\" ,\"2\""] {
            assert!(holds(held, tag), "{held}");
        }
        for held in ["", "07", "\"7\"", "W/\"070\""] {
            assert!(!holds(held, tag), "{held}");
        }
    }
}
