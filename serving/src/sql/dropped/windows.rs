//! Names of windows: the planner looks them up in a query's columns and nowhere else, and those that are made of
//! others it makes of nothing.

use std::collections::HashSet;
use std::ops::ControlFlow::{self, Continue};

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, NamedWindowDefinition, NamedWindowExpr, Query, SelectItem, Visit as _, Visitor, WindowSpec,
    WindowType,
};

use super::{Found, unknown};

/// Refuses windows of a query that would be others, and adds the names that are looked up to `known`.
pub fn check(defined: &[NamedWindowDefinition], columns: &[SelectItem], known: &mut HashSet<*const Ident>) -> Found {
    for NamedWindowDefinition(_, window) in defined {
        match window {
            NamedWindowExpr::NamedWindow(_) => made_of_another(true)?,
            NamedWindowExpr::WindowSpec(window) => check_made(window)?,
        }
    }
    let mut names = Names::default();
    for item in columns {
        // In `* REPLACE (…)` they are not looked up.
        if let SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } = item {
            // It goes through all of it: nothing breaks off.
            let _ = expression.visit(&mut names);
        }
    }
    // There it would stand for this query's window, whatever it stands for in its own.
    let below = !defined.is_empty() && names.is_below;
    unknown(below, "the name of a window in a query that is a column", "write the window out there")?;
    known.extend(names.here);
    Continue(())
}

/// Refuses a window of a function that would be another one.
pub fn check_over(over: &WindowType, known: &HashSet<*const Ident>) -> Found {
    match over {
        WindowType::WindowSpec(window) => check_made(window),
        WindowType::NamedWindow(name) => {
            let is_known = known.contains(&std::ptr::from_ref(name));
            unknown(!is_known, "the name of a window outside a query's columns", "write the window out there")
        }
    }
}

fn check_made(window: &WindowSpec) -> Found {
    made_of_another(window.window_name.is_some())
}

fn made_of_another(is_there: bool) -> Found {
    unknown(is_there, "a window that is made of another one by its name", "write all of it out")
}

/// The names of windows in columns.
#[derive(Default)]
struct Names {
    /// So many queries around what is looked at.
    deep: usize,
    here: Vec<*const Ident>,
    /// Whether there are some in queries that are columns.
    is_below: bool,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.deep += 1;
        Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.deep = self.deep.saturating_sub(1);
        Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { over: Some(WindowType::NamedWindow(name)), .. }) = expression {
            if self.deep == 0 {
                self.here.push(name);
            } else {
                self.is_below = true;
            }
        }
        Continue(())
    }
}
