//! The OpenAPI document, which is also what people read: made from the routes that a process has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use reckon_data::problem::Problem;
use utoipa::openapi::server::Server;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ComponentsBuilder, Content, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr,
    ResponseBuilder,
};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::routes;

use super::fail::{Failure, PROBLEM_JSON, internal};
use super::state::{Routes, Shared};

/// What is said before all routes.
const DESCRIPTION: &str = include_str!("openapi.md");

/// The groups of routes, in the order in which they are read.
const TAGS: [(&str, &str); 7] = [
    ("counts", "How often something happened: counts, steps, top lists, and how a count came about."),
    ("sql", "The same counts, and the raw events, in SQL."),
    ("events", "Events in, and where one of them is."),
    ("dead letters", "What was refused, and once more."),
    ("jobs", "Batch runs and audits."),
    ("imports", "What importers remember."),
    ("process", "How the process is, and this document."),
];

/// The refusals that any route may give, as problem documents. [`document`] leaves out those of bodies where an
/// operation takes none. What a route means by a status of its own stands after them in its `responses`: the later wins.
pub struct Refusals;

/// Status and meaning.
const REFUSALS: [(u16, &str); 10] = [
    (400, "The request cannot be carried out as it is; `field` names what is wrong with it."),
    (404, "There is no such thing."),
    (405, "The method is not allowed here; `Allow` names those that are."),
    (408, "The body took too long to arrive."),
    (413, "The body is too large."),
    (415, "The body is of a kind, or compressed in a way, that is not known here."),
    (429, "Too much of this is under way; come again after `Retry-After` seconds."),
    (500, "Something is broken here: a data file is damaged, say."),
    (503, "Not now; come again after `Retry-After` seconds."),
    (504, "It took longer than serving.query_time; ask for less."),
];

/// Those of [`REFUSALS`] that only a body can be the reason of.
const OF_BODIES: [&str; 3] = ["408", "413", "415"];

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        REFUSALS.into_iter().map(|(status, meaning)| (status.to_string(), problem(meaning).into())).collect()
    }
}

/// The refusal of a question that needs more memory than it may have; beside [`Refusals`], of routes that ask.
pub struct TooLarge;

impl IntoResponses for TooLarge {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let meaning = "The query needs more memory than serving.query_memory; ask for less.";
        BTreeMap::from([("507".to_owned(), problem(meaning).into())])
    }
}

/// An answer that is a problem document.
fn problem(meaning: &str) -> utoipa::openapi::Response {
    let content = Content::new(Some(Ref::from_schema_name(Problem::name())));
    ResponseBuilder::new().description(meaning).content(PROBLEM_JSON, content).build()
}

/// The document of what a process has: `parts` are its groups of routes.
pub fn document(parts: impl IntoIterator<Item = OpenApi>) -> OpenApi {
    let mut document = head();
    for part in parts {
        document.merge(part);
    }
    for item in document.paths.paths.values_mut() {
        without_refusals_of_bodies(item);
    }
    let used = |name: &str| {
        let operations = document.paths.paths.values().flat_map(operations);
        operations.flat_map(|operation| operation.tags.iter().flatten()).any(|tag| tag == name)
    };
    let tags = TAGS.into_iter().filter(|(name, _)| used(name));
    let tags = tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build()).collect();
    document.tags = Some(tags);
    document
}

fn head() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Reckon")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    let server = Server::new("/");
    OpenApiBuilder::new().info(info).servers(Some([server])).components(Some(common())).build()
}

/// What no route names by itself: the problem documents of [`Refusals`].
fn common() -> Components {
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    let problem = <Problem as utoipa::PartialSchema>::schema();
    ComponentsBuilder::new().schemas_from_iter(schemas).schema(Problem::name(), problem).build()
}

fn operations(item: &PathItem) -> impl Iterator<Item = &utoipa::openapi::path::Operation> {
    [&item.get, &item.put, &item.post, &item.delete, &item.patch].into_iter().flatten()
}

fn without_refusals_of_bodies(item: &mut PathItem) {
    let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
    for operation in all.into_iter().flatten().filter(|operation| operation.request_body.is_none()) {
        operation.responses.responses.retain(|status, _| !OF_BODIES.contains(&status.as_str()));
    }
}

pub fn routes() -> Routes {
    Routes::new().routes(routes!(openapi))
}

/// This document.
///
/// OpenAPI 3.1, made from the routes that this process has: a gateway has other ones than a server of questions.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "process",
    responses(
        (status = 200, description = "The document.", body = Object, content_type = "application/json"),
        Refusals,
    ),
)]
async fn openapi(State(shared): State<Arc<Shared>>) -> Result<Response, Failure> {
    let document = shared.document.get().ok_or_else(|| internal("the document could not be written"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document.clone()).into_response())
}
