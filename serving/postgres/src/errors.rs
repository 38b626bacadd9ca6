//! What is told to a client: SQLSTATEs for what goes wrong, warnings for answers that lack something.

use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::PgWireBackendMessage;
use reckon_serving::ServingError;
use reckon_serving::view::{Missing, Provenance};

/// SQLSTATEs that are used in more than one place.
pub mod state {
    pub const WARNING: &str = "01000";
    pub const NOT_SUPPORTED: &str = "0A000";
    pub const PROTOCOL: &str = "08P01";
    pub const BAD_VALUE: &str = "22023";
    pub const BAD_TEXT: &str = "22P02";
    pub const NO_TRANSACTION: &str = "25P01";
    pub const FAILED_TRANSACTION: &str = "25P02";
    pub const READ_ONLY: &str = "25006";
    pub const NO_STATEMENT: &str = "26000";
    pub const NO_CURSOR: &str = "34000";
    pub const SYNTAX: &str = "42601";
    pub const DUPLICATE_CURSOR: &str = "42P03";
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    pub const NO_SETTING: &str = "42704";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const TOO_MANY: &str = "53400";
    pub const BROKEN: &str = "55000";
    pub const CANCELLED: &str = "57014";
    pub const STOPPING: &str = "57P01";
    pub const IDLE: &str = "57P05";
}

/// An error that ends a statement.
pub fn error(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())))
}

/// An error that ends the connection.
pub fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), code.to_owned(), message.into())))
}

/// A warning.
pub fn warning(message: impl Into<String>, detail: Option<String>) -> PgWireBackendMessage {
    let mut info = ErrorInfo::new("WARNING".to_owned(), state::WARNING.to_owned(), message.into());
    info.severity_nonlocalized = Some("WARNING".to_owned());
    info.detail = detail;
    PgWireBackendMessage::NoticeResponse(info.into())
}

/// What the serving layer says, as PostgreSQL would.
pub fn of_serving(error: &ServingError) -> PgWireError {
    self::error(code_of(error), error.to_string())
}

fn code_of(error: &ServingError) -> &'static str {
    match error {
        ServingError::BadRequest { field: "query", message } => code_of_query(message),
        ServingError::BadRequest { .. } => state::BAD_VALUE,
        ServingError::NotFound { .. } => "42704",
        ServingError::Timeout { .. } => state::CANCELLED,
        ServingError::MemoryLimit { .. } => "53200",
        ServingError::Unavailable { .. } => "53000",
        ServingError::Damaged { .. } => "XX001",
        _ => "XX000",
    }
}

/// DataFusion has no codes; its texts are known well enough, and what is not known is a plain error of the query.
fn code_of_query(message: &str) -> &'static str {
    let has = |text: &str| message.contains(text);
    if has("only reading is allowed") {
        state::READ_ONLY
    } else if has("ParserError") || has("TokenizerError") {
        state::SYNTAX
    } else if has("table '") && has("not found") {
        "42P01"
    } else if has("No field named") {
        "42703"
    } else if has("Invalid function") || has("No function matches") || has("Function '") {
        "42883"
    } else if has("mbiguous reference") {
        "42702"
    } else if has("Divide by zero") || has("DivideByZero") {
        "22012"
    } else if has("Overflow") || has("overflow") {
        "22003"
    } else if has("Cast error") || has("Cannot cast string") {
        state::BAD_TEXT
    } else if has("not implemented") || has("NotImplemented") {
        state::NOT_SUPPORTED
    } else {
        "42000"
    }
}

/// So many missing pieces are named; all of them stand in `SHOW reckon.provenance`.
const NAMED_MAX: usize = 20;

/// What must be said of an answer that is not whole, or not of one definition.
pub fn warnings(provenance: &Provenance) -> Vec<PgWireBackendMessage> {
    let mut warnings = Vec::new();
    if !provenance.complete {
        let mut missing: Vec<String> = provenance.missing.iter().take(NAMED_MAX).map(named).collect();
        let more = provenance.missing.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            missing.push(format!("and {more} more, see SHOW reckon.provenance"));
        }
        let detail = (!missing.is_empty()).then(|| missing.join("; "));
        warnings.push(warning("the answer is incomplete: it lacks counts that it should hold", detail));
    }
    if provenance.definitions_mixed {
        let message = format!(
            "the answer mixes what other definitions have counted with definition {}; a batch run counts all of it anew",
            provenance.definition
        );
        warnings.push(warning(message, None));
    }
    warnings
}

fn named(missing: &Missing) -> String {
    let what = serde_json::to_value(missing.what).ok();
    let mut text = what.as_ref().and_then(|what| what.as_str()).unwrap_or("counts").replace('_', " ");
    if let Some(partition) = missing.partition {
        text.push_str(&format!(" of partition {partition}"));
    }
    if let Some(from) = missing.from {
        text.push_str(&format!(" from offset {from}"));
    }
    if let Some(to) = missing.to {
        text.push_str(&format!(" to {to}"));
    }
    if let Some(date) = &missing.date {
        text.push_str(&format!(" of {date}"));
    }
    format!("{text}: {}", missing.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_query_has_its_code() {
        for (message, code) in [
            ("SQL error: ParserError(\"Expected: …\")", "42601"),
            ("Error during planning: table 'datafusion.public.nothing' not found", "42P01"),
            ("Schema error: No field named nothing.", "42703"),
            ("only reading is allowed: SELECT; not \"DROP TABLE stats\"", "25006"),
            ("Error during planning: Invalid function 'nothing'.", "42883"),
            ("something else", "42000"),
        ] {
            let error = ServingError::BadRequest { field: "query", message: message.to_owned() };
            assert_eq!(code_of(&error), code, "{message}");
        }
        let late = ServingError::Timeout { limit: std::time::Duration::from_secs(1) };
        assert_eq!(code_of(&late), "57014");
        assert_eq!(code_of(&ServingError::BadRequest { field: "as_of", message: String::new() }), "22023");
        let large = ServingError::MemoryLimit { limit_bytes: 1, message: String::new() };
        assert_eq!(code_of(&large), "53200");
    }
}
