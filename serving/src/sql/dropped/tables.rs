//! What stands with tables and joins.

use std::ops::ControlFlow::Continue;

use datafusion::sql::sqlparser::ast::{
    FunctionArg, Join, JoinConstraint, JoinOperator, TableAlias, TableAliasColumnDef, TableFactor,
};

use super::{Found, unknown};

/// Refuses what is left out of a table.
pub fn check(table: &TableFactor) -> Found {
    match table {
        TableFactor::Table {
            name: _,
            alias,
            args: _,
            with_hints: _,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints: _,
        } => {
            let part = version.is_some() || !partitions.is_empty() || json_path.is_some();
            unknown(part, "a partition, version or path of a table", "write WHERE, or ask with as_of")?;
            check_sample(sample.is_some())?;
            check_ordinality(*with_ordinality)?;
            check_alias(alias.as_ref())
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            check_sample(sample.is_some())?;
            check_alias(alias.as_ref())
        }
        TableFactor::Function { lateral: _, name: _, args, with_ordinality, alias } => {
            let named = args.iter().any(|argument| !matches!(argument, FunctionArg::Unnamed(_)));
            unknown(named, "the name of an argument here", "write the arguments in their order")?;
            check_ordinality(*with_ordinality)?;
            check_alias(alias.as_ref())
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            check_joins(&table_with_joins.joins)?;
            check_alias(alias.as_ref())
        }
        TableFactor::TableFunction { expr: _, alias } | TableFactor::UNNEST { alias, .. } => {
            check_alias(alias.as_ref())
        }
        // The planner says that it does not know them.
        _ => Continue(()),
    }
}

fn check_sample(is_there: bool) -> Found {
    unknown(is_there, "TABLESAMPLE", "a query counts all rows")
}

fn check_ordinality(is_there: bool) -> Found {
    unknown(is_there, "WITH ORDINALITY", "write row_number() OVER ()")
}

/// Types of columns change nothing: texts would stay texts, and be sorted as such.
pub fn check_alias(alias: Option<&TableAlias>) -> Found {
    let is_typed = |column: &TableAliasColumnDef| column.data_type.is_some();
    let typed = alias.is_some_and(|alias| alias.columns.iter().any(is_typed));
    unknown(typed, "the type of a column in AS", "write CAST(… AS …) where it is made")
}

/// Refuses joins that would be of all rows with all: those without ON, and of those that keep rows without a partner the
/// NATURAL ones, which have no condition where no column is on both sides.
pub fn check_joins(joins: &[Join]) -> Found {
    joins.iter().try_for_each(|join| {
        let Join { relation: _, global: _, join_operator } = join;
        let (constraint, is_inner) = match join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::StraightJoin(constraint) => (constraint, true),
            JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint)
            | JoinOperator::Semi(constraint)
            | JoinOperator::LeftSemi(constraint)
            | JoinOperator::RightSemi(constraint)
            | JoinOperator::Anti(constraint)
            | JoinOperator::LeftAnti(constraint)
            | JoinOperator::RightAnti(constraint) => (constraint, false),
            // The planner says that it does not know the others.
            _ => return Continue(()),
        };
        unknown(*constraint == JoinConstraint::None, "JOIN without ON or USING", "write CROSS JOIN for all with all")?;
        let is_natural = *constraint == JoinConstraint::Natural && !is_inner;
        unknown(is_natural, "NATURAL with joins that are not inner ones", "name the columns with USING (…)")
    })
}
