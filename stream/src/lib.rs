//! The stream layer: gateway and counter.

pub mod counter;
pub mod gateway;
