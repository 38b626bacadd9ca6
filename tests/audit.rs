//! The audit, end to end: what it says of real data, what it finds of damage, and that traffic does not disturb it.

pub mod ask;
mod facts;
mod live;
mod mended;
mod plain;
