//! Keeps nested-loop joins from going on without memory. When the left side of one does not fit, DataFusion 55 reads it
//! a second time and joins it piece by piece; then `a LEFT JOIN b ON a.x > b.y` gives rows of `a` once for every
//! partition of `b`, a wrong count that looks right, and a left side that passes a `RepartitionExec` panics, as that can
//! be read only once. It does so only where it may write files, so here the join may not, and the query ends with the error
//! that says how much memory it may take.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::NestedLoopJoinExec;

use super::around::{Around, Execute};

/// Puts an [`Unspilled`] around every nested-loop join, and a [`Spilled`] around what it reads.
#[derive(Debug)]
pub struct KeepInMemory;

impl PhysicalOptimizerRule for KeepInMemory {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = |step: Arc<dyn ExecutionPlan>| {
            if !step.is::<NestedLoopJoinExec>() {
                return Ok::<_, DataFusionError>(Transformed::no(step));
            }
            let below = step.children().into_iter().map(|input| Around::<Spilled>::step(Arc::clone(input))).collect();
            Ok(Transformed::yes(Around::<Unspilled>::step(replace_children_if_necessary(step, below)?)))
        };
        plan.transform_up(kept).data()
    }

    fn name(&self) -> &'static str {
        "keep_in_memory"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A step that may not write files.
#[derive(Debug)]
struct Unspilled;

impl Execute for Unspilled {
    const NAME: &'static str = "Unspilled";

    fn execute(
        step: &dyn ExecutionPlan,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let files = context.runtime_env();
        let no_files = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let without = RuntimeEnvBuilder::from_runtime_env(&files).with_disk_manager_builder(no_files).build_arc()?;
        step.execute(partition, Arc::new(with(&context, without, files)))
    }
}

/// A step below one that may not write files, that may.
#[derive(Debug)]
struct Spilled;

impl Execute for Spilled {
    const NAME: &'static str = "Spilled";

    fn execute(
        step: &dyn ExecutionPlan,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let files = context.session_config().get_extension::<RuntimeEnv>();
        let files = files.ok_or_else(|| DataFusionError::Internal("it stands below no join".to_owned()))?;
        step.execute(partition, Arc::new(with(&context, Arc::clone(&files), files)))
    }
}

/// The same context in another environment, which knows what has the files.
fn with(context: &TaskContext, runtime: Arc<RuntimeEnv>, files: Arc<RuntimeEnv>) -> TaskContext {
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone().with_extension(files),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        runtime,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use bytesize::ByteSize;
    use serde_json::json;

    use crate::ServingError;
    use crate::testing::{Log, World};

    /// DataFusion answers the first with its rows twice, and panics at the second.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_join_whose_left_side_does_not_fit_is_an_error() {
        let mut world = World::new(Log(vec![vec![]]));
        world.settings.query_memory = ByteSize::mib(8);
        let serving = world.serve().await;
        let left = |rows: u64| {
            format!(
                "SELECT count(*) FROM generate_series(1, {rows}) a LEFT JOIN (SELECT 1 AS v UNION ALL SELECT 2) b \
                 ON a.value + b.v < 0"
            )
        };
        let sums = |rows: u64| {
            format!(
                "SELECT count(*) FROM generate_series(1, {rows}) a, generate_series(1, 1000) b, \
                 generate_series(1, 10) c WHERE a.value + b.value + c.value = 7"
            )
        };
        for (query, few, answer, many) in
            [(&left as &dyn Fn(u64) -> String, 1_000, 1_000, 2_000_000), (&sums, 10, 15, 1_000)]
        {
            let small = serving.sql(&query(few)).await.unwrap();
            assert_eq!(small.json_rows().unwrap(), [[json!(answer)]], "{}", query(few));
            match serving.sql(&query(many)).await {
                Err(ServingError::MemoryLimit { limit_bytes: 8_388_608, .. }) => {}
                other => panic!("{}: {other:?}", query(many)),
            }
        }
    }

    /// Only the join goes without files.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_stands_above_and_below_a_join_may_spill() {
        let mut world = World::new(Log(vec![vec![]]));
        world.settings.query_memory = ByteSize::mib(8);
        let serving = world.serve().await;
        let above = "SELECT count(*), sum(n) FROM (SELECT a.value % 300000 AS k, count(*) AS n FROM \
                     (SELECT 1 AS v) b JOIN generate_series(1, 1000000) a ON a.value + b.v > 0 GROUP BY 1)";
        let below = "SELECT count(*), sum(a.n) FROM (SELECT 0 AS v) b JOIN (SELECT value % 300000 AS k, \
                     count(*) AS n FROM generate_series(1, 1000000) GROUP BY 1) a ON a.n > b.v";
        for query in [above, below] {
            let answer = serving.sql(query).await.unwrap();
            assert_eq!(answer.json_rows().unwrap(), [[json!(300_000), json!(1_000_000)]], "{query}");
            let done = serving.sql(&format!("EXPLAIN ANALYZE {query}")).await.unwrap().json_rows().unwrap();
            let done = json!(done).to_string();
            assert!(done.contains("Unspilled"), "{done}");
            assert!(done.split("spill_count=").skip(1).any(|spills| !spills.starts_with('0')), "{done}");
        }
    }

    /// Each step of a recursion plans its joins anew.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_recursion_may_join() {
        let serving = World::new(Log(vec![vec![]])).serve().await;
        let query = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT r.n + b.v FROM r \
                     JOIN (VALUES (1), (2)) AS b(v) ON r.n < b.v + 2) SELECT count(*), sum(n) FROM r";
        assert_eq!(serving.sql(query).await.unwrap().json_rows().unwrap(), [[json!(7), json!(23)]]);
    }
}
