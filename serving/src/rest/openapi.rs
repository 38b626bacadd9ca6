//! The OpenAPI document, which is also what people read.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::state::Routes;

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub fn routes() -> Routes {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
