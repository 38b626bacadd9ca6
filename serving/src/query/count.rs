//! Point counts.

use std::borrow::Cow;

use reckon_data::kept::Needs;
use reckon_data::metric::Function;
use reckon_data::run::Selection;

use super::Serving;
use super::gather::{Outcome, StreamSums, exact, exact_sum};
use super::types::{CountAnswer, CountQuery, Window};
use crate::ServingError;
use crate::metrics::Question;

impl Serving {
    /// How often something happened to an entity: batch below coverage, the stream from there on.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and when files cannot be read.
    pub async fn count(&self, query: &CountQuery) -> Result<CountAnswer, ServingError> {
        self.metrics.measure(Question::Count, self.count_unmeasured(query)).await
    }

    async fn count_unmeasured(&self, query: &CountQuery) -> Result<CountAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        let Some(conditions) = self.conditions(query.filter.as_ref()) else {
            return self.count_events(query, window).await;
        };
        let mut selection = Selection::all_of(&query.entity);
        selection.event_type = query.event_type.as_deref();
        selection.minutes = window.minutes();
        selection.conditions = Cow::Borrowed(&conditions);
        let (selection, needs) = (&selection, &Needs::of(query.filter.as_ref(), &[]));
        let (view, found) = self
            .with_view(|view| async move {
                if !self.holds(&view, window, needs) {
                    return Ok(Outcome::Answer(None));
                }
                let stream = self.stream_sums(&view, selection).await?;
                let batch = self.batch_sums(&view, selection, Function::Count).await?;
                Ok(stream.map(|stream| Some((batch, stream))))
            })
            .await?;
        let held = match &found {
            Some((_, stream)) => self.sealed_hold(&view, &stream.parts, needs).await?,
            None => false,
        };
        let Some((batch, stream)) = found.filter(|_| held) else { return self.count_events(query, window).await };
        let (batch, streamed) = (batch.total(), stream.sums.total());
        let parts = (exact(batch.count)?, exact(streamed.count)?);
        let late = batch.late.saturating_add(streamed.late);
        let StreamSums { asked, parts: told, missing, .. } = stream;
        let provenance = self.provenance(&view, asked, &told, missing, window, Some(parts)).with_late(late);
        Ok(CountAnswer { count: exact_sum(parts.0, parts.1)?, batch: parts.0, stream: parts.1, window, provenance })
    }
}

impl<T> Outcome<T> {
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Answer(answer) => Outcome::Answer(f(answer)),
            Self::Stale(answer) => Outcome::Stale(f(answer)),
        }
    }
}
