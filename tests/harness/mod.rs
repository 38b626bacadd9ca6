//! Starts servers of the real binary and asks them.

mod cluster;
mod dataset;
mod place;
pub mod proxy;
mod roles;
mod server;

pub use cluster::Cluster;
pub use dataset::Dataset;
pub use place::{cold_at, data_at, in_folder};
pub use roles::Roles;
pub use server::{RUNTIME, Server, command, run_ok};

use serde_json::Value;

/// A question asked of a server, as rows of JSON values.
pub fn rows(answer: &Value) -> Vec<Vec<Value>> {
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("no rows in {answer}"));
    rows.iter().map(|row| row.as_array().unwrap().clone()).collect()
}

/// A number of an answer, whether it was written as a number or as a text.
pub fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

/// Everything counted so far.
pub fn total(server: &Server) -> u64 {
    server.wait_counted();
    number(&rows(&server.sql("select coalesce(sum(count), 0) from stats"))[0][0])
}

/// Pairs of a name and a count.
pub fn pairs(rows: &[Vec<Value>]) -> Vec<(String, u64)> {
    rows.iter().map(|row| (row[0].as_str().unwrap_or("null").to_owned(), number(&row[1]))).collect()
}
