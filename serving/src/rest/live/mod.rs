//! Live views by server-sent events: `GET /v1/live`.
//!
//! ```text
//! every second:  Shared ──▶ pulse (rates, lag, audit, signals; the same for all)      ┐
//!                Serving ─▶ frame of a view (steps of an entity, top list), once for  ├─▶ watch ─▶ stream of each client
//!                           all who follow the same view                              ┘
//! ```
//!
//! [`view`] reads what is to be followed, [`pulse`] samples the process, [`frame`] is what a second of a view holds, and what
//! of it has changed; [`stream`] sends it to a client, and everything anew to one that has missed a frame.

mod frame;
mod pulse;
mod stream;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fail::{Failure, busy};
use super::serve::Stopping;
use super::state::Shared;
use frame::Frame;
use pulse::Pulse;
use stream::Following;
use view::View;

/// The path of the route: its requests are no measure of how long requests take.
pub const PATH: &str = "/v1/live";
/// How often a view is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Live streams at once.
pub const STREAMS_MAX: usize = 256;
/// A comment goes out after so long a silence, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Of the processors, one in so many makes frames: the others are for whoever asks.
const PROCESSORS_PART: usize = 2;

/// The latest frame of a view; none before the first.
type Frames = watch::Sender<Option<Arc<Frame>>>;

/// Live views that are followed.
#[derive(Debug)]
pub struct Live {
    room: Arc<Semaphore>,
    /// Frames that are made at once. Where there are more views than there is time for, each comes less often.
    making: Semaphore,
    /// Each is made by a task of its own for as long as somebody follows it.
    views: Mutex<HashMap<View, Weak<Frames>>>,
    pub pulse: Pulse,
}

impl Default for Live {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            room: Arc::new(Semaphore::new(STREAMS_MAX)),
            making: Semaphore::new((processors / PROCESSORS_PART).max(1)),
            views: Mutex::default(),
            pulse: Pulse::default(),
        }
    }
}

impl Live {
    /// Streams that are followed.
    pub fn streams(&self) -> usize {
        STREAMS_MAX.saturating_sub(self.room.available_permits())
    }

    /// The frames of a view; the first who follows it starts the task that makes them.
    fn follow(&self, view: View, shared: &Arc<Shared>) -> watch::Receiver<Option<Arc<Frame>>> {
        let mut views = self.views.lock();
        if let Some(frames) = views.get(&view).and_then(Weak::upgrade) {
            return frames.subscribe();
        }
        let frames = Arc::new(Frames::new(None));
        let followed = frames.subscribe();
        views.insert(view.clone(), Arc::downgrade(&frames));
        tokio::spawn(make(Arc::downgrade(shared), view, frames));
        followed
    }

    /// Whether nobody follows a view any more; then it is forgotten.
    fn is_left(&self, view: &View, frames: &Frames) -> bool {
        let mut views = self.views.lock();
        let left = frames.receiver_count() == 0;
        if left {
            views.remove(view);
        }
        left
    }
}

/// Makes the frames of a view until nobody follows it.
async fn make(shared: Weak<Shared>, view: View, frames: Arc<Frames>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Arc<Frame>> = None;
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let Ok(_turn) = shared.live.making.acquire().await else { return };
        if shared.live.is_left(&view, &frames) {
            return;
        }
        let frame = Arc::new(Box::pin(frame::make(&shared, &view, before.as_deref())).await);
        before = Some(Arc::clone(&frame));
        frames.send_replace(Some(frame));
    }
}

/// Samples the process every second for as long as its routes are there, so that whoever comes sees the last minutes.
pub fn start(shared: &Arc<Shared>) {
    // Routes may be made before there is a runtime; then there is nobody to sample for yet either.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let shared = Arc::downgrade(shared);
    runtime.spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(shared) = shared.upgrade() else { return };
            shared.live.pulse.sample(&shared);
        }
    });
}

pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(live))
}

/// Follows an entity's counts, a top list and how the server is, as server-sent events.
///
/// First an event `history` (events per second of the last minutes); where an entity is followed an event `series` with all its
/// steps; then every second an event `tick` with what has changed. A client that was too slow gets `series` again. Counts in
/// them are what the REST routes answer at that moment, with their provenance.
#[utoipa::path(
    get,
    path = "/v1/live",
    tag = "live",
    params(
        ("entity" = Option<String>, Query, description = "The entity whose counts are followed; none if absent."),
        ("type" = Option<String>, Query, description = "One event type, of the counts and of the list; all if absent."),
        ("window" = Option<String>, Query, description = "How far back the counts go: 15m, 6h, 7d. 1h if absent."),
        ("from" = Option<String>, Query, description = "From when, RFC 3339 or epoch milliseconds, instead of window."),
        ("to" = Option<String>, Query, description = "Up to when, exclusive."),
        ("step" = Option<String>, Query, description = "How long a step is: minute, hour, day, 5m, 2h. A minute if absent."),
        ("top" = Option<u32>, Query, description = "How many entities the list has, 1 to 100; 10 if absent."),
        ("top_window" = Option<String>, Query, description = "How far back the list goes; 1h if absent."),
        ("filter" = Option<String>, Query, description = "A configured filter's id, or dimension:value."),
    ),
    responses(
        (status = 200, description = "Events until the client leaves or the server stops.", content_type = "text/event-stream", body = String),
        (status = 400, description = "A parameter is wrong; `field` names it."),
        (status = 405, description = "The method is not allowed."),
        (status = 503, description = "There are too many streams; Retry-After says when to come again."),
    )
)]
async fn live(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Failure> {
    let view = View::read(query.as_deref())?;
    // What cannot be asked is refused now, and not every second.
    view.ask(shared.serving()?, shared.parts.clock.now())?;
    let Ok(turn) = Arc::clone(&shared.live.room).try_acquire_owned() else {
        return Err(busy(format!("{STREAMS_MAX} live streams are followed already, which is the limit")));
    };
    let stop = request.extensions().get::<Stopping>().map(|Stopping(stop)| stop.clone());
    let frames = shared.live.follow(view, &shared);
    let events = Following::new(frames, stop, turn, shared.live.pulse.history()).events();
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    // Proxies that gather answers would keep events back.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

#[cfg(test)]
mod tests;
