//! Ends of a process with a code of their own, so that a script can tell them apart.

use std::fmt;

/// An end with a code: a failure, or what a command has found, which is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    code: u8,
    message: Option<String>,
}

impl Exit {
    /// A failure that ends the process with `code`.
    #[must_use]
    pub const fn new(code: u8, message: String) -> Self {
        Self { code, message: Some(message) }
    }

    /// The process ends with `code`, and all was said.
    #[must_use]
    pub const fn quiet(code: u8) -> Self {
        Self { code, message: None }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => f.write_str(message),
            None => write!(f, "exit code {}", self.code),
        }
    }
}

impl std::error::Error for Exit {}

/// The code that an error ends the process with: its own, or that of a command that could not be run.
#[must_use]
pub fn code_of(error: &anyhow::Error, not_run: u8) -> u8 {
    error.downcast_ref::<Exit>().map_or(not_run, |exit| exit.code)
}

/// Whether there is anything left to be said of an error.
#[must_use]
pub fn is_quiet(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Exit>().is_some_and(|exit| exit.message.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_code_of_its_own_has_that_of_its_command() {
        let own = anyhow::Error::new(Exit::new(2, "no server".to_owned()));
        assert_eq!((code_of(&own, 1), code_of(&anyhow::anyhow!("other"), 1)), (2, 1));
        assert_eq!(code_of(&own.context("meanwhile"), 1), 2);
        assert!(is_quiet(&Exit::quiet(1).into()) && !is_quiet(&anyhow::anyhow!("other")));
    }
}
