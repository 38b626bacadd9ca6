//! Problem documents (RFC 9457): how every refused request is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document, media type `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem: a path below `/problems/`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/bad-request")]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// The parameter or field that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The verdicts on the events of the request, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<crate::receipt::Receipt>,
}

impl Problem {
    /// A problem of a kind (`bad-request`) with its title and detail.
    #[must_use]
    pub fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            field: None,
            receipt: None,
        }
    }

    /// The same problem, with the field that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}
