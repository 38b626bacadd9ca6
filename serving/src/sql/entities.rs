//! What is known of entities, as the table `entities`: one moment of it for a query, read as it is asked for.
//!
//! | column | is |
//! | --- | --- |
//! | `entity_id` | the entity |
//! | `title`, `channel`, `owner`, `url` | what is known of it; null where nothing is |
//! | `attributes` | anything else as JSON, names in order: `{"colour":"red"}` |
//! | `updated_at` | when it was last written, UTC |
//!
//! Of `entity_id = '…'`, `in (…)`, and of `channel = '…'`, only the records that are meant are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionContext;

use super::ahead::{BATCH_ROWS, made_ahead};
use crate::ServingError;
use crate::entities::{Entity, EntityError, Record, View, next_of};
use crate::query::{AsOf, Serving};

/// The table's name.
pub const ENTITIES: &str = "entities";
/// Bytes of the records of a batch.
const BATCH_BYTES: usize = 4 << 20;

/// Makes the table, if this process knows entities; of a query that does not name it, without rows.
///
/// # Errors
/// [`ServingError::BadRequest`] of `as_of` when it is named together with an older version, and when the records cannot be read.
pub async fn register(
    serving: &Serving,
    context: &SessionContext,
    names: &BTreeSet<String>,
    as_of: Option<AsOf>,
) -> std::result::Result<(), ServingError> {
    let Some(entities) = serving.entities() else { return Ok(()) };
    let is_named = names.contains(ENTITIES);
    if is_named && as_of.is_some() {
        let message = format!("{ENTITIES} is not kept as it was: leave as_of out, or join what is known now yourself");
        return Err(ServingError::bad("as_of", message));
    }
    let view = if is_named { Some(entities.view().await?) } else { None };
    context.register_table(ENTITIES, Arc::new(EntityTable { view, schema: schema() }))?;
    Ok(())
}

/// Names the table in the context of a query that is planned and not run: it is empty.
///
/// # Errors
/// Never in a context that has no table of its name.
pub fn describe(serving: &Serving, context: &SessionContext) -> std::result::Result<(), ServingError> {
    if serving.entities().is_some() {
        context.register_table(ENTITIES, Arc::new(EntityTable { view: None, schema: schema() }))?;
    }
    Ok(())
}

fn schema() -> SchemaRef {
    // Texts as views, like those of `stats`: joins need not make one into the other.
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8View, nullable);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        text("entity_id", false),
        text("title", true),
        text("channel", true),
        text("owner", true),
        text("url", true),
        text("attributes", false),
        Field::new("updated_at", time, false),
    ]))
}

/// The table.
#[derive(Debug, Clone)]
struct EntityTable {
    view: Option<View>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for EntityTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = Rows { table: self.clone(), only: Only::of(filters) };
        let streams: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(rows)];
        Ok(Arc::new(StreamingTableExec::try_new(self.schema(), streams, projection, None, false, limit)?))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Which records filters leave; never fewer than all that satisfy them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Only {
    entities: Option<BTreeSet<String>>,
    channel: Option<String>,
}

impl Only {
    fn of(filters: &[Expr]) -> Self {
        let mut only = Self::default();
        filters.iter().for_each(|filter| only.narrow(filter));
        only
    }

    fn narrow(&mut self, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left);
                self.narrow(right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                let (name, value) = (column(left).or(column(right)), text(right).or(text(left)));
                if let (Some(name), Some(value)) = (name, value) {
                    self.equal(name, value);
                }
            }
            Expr::InList(list) if !list.negated => {
                let values: Option<BTreeSet<String>> = list.list.iter().map(text).collect();
                if let (Some("entity_id"), Some(values)) = (column(&list.expr), values) {
                    self.one_of(values);
                }
            }
            _ => {}
        }
    }

    fn equal(&mut self, name: &str, value: String) {
        match name {
            "entity_id" => self.one_of(BTreeSet::from([value])),
            // Of two channels one is enough: the filter stays above.
            "channel" => self.channel = Some(value),
            _ => {}
        }
    }

    fn one_of(&mut self, values: BTreeSet<String>) {
        match &mut self.entities {
            Some(before) => before.retain(|value| values.contains(value)),
            None => self.entities = Some(values),
        }
    }

    /// The records, in order of their ids.
    fn records(self, view: View) -> Box<dyn Iterator<Item = std::result::Result<Record, EntityError>> + Send> {
        match self {
            Self { entities: Some(ids), .. } => {
                Box::new(ids.into_iter().filter_map(move |id| view.get(&id).transpose()))
            }
            Self { channel: Some(channel), .. } => {
                let ids = view.of_channel(&channel, None);
                Box::new(ids.filter_map(move |id| id.and_then(|id| view.get(&id)).transpose()))
            }
            Self { .. } => Box::new(view.after(None)),
        }
    }
}

fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(column.name()),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

/// The records that are wanted.
#[derive(Debug)]
struct Rows {
    table: EntityTable,
    only: Only,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.table.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, only) = (self.table.clone(), self.only.clone());
        made_ahead(&self.table.schema, |sender| async move {
            let Some(view) = table.view else { return Ok::<_, DataFusionError>(()) };
            let mut records = only.records(view);
            loop {
                let some = next_of(&mut records, BATCH_ROWS, BATCH_BYTES);
                let some = some.map_err(|error| DataFusionError::External(Box::new(error)))?;
                if some.is_empty() || sender.send(batch(&table.schema, some)).await.is_err() {
                    // That was all, or nobody reads any further.
                    return Ok(());
                }
            }
        })
    }
}

fn batch(schema: &SchemaRef, records: Vec<Record>) -> Result<RecordBatch> {
    let mut texts: [StringViewBuilder; 6] = std::array::from_fn(|_| StringViewBuilder::new());
    let mut times = TimestampMicrosecondBuilder::with_capacity(records.len());
    for Record { entity, .. } in records {
        let Entity { entity_id, title, channel, owner, url, attributes, updated_at } = entity;
        let attributes =
            serde_json::to_string(&attributes).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let row = [Some(entity_id), title, channel, owner, url, Some(attributes)];
        texts.iter_mut().zip(row).for_each(|(column, text)| column.append_option(text));
        times.append_value(updated_at);
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(texts.len() + 1);
    columns.extend(texts.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
    columns.push(Arc::new(times.finish().with_timezone("UTC")));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;
    use crate::entities::Condition;
    use crate::entities::testing::{Place, input};

    #[test]
    fn filters_narrow_what_is_read_and_never_too_much() {
        let only = Only::of(&[col("entity_id").eq(lit("a")).and(lit("x").eq(col("channel")))]);
        assert_eq!(only, Only { entities: Some(BTreeSet::from(["a".to_owned()])), channel: Some("x".to_owned()) });
        let only =
            Only::of(&[col("entity_id").in_list(vec![lit("a"), lit("b")], false), col("entity_id").eq(lit("b"))]);
        assert_eq!(only.entities, Some(BTreeSet::from(["b".to_owned()])));
        for wide in [
            col("entity_id").eq(lit("a")).or(col("channel").eq(lit("x"))),
            col("entity_id").not_eq(lit("a")),
            col("entity_id").in_list(vec![lit("a")], true),
            col("title").eq(lit("a")),
        ] {
            assert_eq!(Only::of(&[wide]), Only::default());
        }
    }

    #[tokio::test]
    async fn a_query_sees_one_moment() {
        let place = Place::new();
        let entities = place.start().await;
        for (entity, channel) in [("a", Some("x")), ("b", None), ("c", Some("x"))] {
            entities.put(entity.to_owned(), input(channel), Condition::Any).await.unwrap();
        }
        let context = SessionContext::new();
        let view = Some(entities.view().await.unwrap());
        context.register_table(ENTITIES, Arc::new(EntityTable { view, schema: schema() })).unwrap();
        entities.delete("a".to_owned(), Condition::Any).await.unwrap();
        for (filter, rows) in [
            ("true", 3),
            ("entity_id = 'a'", 1),
            ("entity_id in ('a', 'b', 'nobody')", 2),
            ("channel = 'x'", 2),
            ("channel = 'x' and entity_id = 'b'", 0),
            ("channel = 'nobody'", 0),
            ("channel = repeat('x', 100000)", 0),
            ("entity_id = repeat('x', 100000)", 0),
            ("channel is null", 1),
        ] {
            let frame = context.sql(&format!("select * from entities where {filter}")).await.unwrap();
            assert_eq!(frame.count().await.unwrap(), rows, "{filter}");
        }
    }
}
