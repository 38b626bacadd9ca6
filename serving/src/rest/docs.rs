//! `/docs`: a page to try the routes. It comes with the dashboard, whose build makes it; where it is not there, what is said
//! instead is how to get it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::fail::Failure;
use super::page;
use super::state::{Routes, Shared};

const PATH: &str = "/docs";
/// What is said where there is no page: it shows itself, and nothing else.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const WITHOUT: &str = include_str!("docs.html");

/// Not in the OpenAPI document: this is for browsers.
pub fn routes() -> Routes {
    Routes::new().route(PATH, get(docs))
}

async fn docs(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Failure> {
    if shared.parts.page.as_ref().is_some_and(|page| page.asset(PATH).is_some()) {
        return page::answer(&shared, PATH, &headers);
    }
    let about = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((about, WITHOUT).into_response())
}
