//! Counts what windows hold. A window over all rows keeps them until the last has come, and DataFusion does not count
//! them: `sum(x) OVER (ORDER BY … ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)` took gigabytes, whatever the
//! limit of memory.

use std::sync::Arc;

use arrow::array::{Array as _, RecordBatch};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;

use super::around::{Around, Execute};

/// Steps that hold all rows and count none.
const HOLDS: &str = "WindowAggExec";

/// Puts a count of memory below every step that holds all rows and counts none.
#[derive(Debug)]
pub struct CountHeld;

impl PhysicalOptimizerRule for CountHeld {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = |step: Arc<dyn ExecutionPlan>| {
            if step.name() != HOLDS {
                return Ok(Transformed::no(step));
            }
            let below = step.children().into_iter().map(|input| Around::<Held>::step(Arc::clone(input))).collect();
            Ok::<_, DataFusionError>(Transformed::yes(replace_children_if_necessary(step, below)?))
        };
        plan.transform_up(counted).data()
    }

    fn name(&self) -> &'static str {
        "count_held"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The rows of a step, each counted as memory until all of it ends.
#[derive(Debug)]
struct Held;

impl Execute for Held {
    const NAME: &'static str = "Held";

    fn execute(
        step: &dyn ExecutionPlan,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new(format!("{HOLDS}[{partition}]")).register(context.memory_pool());
        let rows = step.execute(partition, context)?;
        let schema = rows.schema();
        let mut counter = RecordBatchMemoryCounter::new();
        let rows = rows.map(move |batch| {
            let batch = batch?;
            held.try_grow(bytes_held(&mut counter, &batch)?)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// Bytes of rows as they came, and once more where all of them are put together. Batches may be slices of one that is
/// larger, as those of a grouping are: what they share is there once.
fn bytes_held(counter: &mut RecordBatchMemoryCounter, batch: &RecordBatch) -> Result<usize> {
    let mut bytes = counter.count_batch(batch);
    for column in batch.columns() {
        bytes = bytes.saturating_add(column.to_data().get_slice_memory_size()?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use bytesize::ByteSize;
    use serde_json::json;

    use super::*;
    use crate::ServingError;
    use crate::testing::{Log, World};

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_window_holds_is_limited() {
        let mut world = World::new(Log(vec![vec![]]));
        world.settings.query_memory = ByteSize::mib(8);
        let serving = world.serve().await;
        let query = |rows: u64| {
            format!(
                "SELECT max(n) FROM (SELECT sum(value) OVER (ORDER BY value ROWS BETWEEN UNBOUNDED PRECEDING AND \
                 UNBOUNDED FOLLOWING) AS n FROM generate_series(1, {rows}))"
            )
        };
        let small = serving.sql(&query(1_000)).await.unwrap();
        assert_eq!(small.json_rows().unwrap(), [[json!(500_500)]]);
        let large = serving.sql(&query(10_000_000)).await.unwrap_err();
        assert!(matches!(large, ServingError::MemoryLimit { .. }), "{large}");
    }

    #[test]
    fn what_slices_share_is_counted_once() {
        let texts = (0..10_000).map(|n| format!("a text that is longer than a view, {n}"));
        let columns: [(&str, ArrayRef); 2] = [
            ("text", Arc::new(StringViewArray::from_iter_values(texts))),
            ("number", Arc::new(Int64Array::from_iter_values(0..10_000))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let whole = bytes_held(&mut RecordBatchMemoryCounter::new(), &batch).unwrap();
        assert!(whole >= 10_000 * (2 * (16 + 8) + 35), "{whole}");
        let mut counter = RecordBatchMemoryCounter::new();
        let slices = (0..100).map(|at| bytes_held(&mut counter, &batch.slice(at * 100, 100)).unwrap());
        assert_eq!(slices.sum::<usize>(), whole);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn shares_of_many_groups_fit() {
        let mut world = World::new(Log(vec![vec![]]));
        world.settings.query_memory = ByteSize::mib(128);
        let serving = world.serve().await;
        let query = "SELECT max(n) FROM (SELECT sum(count(*)) OVER () AS n FROM generate_series(1, 300000) \
                     GROUP BY value)";
        assert_eq!(serving.sql(query).await.unwrap().json_rows().unwrap(), [[json!(300_000)]]);
    }
}
