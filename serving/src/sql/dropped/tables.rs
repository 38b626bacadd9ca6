//! What stands with tables and joins.

use std::ops::ControlFlow::Continue;

use datafusion::sql::sqlparser::ast::{
    FunctionArg, Join, JoinConstraint, JoinOperator, SelectItem, TableAlias, TableAliasColumnDef, TableFactor,
    TableFunctionArgs, TableWithJoins,
};

use super::{Found, unknown};

/// Refuses what is left out of a table.
pub fn check(table: &TableFactor) -> Found {
    match table {
        TableFactor::Table {
            name: _,
            alias,
            args,
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
            let set = |TableFunctionArgs { args: _, settings }: &TableFunctionArgs| settings.is_some();
            unknown(args.as_ref().is_some_and(set), "SETTINGS of a function", "leave them out")?;
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

/// How a join treats rows without a partner.
#[derive(PartialEq)]
enum Kept {
    /// It drops them, or says of one side whether there are any.
    None,
    Left,
    /// Those of the right side, or of both: the planner takes a column of USING from the left side, where it is null.
    Right,
}

/// What a join does, and on which condition; nothing of joins that the planner says that it does not know.
const fn kind(join: &Join) -> Option<(Kept, &JoinConstraint, bool)> {
    let Join { relation: _, global: _, join_operator } = join;
    Some(match join_operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) | JoinOperator::StraightJoin(constraint) => {
            (Kept::None, constraint, true)
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (Kept::Left, constraint, false),
        JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => (Kept::Right, constraint, false),
        JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => (Kept::None, constraint, false),
        _ => return None,
    })
}

/// Refuses joins that would be of all rows with all: those without ON, and of those that are not inner ones the NATURAL
/// ones, which have no condition where no column is on both sides. And those whose columns of USING would be null.
pub fn check_joins(joins: &[Join]) -> Found {
    joins.iter().filter_map(kind).try_for_each(|(kept, constraint, is_inner)| {
        unknown(*constraint == JoinConstraint::None, "JOIN without ON or USING", "write CROSS JOIN for all with all")?;
        let is_natural = *constraint == JoinConstraint::Natural && !is_inner;
        unknown(is_natural, "NATURAL with joins that are not inner ones", "write ON a.x = b.x")?;
        unknown(
            kept == Kept::Right && matches!(constraint, JoinConstraint::Using(_)),
            "USING with RIGHT or FULL JOIN",
            "write ON a.x = b.x, and coalesce(a.x, b.x) for the column",
        )
    })
}

/// Refuses all columns of a LEFT JOIN with USING: of the two columns with one name, that of the table is taken whose name
/// comes first in the alphabet, which may be the one with the nulls.
pub fn check_all_columns(columns: &[SelectItem], from: &[TableWithJoins]) -> Found {
    let is_all = columns.iter().any(|column| matches!(column, SelectItem::Wildcard(_)));
    unknown(
        is_all && from.iter().any(may_lack),
        "* with LEFT JOIN and USING",
        "name the columns, or write ON a.x = b.x",
    )
}

/// Whether one of two columns of USING may be null.
fn may_lack(tables: &TableWithJoins) -> bool {
    let nested = |table: &TableFactor| match table {
        TableFactor::NestedJoin { table_with_joins, alias: _ } => may_lack(table_with_joins),
        _ => false,
    };
    let lacks =
        |join: &Join| nested(&join.relation) || matches!(kind(join), Some((Kept::Left, JoinConstraint::Using(_), _)));
    nested(&tables.relation) || tables.joins.iter().any(lacks)
}
