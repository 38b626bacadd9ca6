//! Stand-ins for whom rules ask, who is told, and the clock.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::clock::Clock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Answer, Ask, Message, Receiver, SendError};

/// A clock that goes with the runtime's time, which tests hold.
#[derive(Debug)]
pub struct RuntimeClock(Instant);

impl RuntimeClock {
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_micros()).unwrap()
    }
}

/// Answers every query with so many rows; [`Oracle::FAILS`] and [`Oracle::PANICS`] are not numbers of rows.
#[derive(Debug, Default)]
pub struct Oracle {
    rows: AtomicU32,
}

impl Oracle {
    pub const FAILS: u32 = u32::MAX;
    pub const PANICS: u32 = u32::MAX - 1;

    pub fn set(&self, rows: u32) {
        self.rows.store(rows, Ordering::SeqCst);
    }
}

#[async_trait]
impl Ask for Oracle {
    async fn rows(&self, sql: &str) -> Result<Answer, String> {
        match self.rows.load(Ordering::SeqCst) {
            Self::FAILS => Err(format!("{sql}: no answer")),
            Self::PANICS => panic!("{sql}"),
            rows => {
                let total = u64::from(rows);
                let row = |n: u64| serde_json::json!({ "n": n });
                Ok(Answer { rows: (0..total).map(row).collect(), total, ..Answer::default() })
            }
        }
    }
}

/// A receiver that fails so many times first.
#[derive(Debug)]
pub struct Inbox {
    pub failures: AtomicU32,
    pub is_final: bool,
    pub hangs: bool,
    pub panics: bool,
    pub tried: Mutex<Vec<String>>,
    pub taken: Mutex<Vec<Message>>,
    pub arrived: Notify,
}

impl Inbox {
    pub fn failing(times: u32) -> Self {
        Self {
            failures: AtomicU32::new(times),
            is_final: false,
            hangs: false,
            panics: false,
            tried: Mutex::default(),
            taken: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    pub fn keys_tried(&self) -> Vec<String> {
        self.tried.lock().clone()
    }

    pub fn taken(&self) -> Vec<Message> {
        self.taken.lock().clone()
    }

    pub async fn wait_for(&self, messages: usize) {
        while self.taken.lock().len() < messages {
            self.arrived.notified().await;
        }
    }
}

#[async_trait]
impl Receiver for Inbox {
    fn name(&self) -> &str {
        "inbox"
    }

    async fn send(&self, message: &Message) -> Result<(), SendError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.tried.lock().push(message.key.clone());
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        assert!(!fails || !self.panics, "a receiver panics");
        if fails {
            return Err(SendError { reason: "not now".to_owned(), is_final: self.is_final });
        }
        self.taken.lock().push(message.clone());
        self.arrived.notify_one();
        Ok(())
    }
}
