//! What can go wrong with a request.

use reckon_data::problem::Problem;

/// What can go wrong with a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not one.
    #[error("{url:?} is not the address of a server: {reason}")]
    BadUrl {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server cannot be reached, or did not answer in time.
    #[error("{url} does not answer: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server refused the request.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The answer cannot be understood.
    #[error("the answer of {url} cannot be understood: {reason}")]
    BadAnswer {
        /// The request.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The request cannot be made: a header's value that is none, say.
    #[error("a request to {url} cannot be made: {reason}")]
    BadRequest {
        /// The server.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server has failed so often of late that it is not asked for a while.
    #[error("{url} has failed too often and is not asked for another {seconds} s")]
    Resting {
        /// The server.
        url: String,
        /// How long still.
        seconds: u64,
    },
}

impl ClientError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Resting { .. } => true,
            // It would take too long again, and cost the server as much.
            Self::Refused(problem) if problem.kind.ends_with("query-timeout") => false,
            Self::Refused(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
            Self::BadUrl { .. } | Self::BadAnswer { .. } | Self::BadRequest { .. } => false,
        }
    }

    /// Whether it is a gateway's word on the events of a request, and not that of something before it, or of a server
    /// that takes none: with verdicts, or that they are too many bytes.
    pub(crate) fn is_verdict(&self) -> bool {
        matches!(self, Self::Refused(problem) if Self::is_verdict_of(problem))
    }

    /// Whether a problem is.
    pub(crate) fn is_verdict_of(problem: &Problem) -> bool {
        match problem.status {
            400 | 422 => problem.receipt.is_some(),
            413 => problem.kind.ends_with("too-large"),
            _ => false,
        }
    }
}
