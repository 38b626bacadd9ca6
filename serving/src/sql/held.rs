//! Counts what windows hold. A window over all rows keeps them until the last has come, and DataFusion does not count
//! them: `sum(x) OVER (ORDER BY … ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)` took gigabytes, whatever the
//! limit of memory.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt as _;

/// Steps that hold all rows and count none.
const HOLDS: &str = "WindowAggExec";
/// They hold each row as it came, and once more where all of them are put together.
const TIMES_HELD: usize = 2;

/// Puts a count of memory below every step that holds all rows and counts none.
#[derive(Debug)]
pub struct CountHeld;

impl PhysicalOptimizerRule for CountHeld {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let counted = |step: Arc<dyn ExecutionPlan>| {
            if step.name() != HOLDS {
                return Ok(Transformed::no(step));
            }
            let below = step
                .children()
                .into_iter()
                .map(|input| Arc::new(Held(Arc::clone(input))) as Arc<dyn ExecutionPlan>)
                .collect();
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

/// The rows of a plan, each counted as memory until all of it ends.
#[derive(Debug)]
struct Held(Arc<dyn ExecutionPlan>);

impl DisplayAs for Held {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

impl ExecutionPlan for Held {
    fn name(&self) -> &'static str {
        "Held"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut children = children.into_iter();
        match (children.next(), children.next()) {
            (Some(input), None) => Ok(Arc::new(Self(input))),
            _ => Err(DataFusionError::Internal("a count of memory stands on one plan".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new(format!("{HOLDS}[{partition}]")).register(context.memory_pool());
        let rows = self.0.execute(partition, context)?;
        let schema = rows.schema();
        let rows = rows.map(move |batch| {
            let batch = batch?;
            held.try_grow(batch.get_array_memory_size().saturating_mul(TIMES_HELD))?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytesize::ByteSize;
    use serde_json::json;

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
}
