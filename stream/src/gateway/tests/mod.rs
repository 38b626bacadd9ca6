//! The gateway against a log that can be held up, filled, and read back.

mod answers;
mod bodies;
mod compressed;
mod laws;
mod load;
mod model;
