//! Errors as gRPC says them.

use std::fmt::Display;

use reckon_serving::ServingError;
use tonic::Status;
use tonic::metadata::MetadataValue;

/// The trailer that names the part of a question that is wrong.
const FIELD_TRAILER: &str = "reckon-field";
/// Longest text of an error, in characters: it travels in a header.
const TEXT_MAX: usize = 1_000;

/// What a client is told; a status for each kind of error that it would tell apart.
pub fn status(error: &ServingError) -> Status {
    let text = short(error);
    match error {
        ServingError::BadRequest { field, message } => invalid(field, message),
        ServingError::NotFound { .. } => Status::not_found(text),
        ServingError::Timeout { .. } => Status::deadline_exceeded(text),
        ServingError::MemoryLimit { .. } => Status::resource_exhausted(text),
        ServingError::Unavailable { .. } => Status::unavailable(text),
        ServingError::Damaged { .. } => Status::data_loss(text),
        _ => Status::internal(text),
    }
}

/// A question that is wrong in `field`.
pub fn invalid(field: &'static str, message: impl Display) -> Status {
    let mut status = Status::invalid_argument(short(format!("{field}: {message}")));
    status.metadata_mut().insert(FIELD_TRAILER, MetadataValue::from_static(field));
    status
}

/// What there is now is not what was asked for.
pub fn unavailable(text: impl Display) -> Status {
    Status::unavailable(short(text))
}

/// Something is broken here.
pub fn internal(error: impl Display) -> Status {
    Status::internal(short(error))
}

fn short(text: impl Display) -> String {
    text.to_string().chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;

    #[test]
    fn every_error_has_its_status() {
        let timeout = ServingError::Timeout { limit: Duration::from_secs(1) };
        let memory = ServingError::MemoryLimit { limit_bytes: 1, message: String::new() };
        let busy = ServingError::Unavailable { message: "later".to_owned() };
        for (error, code) in [
            (ServingError::bad("query", "no"), Code::InvalidArgument),
            (ServingError::NotFound { what: "it".to_owned() }, Code::NotFound),
            (timeout, Code::DeadlineExceeded),
            (memory, Code::ResourceExhausted),
            (busy, Code::Unavailable),
            (ServingError::Internal { message: "broken".to_owned() }, Code::Internal),
        ] {
            assert_eq!(status(&error).code(), code, "{error}");
        }
    }

    #[test]
    fn a_wrong_question_names_the_field_and_is_short() {
        let status = status(&ServingError::bad("as_of", "x".repeat(100_000)));
        assert!(status.message().starts_with("as_of: xxx"));
        assert_eq!(status.message().len(), TEXT_MAX);
        assert_eq!(status.metadata().get(FIELD_TRAILER).unwrap(), "as_of");
        assert_eq!(unavailable("x".repeat(100_000)).message().len(), TEXT_MAX, "it fits into a header");
    }
}
