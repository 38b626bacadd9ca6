//! Work that keeps a processor busy, away from the threads that wait for others.
//!
//! On a runtime with one thread such work is done at once, where it stands. A simulation runs on one, and there
//! the order of everything must follow from its seed: threads would bring an order of their own.

use std::future::Future;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
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

/// Does work for which neither events nor questions wait on a thread of its own, with a runtime of its own, which gets only
/// what all others leave of the processors.
///
/// # Errors
/// When there is no thread for it, or it panics.
pub async fn offload_background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let work = Box::pin(work);
    if is_single_threaded() {
        return spawn(work).await.map_err(|error| error.to_string());
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let run = move || {
        give_way(NICE_BACKGROUND);
        let done = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => Ok(runtime.block_on(work)),
            Err(error) => Err(error.to_string()),
        };
        // Nobody listens any more when whoever asked for it was dropped.
        let _ = sender.send(done);
    };
    std::thread::Builder::new().name("background".to_owned()).spawn(run).map_err(|error| error.to_string())?;
    receiver.await.map_err(|_| "it has panicked".to_owned())?
}

/// How far work in the background gives way.
const NICE_BACKGROUND: i32 = 19;

/// From now on this thread, and those that it starts, give way to others: 19 is as far as that goes, 0 not at all, and
/// back there is no way. On Linux, where each thread has a value of its own; elsewhere nothing happens.
pub fn give_way(nice: i32) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // Threads begin with what those have that start them.
        let set = getpriority_process(None).and_then(|now| setpriority_process(None, now.max(nice)));
        if let Err(error) = set {
            tracing::debug!(%error, "a thread competes with all others");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}
