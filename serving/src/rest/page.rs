//! The dashboard's files at `/`. Where they come from is somebody else's business: [`Page`].

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;

use super::fail::{Failure, missing};
use super::state::Shared;

/// What the page may do: run and show what came with it, and talk to this server. Nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Names hold a hash of what is in the file.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// The page itself names those files: it is asked for again each time.
const EACH_TIME: &str = "no-cache";

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// What is in it.
    pub body: &'static [u8],
    /// Its media type.
    pub kind: &'static str,
    /// A hash of what is in it, in quotes, as `ETag` has it.
    pub etag: &'static str,
    /// Whether its name changes when what is in it does.
    pub immutable: bool,
}

/// The files of the page.
pub trait Page: std::fmt::Debug + Send + Sync {
    /// The file at a path: `/`, `/docs`, or `/assets/NAME`.
    fn asset(&self, path: &str) -> Option<Asset>;
}

/// Not in the OpenAPI document: this is for browsers.
pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().route("/", get(root)).route("/assets/{name}", get(file))
}

async fn root(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Failure> {
    answer(&shared, "/", &headers)
}

async fn file(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    answer(&shared, &format!("/assets/{name}"), &headers)
}

/// The file of the page at a path.
pub fn answer(shared: &Shared, path: &str, headers: &HeaderMap) -> Result<Response, Failure> {
    let asset = shared.parts.page.as_ref().and_then(|page| page.asset(path));
    let asset = asset.ok_or_else(|| missing(format!("the dashboard has no file {path}: load the page anew")))?;
    let caching = if asset.immutable { FOR_EVER } else { EACH_TIME };
    let about = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, caching),
        (header::ETAG, asset.etag),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if is_known(headers, asset.etag) {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    Ok((about, asset.body).into_response())
}

/// Whether the client has it already (`If-None-Match`; a proxy may have made the tag a weak one).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|tags| tags.split(','));
    tags.any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == etag)
}
