//! The report of an audit: what it says ([`model`]) and how it looks.

pub mod model;
