//! Reading only: whatever writes, sets or copies is refused before anything is done.

use std::collections::BTreeSet;

use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::dialect_from_str;

use super::{dropped, size};
use crate::ServingError;

const READ_ONLY: &str = "only reading is allowed: SELECT, EXPLAIN, DESCRIBE, SHOW TABLES and SHOW COLUMNS";

/// Parses one statement that reads.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn parse(context: &SessionContext, query: &str) -> Result<Statement, ServingError> {
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let spoken = dialect_from_str(dialect);
    if let Some(spoken) = &spoken {
        size::check_text(query, &**spoken)?;
    }
    let statement = state.sql_to_statement(query, &dialect).map_err(|error| {
        let message = error.strip_backtrace();
        ServingError::bad("query", message.lines().next().unwrap_or_default().trim())
    })?;
    if reads(&statement) {
        if let Some(spoken) = &spoken {
            dropped::check_text(query, &**spoken)?;
        }
        check(&state, &statement)?;
        return Ok(statement);
    }
    let text: String = statement.to_string().chars().take(80).collect();
    Err(ServingError::bad("query", format!("{READ_ONLY}; not {text:?}")))
}

/// Whether a statement can be planned, and is then done as it says.
fn check(state: &SessionState, statement: &Statement) -> Result<(), ServingError> {
    match statement {
        Statement::Statement(sql) => size::check_statement(sql).and_then(|()| dropped::check(state, sql)),
        Statement::Explain(explain) => check(state, &explain.statement),
        // These are refused.
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => Ok(()),
    }
}

fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(sql) => sql_reads(sql),
        Statement::Explain(explain) => reads(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn sql_reads(sql: &Sql) -> bool {
    match sql {
        Sql::Query(_) | Sql::ExplainTable { .. } | Sql::ShowTables { .. } | Sql::ShowColumns { .. } => true,
        Sql::Explain { statement, .. } => sql_reads(statement),
        _ => false,
    }
}

/// Looks for anything that writes in a plan (`SELECT … INTO`, say), and whether it is too large ([`size`]).
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn verify(plan: &LogicalPlan) -> Result<(), ServingError> {
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    // Before anything goes down a plan by calling itself.
    size::check_plan(plan)?;
    read_only.verify_plan(plan).map_err(|error| {
        let message = error.strip_backtrace();
        ServingError::bad("query", format!("{READ_ONLY}; {}", message.lines().next().unwrap_or_default()))
    })
}

/// The names of the tables that a statement mentions.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn tables(context: &SessionContext, statement: &Statement) -> Result<BTreeSet<String>, ServingError> {
    let references = context.state().resolve_table_references(statement);
    let references = references.map_err(|error| ServingError::bad("query", error.strip_backtrace()))?;
    Ok(references.iter().map(|reference| reference.table().to_owned()).collect())
}
