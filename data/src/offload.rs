//! Work that keeps a processor busy, away from the threads that wait for others.
//!
//! On a runtime with one thread such work is done at once, where it stands. A simulation runs on one, and there
//! the order of everything must follow from its seed: threads would bring an order of their own.

use std::future::Future;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, spawn, spawn_blocking};

/// Whether the current runtime has one thread only.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn is_single_threaded() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Does work on a thread where it holds up nobody.
///
/// # Errors
/// When it panics, or the runtime ends.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if is_single_threaded() { spawn(async move { work() }).await } else { spawn_blocking(work).await }
}

/// Does work that now and then waits, on a thread where it holds up nobody.
///
/// # Errors
/// When it panics, or the runtime ends.
pub fn offload_future<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> + Send {
    // Whoever awaits it need not make room for it.
    let work = Box::pin(work);
    async move {
        if is_single_threaded() {
            return spawn(work).await;
        }
        let handle = Handle::current();
        spawn_blocking(move || handle.block_on(work)).await
    }
}
