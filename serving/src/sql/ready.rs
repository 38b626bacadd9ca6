//! From a text to a plan: what [`Serving::sql`], [`Serving::sql_prepare`] and [`Serving::sql_stream`] share.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;

use super::engine::Limits;
use super::gone::Noted;
use super::pin::Pinned;
use super::reserved::Hidden;
use super::{QUERY_BYTES_MAX, SqlOptions, entities, guard};
use crate::ServingError;
use crate::query::{AsOf, Serving};
use crate::view::Provenance;

/// Most parameters of a query: as many as the PostgreSQL protocol can count.
const PARAMETERS_MAX: usize = 65_535;
/// What DataFusion makes of `x = ANY(list)`: this function, of the list and `x`.
const HAS: &str = "array_has";

/// A query with all that it needs to be planned and run.
pub(super) struct Ready {
    context: SessionContext,
    statement: Statement,
    pub(super) provenance: Provenance,
    /// What the provenance is to say besides, once the query is planned.
    pub(super) gone: Noted,
}

/// A text that is a query, and the tables that it names.
struct Parsed {
    context: SessionContext,
    statement: Statement,
    names: BTreeSet<String>,
}

impl Serving {
    /// Pins what a query reads, and names it in a context of its own.
    pub(super) async fn ready(
        &self,
        query: &str,
        parameters: &[ScalarValue],
        options: SqlOptions<'_>,
    ) -> Result<Ready, ServingError> {
        let parsed = self.parsed(query)?;
        let pinned = match options.as_of {
            None => self.pin(&parsed.names).await?,
            Some(as_of) => self.pin_past(&parsed.names, as_of).await?,
        };
        entities::register(self, &parsed.context, &parsed.names, options.as_of).await?;
        self.dressed(parsed, &pinned, parameters, options)
    }

    /// The same for a query that is planned and not run: nothing is read for it.
    pub(super) fn ready_to_plan(&self, query: &str, as_of: Option<AsOf>) -> Result<Ready, ServingError> {
        let parsed = self.parsed(query)?;
        let pinned = self.pin_nothing(&parsed.names, as_of)?;
        entities::describe(self, &parsed.context)?;
        self.dressed(parsed, &pinned, &[], SqlOptions::default())
    }

    fn parsed(&self, query: &str) -> Result<Parsed, ServingError> {
        if query.len() > QUERY_BYTES_MAX {
            let message = format!("it has {} bytes, the limit is {QUERY_BYTES_MAX}", query.len());
            return Err(ServingError::bad("query", message));
        }
        let context = self.engine.context()?;
        let statement = guard::parse(&context, query)?;
        let names = guard::tables(&context, &statement)?;
        Ok(Parsed { context, statement, names })
    }

    fn dressed(
        &self,
        Parsed { context, statement, names }: Parsed,
        pinned: &Pinned,
        parameters: &[ScalarValue],
        options: SqlOptions<'_>,
    ) -> Result<Ready, ServingError> {
        let provenance = self.provenance_of(pinned);
        let hidden = Hidden::from(&self.parts.definition, &statement, parameters);
        self.dress(&context, (pinned, &hidden), &names, options.samples)?;
        self.catalogue.install(&context, &statement.to_string())?;
        Ok(Ready { context, statement, provenance, gone: pinned.gone.clone() })
    }
}

impl Ready {
    /// Its plan, which only reads; parameters are not bound yet.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`] of `query`.
    pub(super) async fn plan(self, limits: Limits) -> Result<(SessionContext, LogicalPlan), ServingError> {
        let Self { context, statement, .. } = self;
        let plan = context.state().statement_to_plan(statement).await.map_err(|error| limits.of_query(&error))?;
        guard::verify(&plan)?;
        Ok((context, plan))
    }
}

/// The types of a plan's parameters, `$1` first; none where the query does not say.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query` when one is used as two types, or has no number.
pub(super) fn parameters_of(plan: &LogicalPlan, limits: Limits) -> Result<Vec<Option<DataType>>, ServingError> {
    let mut types = plan.get_parameter_types().map_err(|error| limits.of_query(&error))?;
    // What LIMIT and OFFSET take DataFusion knows and does not say.
    let numbers = plan.apply_with_subqueries(|step| {
        if let LogicalPlan::Limit(limit) = step {
            for expr in [&limit.skip, &limit.fetch].into_iter().flatten() {
                if let Expr::Placeholder(parameter) = &**expr {
                    types.entry(parameter.id.clone()).or_default().get_or_insert(DataType::Int64);
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    numbers.map_err(|error| limits.of_query(&error))?;
    let lists = plan.apply_with_subqueries(|step| lists_of(step, &mut types));
    lists.map_err(|error| limits.of_query(&error))?;
    let count = highest(types.keys())?;
    Ok((1..=count).map(|number| types.remove(&format!("${number}")).flatten()).collect())
}

/// Notes the types of the parameters of a step that stand behind `= ANY`: lists of what is compared with them.
fn lists_of(
    step: &LogicalPlan,
    types: &mut HashMap<String, Option<DataType>>,
) -> Result<TreeNodeRecursion, DataFusionError> {
    let schema = merge_schema(&step.inputs());
    step.apply_expressions(|expr| {
        expr.apply(|expr| {
            if let Expr::ScalarFunction(function) = expr
                && function.name() == HAS
                && let [Expr::Placeholder(parameter), compared] = function.args.as_slice()
                && let Ok(of) = compared.get_type(&schema)
            {
                let list = DataType::new_list(if of.is_string() { DataType::Utf8 } else { of }, true);
                types.entry(parameter.id.clone()).or_default().get_or_insert(list);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })
}

/// The plan with values in the place of its parameters.
///
/// # Errors
/// [`ServingError::BadRequest`] of `parameters` when there are more or fewer than the query has.
pub(super) fn bind(
    plan: LogicalPlan,
    parameters: Vec<ScalarValue>,
    limits: Limits,
) -> Result<LogicalPlan, ServingError> {
    let names: HashSet<String> = plan.get_parameter_names().map_err(|error| limits.of_query(&error))?;
    let count = highest(names.iter())?;
    if count != parameters.len() {
        let message = format!("the query has {count} ($1, $2, …), and {} values were given", parameters.len());
        return Err(ServingError::bad("parameters", message));
    }
    if count == 0 {
        return Ok(plan);
    }
    plan.with_param_values(parameters).map_err(|error| limits.of_query(&error))
}

/// The highest number of these parameters.
fn highest<'a>(names: impl Iterator<Item = &'a String>) -> Result<usize, ServingError> {
    let number = |name: &str| {
        name.strip_prefix('$')?.parse::<usize>().ok().filter(|number| (1..=PARAMETERS_MAX).contains(number))
    };
    let mut highest = 0;
    for name in names {
        highest = number(name).ok_or_else(|| no_parameter(name))?.max(highest);
    }
    Ok(highest)
}

fn no_parameter(name: &str) -> ServingError {
    ServingError::bad("query", format!("{name} is no parameter: they are $1, $2 and so on, up to ${PARAMETERS_MAX}"))
}
