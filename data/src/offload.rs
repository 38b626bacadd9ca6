//! Work that keeps a processor busy, away from the threads that wait for others.
//!
//! On a runtime with one thread such work is done at once, where it stands. A simulation runs on one, and there
//! the order of everything must follow from its seed: threads would bring an order of their own.

use std::future::Future;
use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};
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

/// Does work that has to be done soon, but that nobody waits for at this moment, on one of a few threads that give way to
/// those that events and questions wait for; where the caller's thread gives way already, on one that does as that.
///
/// # Errors
/// When it panics, or there are no threads.
pub async fn offload_behind<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    if is_single_threaded() || gives_way() {
        return offload(work).await.map_err(|error| error.to_string());
    }
    let pool = BEHIND.as_ref().map_err(Clone::clone)?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    pool.spawn(move || {
        // Nobody listens any more when whoever asked for it was dropped.
        let _ = sender.send(work());
    });
    receiver.await.map_err(|_| "it has panicked".to_owned())
}

/// Starts the threads of [`offload_behind`], which begin with what the caller's thread has: not with one that gives way.
pub fn start_behind() {
    if !is_single_threaded() && !gives_way() {
        LazyLock::force(&BEHIND);
    }
}

/// As many threads as there are processors.
static BEHIND: LazyLock<Result<ThreadPool, String>> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new()
        .thread_name(|number| format!("behind-{number}"))
        .start_handler(|_| give_way(NICE_BEHIND))
        // Whoever waits is told, for then nothing is sent.
        .panic_handler(|_| {});
    pool.build().map_err(|error| error.to_string())
});

/// How far work behind others gives way: beside a busy thread it gets a quarter of a processor.
const NICE_BEHIND: i32 = 5;

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

/// Whether this thread gives way to others.
#[cfg(target_os = "linux")]
fn gives_way() -> bool {
    rustix::process::getpriority_process(None).is_ok_and(|nice| nice > 0)
}

/// Threads are all alike elsewhere.
#[cfg(not(target_os = "linux"))]
const fn gives_way() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_behind_others_is_done_and_its_panics_are_told() {
        start_behind();
        let thread = || std::thread::current().name().map(str::to_owned);
        let name = offload_behind(thread).await.unwrap();
        assert!(gives_way() || name.is_some_and(|name| name.starts_with("behind-")));
        assert!(offload_behind(|| assert!(std::env::args().len() > 99, "on purpose")).await.is_err());
        assert_eq!(offload_behind(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn on_one_thread_work_is_done_there() {
        let here = std::thread::current().id();
        assert_eq!(offload_behind(|| std::thread::current().id()).await, Ok(here));
    }
}
