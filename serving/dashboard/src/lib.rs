//! The dashboard page.
