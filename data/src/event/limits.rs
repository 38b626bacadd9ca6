//! The limits on an event's fields.

use crate::minute::MICROS_PER_MINUTE;

/// 1990-01-01T00:00:00Z in microseconds.
const YEAR_1990: i64 = 631_152_000_000_000;

/// The limits on an event's fields; lengths in bytes of UTF-8, times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest `event_id`.
    pub event_id_bytes: usize,
    /// Longest `entity_id`.
    pub entity_id_bytes: usize,
    /// Longest `event_type`.
    pub event_type_bytes: usize,
    /// Longest `user_id`.
    pub user_id_bytes: usize,
    /// Longest `ip`: an IPv6 address with a zone fits.
    pub ip_bytes: usize,
    /// Longest `country`.
    pub country_bytes: usize,
    /// Longest `properties`.
    pub properties_bytes: usize,
    /// Earliest event time, microseconds since 1970.
    pub event_time_min: i64,
    /// How long after the append time an event time may lie, microseconds.
    pub event_time_ahead: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_id_bytes: 128,
            entity_id_bytes: 2_048,
            event_type_bytes: 64,
            user_id_bytes: 256,
            ip_bytes: 64,
            country_bytes: 64,
            properties_bytes: 16 * 1024,
            event_time_min: YEAR_1990,
            event_time_ahead: 10 * MICROS_PER_MINUTE,
        }
    }
}
