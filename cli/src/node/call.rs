//! The REST interface called in the process: a command says the same to a folder as to a server.

use anyhow::{Result, anyhow};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use reckon_client::encode;
use reckon_data::problem::Problem;
use reckon_serving::rest;
use serde_json::Value;
use tower::ServiceExt as _;

use super::open::Node;

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Calls a route; the answer, or what the problem says.
///
/// # Errors
/// The problem's detail.
pub async fn call(
    node: &Node,
    method: &str,
    path: &str,
    query: &[(&str, String)],
    body: Option<&Value>,
) -> Result<Value> {
    call_routes(rest::router(node.rest_parts()), method, path, query, body).await
}

/// Calls a route that holds only of the resource as it was: with this ETag, if any.
///
/// # Errors
/// The problem's detail.
pub async fn call_matched(
    node: &Node,
    method: &str,
    path: &str,
    body: Option<&Value>,
    if_match: Option<&str>,
) -> Result<Value> {
    call_with(rest::router(node.rest_parts()), method, path, body, if_match).await
}

/// The same of routes that are there already.
///
/// # Errors
/// The problem's detail.
pub async fn call_routes(
    routes: Router,
    method: &str,
    path: &str,
    query: &[(&str, String)],
    body: Option<&Value>,
) -> Result<Value> {
    let mut uri = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        uri.push_str(&encode(value));
    }
    call_with(routes, method, &uri, body, None).await
}

async fn call_with(
    routes: Router,
    method: &str,
    uri: &str,
    body: Option<&Value>,
    if_match: Option<&str>,
) -> Result<Value> {
    let mut request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    if let Some(etag) = if_match {
        request = request.header("if-match", etag);
    }
    let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))?;
    let response = routes.oneshot(request).await?;
    let status = response.status();
    let bytes = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await?;
    if status.is_success() {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Err(anyhow!(problem.detail)),
        Err(_) => Err(anyhow!("{status}: {}", String::from_utf8_lossy(&bytes))),
    }
}
