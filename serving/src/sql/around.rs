//! Steps that stand around another one, change how it is executed, and nothing else of it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// How a step is executed. It gives the same rows in the same order, or an error.
pub trait Execute: fmt::Debug + Send + Sync + 'static {
    /// Its name in `EXPLAIN`.
    const NAME: &'static str;

    /// Executes a partition of the step.
    ///
    /// # Errors
    /// Those of the step, and its own.
    fn execute(
        step: &dyn ExecutionPlan,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream>;
}

/// A step that is executed as `E` does.
#[derive(Debug)]
pub struct Around<E> {
    step: Arc<dyn ExecutionPlan>,
    how: PhantomData<E>,
}

impl<E: Execute> Around<E> {
    /// Puts it around a step.
    pub fn step(step: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { step, how: PhantomData })
    }
}

impl<E: Execute> DisplayAs for Around<E> {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => f.write_str(E::NAME),
            // The name stands above what is written here.
            DisplayFormatType::TreeRender => Ok(()),
        }
    }
}

impl<E: Execute> ExecutionPlan for Around<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.step.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.step]
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
            (Some(step), None) => Ok(Self::step(step)),
            _ => Err(DataFusionError::Internal(format!("{} stands around one step", E::NAME))),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        E::execute(&*self.step, partition, context)
    }
}
