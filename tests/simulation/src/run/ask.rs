//! Questions, and holding the answers to the oracle.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use reckon_data::clock::Clock as _;
use reckon_data::filter::Filter;
use reckon_data::metric::Function;
use reckon_data::minute::{minute_of, start_of_minute};
use reckon_serving::ServingError;
use reckon_serving::query::{CountQuery, StatsQuery, Step, TopQuery};
use tokio::time::timeout;

use super::Simulation;
use crate::answers;
use crate::node::Node;
use crate::oracle::Question;
use crate::traffic::{COUNTRIES, ENTITIES, TYPES};

/// Whoever waits longer for an answer has none.
const PATIENCE: Duration = Duration::from_secs(600);

impl Simulation {
    /// Asks this often, those who can be asked.
    pub(super) async fn ask(&mut self, questions: u32) -> Result<()> {
        let nodes = [&self.node, &self.zombie].into_iter().flatten();
        let asked: Vec<Arc<Node>> = nodes.filter(|node| node.io.is_alive()).cloned().collect();
        for node in asked {
            for _ in 0..questions {
                let question = self.question();
                match self.rng.random_range(0..6) {
                    0..3 => self.ask_count(&node, &question).await?,
                    3 => self.ask_top(&node, &question).await?,
                    4 => self.ask_stats(&node, &question).await?,
                    _ => self.ask_sql(&node, &question).await?,
                }
            }
        }
        Ok(())
    }

    /// Asks how often something happened to an entity.
    pub(super) async fn ask_count(&mut self, node: &Node, question: &Question) -> Result<()> {
        let Window { from, to, filter } = Window::of(question)?;
        let (entity, event_type) = (entity_of(question), question.event_type.clone());
        let query = CountQuery { entity, event_type, from, to, filter };
        let Some(answer) = self.heard(node, Box::pin(node.serving.count(&query))).await? else { return Ok(()) };
        let question = Question { entity: Some(query.entity), ..question.clone() };
        self.follow();
        self.take(answers::count(&self.oracle, &question, &answer))
    }

    async fn ask_top(&mut self, node: &Node, question: &Question) -> Result<()> {
        let question = Question { entity: None, ..question.clone() };
        let Window { from, to, filter } = Window::of(&question)?;
        let query = TopQuery { event_type: question.event_type.clone(), n: 1_000, from, to, filter };
        let Some(answer) = self.heard(node, Box::pin(node.serving.top(&query))).await? else { return Ok(()) };
        self.follow();
        self.take(answers::top(&self.oracle, &question, &answer))
    }

    async fn ask_stats(&mut self, node: &Node, question: &Question) -> Result<()> {
        let Window { from, to, filter } = Window::of(question)?;
        let functions = [Function::Count, Function::Sum, Function::Min, Function::Max, Function::Avg];
        let function = functions[self.rng.random_range(0..functions.len())];
        let step = Step::of_minutes([1, 7, 60, 1_440][self.rng.random_range(0..4)])?;
        let (entity, event_type) = (entity_of(question), question.event_type.clone());
        let query = StatsQuery { entity, event_type, function, from, to, step, filter };
        let Some(answer) = self.heard(node, Box::pin(node.serving.stats(&query))).await? else { return Ok(()) };
        let question = Question { entity: Some(query.entity), ..question.clone() };
        self.follow();
        self.take(answers::stats(&self.oracle, &question, &answer))
    }

    async fn ask_sql(&mut self, node: &Node, question: &Question) -> Result<()> {
        let table = answers::COUNTS[self.rng.random_range(0..answers::COUNTS.len())];
        let text = answers::query(table, question);
        let Some(answer) = self.heard(node, Box::pin(node.serving.sql(&text))).await? else { return Ok(()) };
        self.follow();
        self.take(answers::sql(&self.oracle, table, question, &answer))
    }

    /// An answer, unless the process dies over it.
    async fn heard<T>(
        &self,
        node: &Node,
        answer: impl Future<Output = Result<T, ServingError>>,
    ) -> Result<Option<Result<T, ServingError>>> {
        let answer = tokio::select! {
            biased;
            () = node.io.died() => return Ok(None),
            answer = timeout(PATIENCE, answer) => answer.context("R-7: no answer")?,
        };
        match answer {
            Err(ServingError::Damaged { damaged }) if !self.flipped => bail!("no bit has flipped, and {damaged}"),
            answer => Ok(Some(answer)),
        }
    }

    /// Counts an answer that may be so.
    fn take(&mut self, verdict: Result<bool, String>) -> Result<()> {
        let complete = verdict.map_err(anyhow::Error::msg)?;
        *(if complete { &mut self.answers } else { &mut self.incomplete }) += 1;
        Ok(())
    }

    fn question(&mut self) -> Question {
        let rng = &mut self.rng;
        let now = minute_of(self.clock.now());
        let entity = rng.random_ratio(3, 4).then(|| format!("v{}", rng.random_range(0..ENTITIES)));
        let event_type = rng.random_ratio(1, 2).then(|| TYPES[rng.random_range(0..TYPES.len())].to_owned());
        let country = rng.random_ratio(1, 4).then(|| COUNTRIES[rng.random_range(0..3)].unwrap().to_owned());
        let back = match rng.random_range(0..4) {
            0 => rng.random_range(1..30),
            1 => rng.random_range(1..300),
            2 => rng.random_range(1..6_000),
            _ => 20 * 365 * 24 * 60,
        };
        let to = if rng.random_ratio(1, 2) { now + 3 * 24 * 60 } else { now - rng.random_range(0..back) };
        Question { entity, event_type, minutes: (now - back).min(to - 1)..to, country }
    }
}

/// The hottest, where nobody is named.
fn entity_of(question: &Question) -> String {
    question.entity.clone().unwrap_or_else(|| "v0".to_owned())
}

struct Window {
    from: i64,
    to: i64,
    filter: Option<Filter>,
}

impl Window {
    fn of(question: &Question) -> Result<Self> {
        let filter = question.country.as_ref().map(|country| Filter::column_value(&format!("country:{country}")));
        let [from, to] = [question.minutes.start, question.minutes.end].map(start_of_minute);
        Ok(Self { from, to, filter: filter.transpose()? })
    }
}
