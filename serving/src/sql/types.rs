//! Types of SQL that DataFusion takes for narrower ones than PostgreSQL does: its FLOAT has 24 bits, so sums above
//! 16,777,216 would be rounded.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo};

/// Most bits of PostgreSQL's smaller FLOAT.
const REAL_BITS: u64 = 24;

/// PostgreSQL's types, behind those that another planner knows.
#[derive(Debug, Default)]
pub struct Types(pub Option<Arc<dyn TypePlanner>>);

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        if let Some(before) = &self.0
            && let Some(field) = before.plan_type_field(sql_type)?
        {
            return Ok(Some(field));
        }
        Ok(is_double(sql_type).then(|| Arc::new(Field::new("", DataType::Float64, true))))
    }
}

const fn is_double(sql_type: &SqlType) -> bool {
    match sql_type {
        SqlType::Float(ExactNumberInfo::None) => true,
        SqlType::Float(ExactNumberInfo::Precision(bits) | ExactNumberInfo::PrecisionAndScale(bits, _)) => {
            *bits > REAL_BITS
        }
        _ => false,
    }
}
