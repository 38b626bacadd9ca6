//! Failures that end the process with a code of their own, so that a script can tell them apart.

use std::fmt;

/// A failure with a code.
#[derive(Debug)]
pub struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    /// A failure that ends the process with `code`.
    #[must_use]
    pub const fn new(code: u8, message: String) -> Self {
        Self { code, message }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// The code that an error ends the process with: its own, or 1.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Exit>().map_or(1, |exit| exit.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_code_of_its_own_has_one() {
        let own = anyhow::Error::new(Exit::new(2, "no server".to_owned()));
        assert_eq!((code_of(&own), code_of(&anyhow::anyhow!("other"))), (2, 1));
        assert_eq!(code_of(&own.context("meanwhile")), 2);
    }
}
