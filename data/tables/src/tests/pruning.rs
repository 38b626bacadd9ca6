//! Filters at the provider can save work and nothing else.

use std::sync::Arc;

use datafusion::catalog::TableProvider as _;
use datafusion::prelude::{SessionContext, col, lit};
use object_store::memory::InMemory;
use reckon_data::table::Table;

use super::NAMES;
use crate::conformance::file;
use crate::provider::PinnedTable;
use crate::schema::file_schema;

#[tokio::test]
async fn a_filter_that_cannot_be_planned_prunes_nothing() {
    let table = Table::StreamCounts;
    let mut files = vec![file(table, &NAMES, 1), file(table, &NAMES, 1)];
    for (file, start) in files.iter_mut().zip([0, 10]) {
        file.min.insert("segment_start".to_owned(), start.into());
        file.max.insert("segment_start".to_owned(), start.into());
    }
    let pinned = PinnedTable::new(Arc::new(InMemory::new()), table, files, file_schema(table)).unwrap();
    let state = SessionContext::new().state();
    for (filter, empty) in [
        (col("segment_start").eq(lit(10_i64)), false),
        (col("segment_start").eq(lit(11_i64)), true),
        (col("no_such_column").eq(lit(10_i64)), false),
    ] {
        let plan = pinned.scan(&state, None, std::slice::from_ref(&filter), None).await.unwrap();
        assert_eq!(plan.name() == "EmptyExec", empty, "{filter}");
    }
}
