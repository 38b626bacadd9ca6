//! Parameters that many routes take, as the document tells them; `params` reads them.

use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// How a time is written: RFC 3339 (a space may stand for the plus sign of an offset), or epoch milliseconds.
const TIME: &str = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+ -][0-9]{2}:[0-9]{2})|[+-]?[0-9]+)$";
/// The same, and also without seconds.
const MINUTE: &str = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+ -][0-9]{2}:[0-9]{2})|[+-]?[0-9]+)$";
/// The same as [`TIME`], or a version.
const AS_OF: &str = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+ -][0-9]{2}:[0-9]{2})|[+-]?[0-9]+|version:\+?[0-9]+)$";
/// A number and a unit.
const WINDOW: &str = r"^\+?[0-9]+[mhd]$";
/// A step.
const STEP: &str = r"^(minute|hour|day|\+?[0-9]+[mhd])$";

/// An entity, in the path.
pub struct Entity;
/// `type`.
pub struct EventType;
/// `from` and `to`, or `window`.
pub struct Span;
/// `filter`.
pub struct Filtered;
/// `as_of`.
pub struct Past;
/// `step`.
pub struct Stepped;
/// `compare`.
pub struct Compared;
/// `minute`, which must be there.
pub struct Minute;
/// What a sender of events says of them in headers.
pub struct Sending;

impl IntoParams for Entity {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![in_path("entity_id", "What is counted: a video, an ad, a page.", "v1")]
    }
}

impl IntoParams for EventType {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![text("type", "One event type; all when absent.", "view", None)]
    }
}

impl IntoParams for Span {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let from = "Inclusive: RFC 3339 or epoch milliseconds, UTC.";
        let to = "Exclusive: RFC 3339 or epoch milliseconds, UTC; not before `from`.";
        let window = "Instead of from and to: the last 5m, 1h, 7d. The minute that is going on belongs to it.";
        vec![bare("from", from, TIME), bare("to", to, TIME), text("window", window, "7d", Some(WINDOW))]
    }
}

impl IntoParams for Filtered {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![text("filter", "A filter's id (GET /v1/filters lists them), or column:value.", "country:US", None)]
    }
}

impl IntoParams for Past {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "As of an older version of batch: its time (RFC 3339 or epoch milliseconds; the newest version \
                       committed by then), or version:N. The answer holds what batch had counted then and nothing of \
                       the stream.";
        vec![bare("as_of", meaning, AS_OF)]
    }
}

impl IntoParams for Stepped {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "How long a step is: minute, hour, day, 5m, 2h, 7d; an hour when absent.";
        vec![text("step", meaning, "hour", Some(STEP))]
    }
}

impl IntoParams for Compared {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "With the period before: as long as the window, which must have both ends, and up to where it begins. \
                       The answer has `previous`, `change` and `previous_window` as well.";
        vec![text("compare", meaning, "previous", Some("^previous$"))]
    }
}

impl IntoParams for Minute {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "The minute: RFC 3339, also without seconds, or epoch milliseconds.";
        let schema = string(Some(MINUTE));
        vec![parameter("minute", ParameterIn::Query, Required::True, meaning, Some("2013-02-08T10:00Z"), schema)]
    }
}

impl IntoParams for Sending {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let line = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).build();
        let encoding =
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["identity", "gzip", "zstd"])).build();
        [
            ("Idempotency-Key", "Names events without an id, so that a retry is harmless.", string(None)),
            ("Content-Encoding", "identity, gzip or zstd.", encoding),
            ("Reckon-Source", "Where they come from, for the dead letters.", string(None)),
            (
                "Reckon-First-Line",
                "Which line of the source the body's first line is: the dead letter of a line names it.",
                line,
            ),
            (
                "Reckon-Canary",
                "The token that lets events of reserved entities in, _reckon/…; 403 when it is another than the \
                 server's.",
                string(None),
            ),
        ]
        .map(|(name, meaning, schema)| parameter(name, ParameterIn::Header, Required::False, meaning, None, schema))
        .into()
    }
}

/// A name in the path; it is not empty.
fn in_path(name: &str, meaning: &str, example: &str) -> Parameter {
    parameter(name, ParameterIn::Path, Required::True, meaning, Some(example), string(None))
}

fn text(name: &str, meaning: &str, example: &str, pattern: Option<&str>) -> Parameter {
    parameter(name, ParameterIn::Query, Required::False, meaning, Some(example), string(pattern))
}

/// One that has no example, because no time is good everywhere: an example of all parameters at once is to be answered.
fn bare(name: &str, meaning: &str, pattern: &str) -> Parameter {
    parameter(name, ParameterIn::Query, Required::False, meaning, None, string(Some(pattern)))
}

/// Text that is not empty: an empty parameter is refused.
fn string(pattern: Option<&str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).pattern(pattern).build()
}

fn parameter(
    name: &str,
    place: ParameterIn,
    required: Required,
    meaning: &str,
    example: Option<&str>,
    schema: Object,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(meaning))
        .example(example.map(Into::into))
        .schema(Some(schema))
        .build()
}
