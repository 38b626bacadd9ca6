//! What importers remember.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use reckon_data::imports::{ImportEntry, Imports};
use serde_json::json;

use super::fail::{Failure, bad, busy, internal};
use super::params::Params;
use super::state::{Routes, Shared};

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new().route("/v1/imports", get(find).post(record))
}

fn imports(shared: &Shared) -> Result<&Arc<dyn Imports>, Failure> {
    shared.parts.imports.as_ref().ok_or_else(|| internal("this process remembers no imports"))
}

async fn find(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["mapping"])?;
    let mapping =
        params.text("mapping").ok_or_else(|| bad("mapping", "mapping, the hash of the mapping, is missing"))?;
    let entries = imports(&shared)?.find(&mapping).await.map_err(busy)?;
    Ok(Json(json!({ "imports": entries })).into_response())
}

async fn record(State(shared): App, entry: Result<Json<ImportEntry>, JsonRejection>) -> Result<Response, Failure> {
    let Json(entry) = entry?;
    let ImportEntry { bytes, lines, accepted, skipped, refused, .. } = entry;
    let numbers = [bytes, lines, accepted, skipped, refused];
    for (name, number) in ["bytes", "lines", "accepted", "skipped", "refused"].into_iter().zip(numbers) {
        if i64::try_from(number).is_err() {
            return Err(bad(name, format!("{name}={number} is more than {}, which is the most", i64::MAX)));
        }
    }
    imports(&shared)?.record(entry).await.map_err(busy)?;
    Ok(Json(json!({ "recorded": true })).into_response())
}
