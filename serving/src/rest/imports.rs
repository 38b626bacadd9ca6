//! What importers remember.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use reckon_data::imports::{ImportEntry, Imports};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::fail::{Failure, bad, busy, internal};
use super::object::Object;
use super::openapi::Refusals;
use super::params::Params;
use super::state::{Routes, Shared};

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new().routes(routes!(find, record))
}

fn imports(shared: &Shared) -> Result<&Arc<dyn Imports>, Failure> {
    shared.parts.imports.as_ref().ok_or_else(|| internal("this process remembers no imports"))
}

/// Files imported with a mapping.
#[derive(Serialize, ToSchema)]
struct ImportsFound {
    /// The newest entry of every file.
    imports: Vec<ImportEntry>,
}

/// Files imported with a mapping.
///
/// An importer asks for them before it begins, so that a file counts once, whenever it comes.
#[utoipa::path(
    get,
    path = "/v1/imports",
    operation_id = "find_imports",
    tag = "imports",
    params(("mapping" = String, Query, description = "Hash of the mapping.", min_length = 1, example = json!("6b1f"))),
    responses(Refusals, (status = 200, description = "The files.", body = ImportsFound)),
)]
async fn find(State(shared): App, RawQuery(query): RawQuery) -> Result<Json<ImportsFound>, Failure> {
    let params = Params::read(query.as_deref(), &["mapping"])?;
    let mapping =
        params.text("mapping").ok_or_else(|| bad("mapping", "mapping, the hash of the mapping, is missing"))?;
    let imports = imports(&shared)?.find(&mapping).await.map_err(busy)?;
    Ok(Json(ImportsFound { imports }))
}

/// It is remembered.
#[derive(Serialize, ToSchema)]
struct Recorded {
    /// Always true.
    recorded: bool,
}

/// Remember how far a file is imported.
///
/// Durable when it is answered. Numbers are at most 9223372036854775807, which is what a table can hold.
#[utoipa::path(
    post,
    path = "/v1/imports",
    operation_id = "record_import",
    tag = "imports",
    request_body(content = ImportEntry, description = "How far the file is."),
    responses(Refusals, (status = 200, description = "Remembered.", body = Recorded)),
)]
async fn record(
    State(shared): App,
    entry: Result<Json<Object<ImportEntry>>, JsonRejection>,
) -> Result<Json<Recorded>, Failure> {
    let Json(Object(entry)) = entry?;
    let ImportEntry { bytes, lines, accepted, skipped, refused, .. } = entry;
    let numbers = [bytes, lines, accepted, skipped, refused];
    for (name, number) in ["bytes", "lines", "accepted", "skipped", "refused"].into_iter().zip(numbers) {
        if i64::try_from(number).is_err() {
            return Err(bad(name, format!("{name}={number} is more than {}, which is the most", i64::MAX)));
        }
    }
    imports(&shared)?.record(entry).await.map_err(busy)?;
    Ok(Json(Recorded { recorded: true }))
}
