//! Serving the routes on a listener, until it is told to stop.

use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long requests under way may still take after the stop.
const GRACE: Duration = Duration::from_secs(3);

/// Serves `router` until `stop` turns true; requests under way may end, within [`GRACE`].
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let mut deadline = stop.clone();
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps gathering small packets");
        }
    });
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        // An error means that whoever could say stop is gone.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let overdue = async move {
        let _ = deadline.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server.into_future() => served,
        () = overdue => Ok(()),
    }
}
