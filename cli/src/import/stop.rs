//! Ctrl-C: the first one ends an import in order, the second one at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

/// What a shell says of a process that ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// Whether the import should end.
#[derive(Debug, Default)]
pub struct Stop {
    set: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Stop {
    /// Set by Ctrl-C.
    #[must_use]
    pub fn on_ctrl_c() -> Self {
        let set = Arc::new(AtomicBool::new(false));
        let listener = tokio::spawn(listen(Arc::clone(&set)));
        Self { set, listener: Some(listener) }
    }

    /// Sets it.
    #[cfg(test)]
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// Whether it was set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}

async fn listen(set: Arc<AtomicBool>) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    set.store(true, Ordering::Relaxed);
    eprintln!("ending once it is written down how far the import is; Ctrl-C again ends it at once");
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}
