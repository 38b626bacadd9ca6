//! What a process listens at besides REST.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::metrics::MetricsText;

/// Writes what it counts.
pub trait Counted: std::fmt::Debug + Send + Sync {
    /// Writes it.
    fn write(&self, into: &mut MetricsText);
}

/// What a process listens at besides REST: shown in `/readyz`, their counters in `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Listens(Vec<Listen>);

#[derive(Debug, Clone)]
struct Listen {
    name: &'static str,
    address: SocketAddr,
    counted: Arc<dyn Counted>,
}

impl Listens {
    /// Adds one: `postgres`, say.
    pub fn add(&mut self, name: &'static str, address: SocketAddr, counted: Arc<dyn Counted>) {
        self.0.push(Listen { name, address, counted });
    }

    /// Names and addresses.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|listen| (listen.name.to_owned(), listen.address.to_string())).collect()
    }

    /// Writes what all of them count.
    pub fn write(&self, into: &mut MetricsText) {
        self.0.iter().for_each(|listen| listen.counted.write(into));
    }
}
