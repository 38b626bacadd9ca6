//! Many entities from the raw events: filters on columns that are no dimension, and dates whose counts lack what is asked.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::try_join_all;
use reckon_data::filter::Filter;
use reckon_data::metric::Function;
use reckon_data::minute::{date_of, format_date};
use reckon_data::run::Selection;
use reckon_data::table::{Snapshot, Table};

use super::Serving;
use super::asks::{Asks, Sums, steps_of};
use super::events::{each_row, files_of, first_copies, held_window, missing_dates, within};
use super::gather::{exact, exact_sum};
use super::many::{Found, check_steps, count_of};
use super::rows::{quoted, texts};
use super::types::Window;
use crate::ServingError;
use crate::view::{BatchView, Missing, MissingWhat};

impl Serving {
    /// What the raw events hold of many entities, up to the archived position.
    pub(super) async fn many_events(&self, asks: &Asks, filter: Option<&Filter>) -> Result<Found, ServingError> {
        let view = self.current.get();
        let snapshot = self.snapshots.newest(Table::Events).await?;
        let around = asks.around();
        let held = held_window(&view, around);
        let counted = self.counted_by_batch(&view, asks, held).await?;
        let (sums, covered) = Box::pin(self.many_rows(asks, filter, held, &view, &snapshot)).await?;
        let mut missing = missing_dates(&view, &snapshot, around);
        if covered != counted && missing.is_empty() {
            let date = format_date(date_of(around.from));
            let reason = format!("of {counted} events that batch has counted, {covered} are left in the raw events");
            missing.push(Missing::date(MissingWhat::Events, date, reason));
        }
        let provenance = self.events_provenance(&view, &snapshot, around, missing, count_of(&sums)?);
        Ok(Found { stream: asks.nothing(), batch: sums, provenance })
    }

    /// Events that batch has counted of all entities, whatever the filter.
    async fn counted_by_batch(&self, view: &BatchView, asks: &Asks, held: Window) -> Result<u64, ServingError> {
        let minutes = &held.minutes();
        let own = (0..asks.entities.len()).map(|entity| async move {
            let mut selection = Selection::all_of(&asks.entities[entity]);
            selection.event_type = asks.event_type.as_deref();
            selection.minutes = minutes.clone();
            exact(self.batch_sums(view, &selection, Function::Count).await?.total().count)
        });
        try_join_all(own).await?.into_iter().try_fold(0, exact_sum)
    }

    /// The sums of all entities, and how many of their events in `held` lie below coverage, whatever the filter.
    async fn many_rows(
        &self,
        asks: &Asks,
        filter: Option<&Filter>,
        held: Window,
        view: &BatchView,
        snapshot: &Snapshot,
    ) -> Result<(Sums, u64), ServingError> {
        let names: Vec<String> = asks.entities.iter().map(|entity| quoted(entity)).collect();
        let mut only = format!("entity_id IN ({})", names.join(", "));
        if let Some(event_type) = &asks.event_type {
            only = format!("{only} AND event_type = {}", quoted(event_type));
        }
        let matches = filter.map_or_else(|| "true".to_owned(), Filter::to_sql);
        let query = format!(
            "SELECT entity_id, event_time, received_at, value, user_id, log_partition, log_offset, ({matches}) AS matches \
             FROM ({}) WHERE {}",
            first_copies(&only),
            within(held)
        );
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let events = self.pinned_table(Table::Events, files_of(snapshot, held))?;
        context.register_table("events", Arc::new(events))?;
        let (asks, coverage, limits) = (asks.clone(), view.coverage.clone(), self.engine.limits());
        let definition = Arc::clone(&self.parts.definition);
        let work = async move {
            let numbers: HashMap<&str, usize> =
                asks.entities.iter().enumerate().map(|(number, entity)| (entity.as_str(), number)).collect();
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            let mut stream = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
            let (mut sums, mut covered) = (asks.nothing(), 0_u64);
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|error| limits.of_query(&error))?;
                let ids = texts(&batch, "entity_id")?;
                covered += each_row(&batch, &coverage, &definition, |row, minute, cell| {
                    let own = numbers.get(ids.value(row)).and_then(|number| sums.get_mut(*number));
                    if let Some(own) = own {
                        asks.add(minute, cell, own);
                    }
                })?;
                check_steps(steps_of(&sums))?;
            }
            Ok((sums, covered))
        };
        self.engine.run(turn, work).await
    }
}
