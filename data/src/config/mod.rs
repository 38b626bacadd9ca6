//! Settings: what an operator can choose. Components (clock, store, log) are arguments, not settings.
//!
//! [`Settings::from_toml`] reads them and refuses unknown keys and combinations that make no sense;
//! `reckon.example.toml` at the root shows every one with its default, and a test holds it to that.

mod sections;
mod validate;

pub use sections::{
    Alerts, Archive, Audit, Batch, Canary, Counting, Definitions, FLIGHT_SQL, Gateway, LimitSettings, LogFormat,
    LogSettings, POSTGRES, Retention, Serving, Settings, Telemetry,
};
pub use validate::SettingsError;

#[cfg(test)]
mod tests;
