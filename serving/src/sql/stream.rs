//! The stream layer's runs as a table. Batches are made as they are read, and only of rows that filters
//! on entity, type and minute leave.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use reckon_data::definition::Definition;
use reckon_data::minute::{MICROS_PER_MINUTE, minute_of};
use reckon_data::run::{Dimension, Granularity, Run, RunBuilder, RunError, count_fields};

use super::ahead::{BATCH_ROWS, made_ahead};

/// The stream layer's runs as a table of the count columns, minutes rounded down to steps.
#[derive(Debug, Clone)]
pub struct StreamTable {
    runs: Arc<[Arc<Run>]>,
    dimensions: Arc<[Dimension]>,
    definition: u64,
    granularity: Granularity,
    schema: SchemaRef,
}

impl StreamTable {
    /// A table of all rows of `runs`; rows of equal keys are not put together.
    ///
    /// # Errors
    /// Never.
    pub fn new(runs: Vec<Arc<Run>>, definition: &Definition, granularity: Granularity) -> Result<Self> {
        let fields = count_fields().into_iter().map(|field| {
            // Texts as views, like those of the files.
            let of = match field.data_type() {
                DataType::Utf8 => DataType::Utf8View,
                DataType::Binary => DataType::BinaryView,
                other => other.clone(),
            };
            field.with_data_type(of)
        });
        Ok(Self {
            runs: runs.into(),
            dimensions: definition.dimensions.clone().into(),
            definition: definition.version(),
            granularity,
            schema: Arc::new(Schema::new(fields.collect::<Vec<Field>>())),
        })
    }

    /// Whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.is_empty())
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let only = Arc::new(Only::of(filters, self.granularity));
        let near: Vec<Arc<Run>> = self.runs.iter().filter(|run| only.may_match(run)).cloned().collect();
        let partitions = state.config().target_partitions().max(1);
        let mut shares: Vec<Vec<Arc<Run>>> = vec![Vec::new(); partitions.min(near.len()).max(1)];
        let count = shares.len();
        for (at, run) in near.into_iter().enumerate() {
            shares[at % count].push(run);
        }
        let streams = shares.into_iter().map(|runs| {
            Arc::new(Share { table: self.clone(), runs, only: Arc::clone(&only) }) as Arc<dyn PartitionStream>
        });
        let exec = StreamingTableExec::try_new(self.schema(), streams.collect(), projection, None, false, limit)?;
        Ok(Arc::new(exec))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Some of the runs, read one after the other.
#[derive(Debug)]
struct Share {
    table: StreamTable,
    runs: Vec<Arc<Run>>,
    only: Arc<Only>,
}

impl PartitionStream for Share {
    fn schema(&self) -> &SchemaRef {
        &self.table.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, runs, only) = (self.table.clone(), self.runs.clone(), Arc::clone(&self.only));
        made_ahead(&self.table.schema, |sender| async move {
            for run in runs {
                let run = only.apply(&run).map_err(external)?.map_or(run, Arc::new);
                let batches = run.batches(&table.dimensions, table.definition, BATCH_ROWS).map_err(external)?;
                for batch in batches {
                    let batch = batch.map_err(external).and_then(|batch| table.shape(&batch));
                    if sender.send(batch).await.is_err() {
                        // Nobody reads any further.
                        return Ok(());
                    }
                }
            }
            Ok::<_, DataFusionError>(())
        })
    }
}

impl StreamTable {
    fn shape(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let steps = self.granularity.steps();
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if steps > 1 && field.name() == "minute" {
                return Ok(rounded_down(column, self.granularity));
            }
            Ok(cast(column, field.data_type())?)
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?)
    }
}

/// Times, rounded down to steps.
pub(super) fn rounded_down(times: &ArrayRef, granularity: Granularity) -> ArrayRef {
    let step = MICROS_PER_MINUTE * granularity.steps();
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let rounded: TimestampMicrosecondArray = times.unary(|micros| micros.div_euclid(step) * step);
    Arc::new(rounded.with_timezone("UTC"))
}

fn external(error: RunError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What filters say of entity, type and minute; never less than all rows that satisfy them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Only {
    entities: Option<Vec<String>>,
    types: Option<Vec<String>>,
    minutes: Range<i64>,
}

impl Only {
    fn of(filters: &[Expr], granularity: Granularity) -> Self {
        let mut only = Self { entities: None, types: None, minutes: i64::MIN..i64::MAX };
        filters.iter().for_each(|filter| only.narrow(filter, granularity));
        only
    }

    fn narrow(&mut self, filter: &Expr, granularity: Granularity) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left, granularity);
                self.narrow(right, granularity);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                match (column(left), literal(right), column(right), literal(left)) {
                    (Some(name), Some(value), ..) => self.compare(name, *op, value, granularity),
                    (_, _, Some(name), Some(value)) => {
                        if let Some(op) = op.swap() {
                            self.compare(name, op, value, granularity);
                        }
                    }
                    _ => {}
                }
            }
            Expr::InList(list) if !list.negated => {
                let values: Option<Vec<String>> = list.list.iter().map(|value| literal(value).and_then(text)).collect();
                if let (Some(name), Some(values)) = (column(&list.expr), values) {
                    self.one_of(name, values);
                }
            }
            Expr::Between(between) if !between.negated => {
                if let (Some(name), Some(low), Some(high)) =
                    (column(&between.expr), literal(&between.low), literal(&between.high))
                {
                    self.compare(name, Operator::GtEq, low, granularity);
                    self.compare(name, Operator::LtEq, high, granularity);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, name: &str, op: Operator, value: &ScalarValue, granularity: Granularity) {
        if name == "minute" {
            let Some(micros) = micros(value) else { return };
            // A row's step starts in the minute that its time rounds down to.
            let (lowest, highest) = (minute_of(micros), minute_of(micros).saturating_add(granularity.steps()));
            match op {
                Operator::Gt | Operator::GtEq => self.minutes.start = self.minutes.start.max(lowest),
                Operator::Lt | Operator::LtEq => self.minutes.end = self.minutes.end.min(highest),
                Operator::Eq => {
                    self.minutes.start = self.minutes.start.max(lowest);
                    self.minutes.end = self.minutes.end.min(highest);
                }
                _ => {}
            }
        } else if op == Operator::Eq
            && let Some(value) = text(value)
        {
            self.one_of(name, vec![value]);
        }
    }

    fn one_of(&mut self, name: &str, values: Vec<String>) {
        let own = match name {
            "entity_id" => &mut self.entities,
            "event_type" => &mut self.types,
            _ => return,
        };
        match own {
            Some(before) => before.retain(|value| values.contains(value)),
            None => *own = Some(values),
        }
    }

    fn may_match(&self, run: &Run) -> bool {
        let minutes =
            run.minute_range().is_some_and(|own| own.start < self.minutes.end && self.minutes.start < own.end);
        let types =
            self.types.as_ref().is_none_or(|types| run.event_types().any(|own| types.iter().any(|name| name == own)));
        minutes && types
    }

    /// The rows of a run that may satisfy the filters; none when that is all of them.
    fn apply(&self, run: &Run) -> Result<Option<Run>, RunError> {
        let within =
            run.minute_range().is_none_or(|own| self.minutes.start <= own.start && own.end <= self.minutes.end);
        if self.entities.is_none() && self.types.is_none() && within {
            return Ok(None);
        }
        let wanted = |names: &Option<Vec<String>>, name: &str| {
            names.as_ref().is_none_or(|names| names.iter().any(|n| n == name))
        };
        let (mut builder, mut failed) = (RunBuilder::new(), None);
        run.for_each(self.minutes.clone(), |row| {
            if failed.is_none() && wanted(&self.entities, row.entity) && wanted(&self.types, row.event_type) {
                let dims: Vec<Option<&str>> = row.dims.iter().map(Option::as_deref).collect();
                failed = builder.add(row.entity_hash, row.entity, row.event_type, row.minute, &dims, &row.cell()).err();
            }
        });
        match failed {
            Some(error) => Err(error),
            None => builder.finish().map(Some),
        }
    }
}

fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(column.name()),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

fn micros(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampMicrosecond(micros, _) => *micros,
        ScalarValue::TimestampSecond(seconds, _) => seconds.and_then(|seconds| seconds.checked_mul(1_000_000)),
        ScalarValue::TimestampMillisecond(millis, _) => millis.and_then(|millis| millis.checked_mul(1_000)),
        ScalarValue::TimestampNanosecond(nanos, _) => nanos.map(|nanos| nanos.div_euclid(1_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn minute(micros: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
    }

    #[test]
    fn filters_narrow_what_is_read_and_never_too_much() {
        let filters = [
            col("entity_id").eq(lit("a")).and(col("event_type").in_list(vec![lit("view"), lit("like")], false)),
            col("minute").gt_eq(minute(60_000_000)).and(minute(180_000_000).gt(col("minute"))),
            col("country").eq(lit("US")),
        ];
        let only = Only::of(&filters, Granularity::Minute);
        assert_eq!(only.entities, Some(vec!["a".to_owned()]));
        assert_eq!(only.types, Some(vec!["view".to_owned(), "like".to_owned()]));
        assert_eq!(only.minutes, 1..4);
        assert_eq!(Only::of(&filters, Granularity::Hour).minutes, 1..63);
        let either =
            [col("entity_id").eq(lit("a")).or(col("entity_id").eq(lit("b"))), col("entity_id").not_eq(lit("c"))];
        assert_eq!(Only::of(&either, Granularity::Minute).entities, None);
        let contrary = [col("entity_id").eq(lit("a")), col("entity_id").eq(lit("b"))];
        assert_eq!(Only::of(&contrary, Granularity::Minute).entities, Some(vec![]));
    }
}
