//! The events of one client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::frame::Frame;

/// When a client comes again after the stream has ended.
const RETRY: Duration = Duration::from_secs(1);

/// A client who follows a view.
pub struct Following {
    frames: watch::Receiver<Option<Arc<Frame>>>,
    /// Turns true when the server stops; then the stream ends.
    stop: Option<watch::Receiver<bool>>,
    /// The frame it was told last.
    told: Option<u64>,
    due: VecDeque<Event>,
    _turn: OwnedSemaphorePermit,
}

impl Following {
    /// One who has been told nothing yet.
    pub fn new(
        mut frames: watch::Receiver<Option<Arc<Frame>>>,
        stop: Option<watch::Receiver<bool>>,
        turn: OwnedSemaphorePermit,
        history: String,
    ) -> Self {
        // The newest frame of those who were here before does for the beginning.
        frames.mark_changed();
        let first = Event::default().event("history").retry(RETRY).data(history);
        Self { frames, stop, told: None, due: VecDeque::from([first]), _turn: turn }
    }

    /// Its events.
    pub fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
        futures::stream::unfold(self, |mut following| async move {
            loop {
                if let Some(event) = following.due.pop_front() {
                    return Some((Ok(event), following));
                }
                let frame = following.newest().await?;
                following.due = events(&frame, following.told);
                following.told = Some(frame.id);
            }
        })
    }

    /// The next frame; none when the server stops.
    async fn newest(&mut self) -> Option<Arc<Frame>> {
        loop {
            let stopped = stopped(self.stop.as_mut());
            tokio::select! {
                biased;
                () = stopped => return None,
                changed = self.frames.changed() => changed.ok()?,
            }
            let frame = self.frames.borrow_and_update().clone();
            if frame.is_some() {
                return frame;
            }
        }
    }
}

/// Waits for the stop; for ever, if nobody can say it.
async fn stopped(stop: Option<&mut watch::Receiver<bool>>) {
    match stop {
        // An error means that whoever could say it is gone.
        Some(stop) => {
            let _ = stop.wait_for(|stop| *stop).await;
        }
        None => std::future::pending().await,
    }
}

/// What a client is told of a frame who was told `told` last: what has changed since would be wrong for one who has missed
/// a frame, so that one gets all steps.
fn events(frame: &Frame, told: Option<u64>) -> VecDeque<Event> {
    let mut events = VecDeque::new();
    if (frame.whole || is_behind(frame.id, told))
        && let Some(parts) = &frame.parts
    {
        events.push_back(Event::default().event("series").data(parts.series()));
    }
    events.push_back(Event::default().event("tick").id(frame.id.to_string()).data(&frame.tick));
    events
}

/// Whether a client has missed what the frame's changes are changes of.
pub(super) fn is_behind(frame: u64, told: Option<u64>) -> bool {
    told.is_none_or(|told| told + 1 != frame)
}
