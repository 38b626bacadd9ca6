//! What alerts count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Messages of a receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Messages {
    /// Delivered.
    pub sent: u64,
    /// Given up.
    pub failed: u64,
}

/// What alerts count.
#[derive(Debug, Default)]
pub struct AlertStats {
    evaluations: AtomicU64,
    failures: AtomicU64,
    firing: Mutex<BTreeMap<String, bool>>,
    messages: Mutex<BTreeMap<String, Messages>>,
}

impl AlertStats {
    /// Counters of these rules and receivers: they are there before anything happens.
    #[must_use]
    pub fn of<'a>(rules: impl Iterator<Item = &'a str>, receivers: impl Iterator<Item = &'a str>) -> Self {
        Self {
            firing: Mutex::new(rules.map(|name| (name.to_owned(), false)).collect()),
            messages: Mutex::new(receivers.map(|name| (name.to_owned(), Messages::default())).collect()),
            ..Self::default()
        }
    }

    /// Times that rules were asked.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }

    /// Times that they were not answered.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Which alerts fire.
    #[must_use]
    pub fn firing(&self) -> BTreeMap<String, bool> {
        self.firing.lock().clone()
    }

    /// Messages by receiver.
    #[must_use]
    pub fn messages(&self) -> BTreeMap<String, Messages> {
        self.messages.lock().clone()
    }

    pub(super) fn evaluated(&self, has_failed: bool) {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(has_failed), Ordering::Relaxed);
    }

    pub(super) fn fires(&self, rule: &str, fires: bool) {
        self.firing.lock().insert(rule.to_owned(), fires);
    }

    pub(super) fn sent(&self, receiver: &str) {
        self.messages.lock().entry(receiver.to_owned()).or_default().sent += 1;
    }

    pub(super) fn failed(&self, receiver: &str, messages: u64) {
        self.messages.lock().entry(receiver.to_owned()).or_default().failed += messages;
    }
}
