//! What a live view follows.

use super::super::fail::{Failure, bad};
use super::super::params::Params;
use crate::Serving;
use crate::query::{PartsQuery, Step, TopQuery};

/// Its parameters.
const KNOWN: &[&str] = &["entity", "type", "window", "from", "to", "step", "top", "top_window", "filter"];
/// Entities of a list, if none are named, and at most.
const TOP: usize = 10;
const TOP_MAX: usize = 100;
/// How far back, if nothing is said.
const WINDOW: &str = "1h";

/// What is followed, as it was asked: two who ask the same follow the same frames.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View(Params);

/// What is asked of the serving layer for a frame; windows move with the clock.
#[derive(Debug)]
pub struct Ask {
    pub parts: Option<PartsQuery>,
    pub top: TopQuery,
}

impl View {
    /// Reads the parameters' names.
    ///
    /// # Errors
    /// When there are others.
    pub fn read(query: Option<&str>) -> Result<Self, Failure> {
        let params = Params::read(query, KNOWN)?;
        let lone = ["window", "from", "to", "step"].into_iter().find(|name| params.text(name).is_some());
        if let Some(name) = lone.filter(|_| params.text("entity").is_none()) {
            return Err(bad(name, format!("{name} is about the counts of an entity, and no entity is named")));
        }
        Ok(Self(params))
    }

    /// What to ask at `now`, microseconds.
    ///
    /// # Errors
    /// When a parameter's value cannot be meant.
    pub fn ask(&self, serving: &Serving, now: i64) -> Result<Ask, Failure> {
        let Self(params) = self;
        let (event_type, filter) = (params.text("type"), params.filter(serving)?);
        let (from, to) = params.window_of("top_window", WINDOW, now)?;
        let n = params.number("top", TOP, TOP_MAX)?;
        let top = TopQuery { event_type: event_type.clone(), n, from, to, filter: filter.clone() };
        if !serving.is_by_dimension(filter.as_ref()) {
            let detail = "a live view is answered from counts: it can be filtered by a dimension only";
            return Err(bad("filter", detail));
        }
        let Some(entity) = params.text("entity") else { return Ok(Ask { parts: None, top }) };
        let named = ["window", "from", "to"].into_iter().any(|name| params.text(name).is_some());
        let (from, to) = if named { params.span(now)? } else { params.window_of("window", WINDOW, now)? };
        let step = params.text("step").map_or(Ok(Step::MINUTE), |text| text.parse::<Step>())?;
        Ok(Ask { parts: Some(PartsQuery { entity, event_type, from, to, step, filter }), top })
    }
}
