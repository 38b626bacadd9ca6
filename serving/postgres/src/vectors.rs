//! Lists in the catalogue: the columns of an index or a key. PostgreSQL has them as vectors and arrays; our catalogue has
//! their texts, of which lists are made here where a question takes them for such.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Select, SelectItem, Statement,
    Subscript, VisitMut as _, VisitorMut, visit_expressions_mut,
};

use crate::scalar::expression;

/// Vectors, `1 2`: what is in them is counted from 0. JDBC has its own name for one of them.
const VECTORS: [&str; 5] = ["indkey", "indoption", "indclass", "indcollation", "i_indoption"];
/// Arrays, `[1, 2]`: from 1.
const ARRAYS: [&str; 2] = ["conkey", "confkey"];
/// Functions whose first argument is a list.
const OF_LISTS: [&str; 4] = ["array_contains", "array_length", "cardinality", "unnest"];
/// What makes rows of a vector.
const EXPAND: &str = "_pg_expandarray";

/// Makes lists of all of them, and rows of what is expanded to rows.
pub fn make_lists(statement: &mut Statement) {
    let _ = visit_expressions_mut(statement, |expr| {
        let made = match expr {
            Expr::CompoundFieldAccess { root, access_chain } => accessed(root, access_chain),
            Expr::Function(function) => of_list(function),
            _ => None,
        };
        if let Some(made) = made {
            *expr = made;
        }
        ControlFlow::<()>::Continue(())
    });
}

/// `indkey[0]`, and `(keys).x`, a part of what has several.
fn accessed(root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
    if let (Expr::Nested(whole), [AccessExpr::Dot(Expr::Identifier(part))]) = (root, chain) {
        return expression(&format!("get_field({whole}, '{}')", folded(part).replace('\'', "''")));
    }
    let (AccessExpr::Subscript(Subscript::Index { index }), names) = chain.split_last()? else { return None };
    let mut column = root.to_string();
    for name in names {
        let AccessExpr::Dot(Expr::Identifier(name)) = name else { return None };
        column = format!("{column}.{name}");
    }
    let column = expression(&column)?;
    let next = if is_vector(&column) { " + 1" } else { "" };
    expression(&format!("array_element({}, ({index}){next})", list(&column)?))
}

/// A function of a list, or what makes rows.
fn of_list(function: &mut Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    let name = name.rsplit('.').next().unwrap_or_default();
    if name == EXPAND {
        let FunctionArguments::List(arguments) = &function.args else { return None };
        return expression(&format!("unnest({EXPAND}({arguments}))"));
    }
    if OF_LISTS.contains(&name)
        && let FunctionArguments::List(arguments) = &mut function.args
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = arguments.args.first_mut()
        && let Some(list) = list(argument).and_then(|list| expression(&list))
    {
        *argument = list;
    }
    None
}

/// The list that a column is.
fn list(column: &Expr) -> Option<String> {
    if is_vector(column) {
        return Some(format!("CAST(string_to_array({column}, ' ') AS INT[])"));
    }
    is_one(column, &ARRAYS).then(|| format!("CAST(string_to_array(btrim({column}, '[]'), ', ') AS INT[])"))
}

fn is_vector(column: &Expr) -> bool {
    is_one(column, &VECTORS)
}

/// Whether it is a column of one of these names.
fn is_one(column: &Expr, names: &[&str]) -> bool {
    let is_named = |column: &Ident| names.contains(&folded(column).as_str());
    match column {
        Expr::Identifier(column) => is_named(column),
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(is_named),
        Expr::Nested(inner) => is_one(inner, names),
        _ => false,
    }
}

/// A name as it is looked up: in small letters unless it is quoted.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// Names the columns of an answer that would have the same name: `SELECT NULL, NULL`.
pub fn name_columns(statement: &mut Statement) {
    let _ = statement.visit(&mut Naming);
}

struct Naming;

impl VisitorMut for Naming {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut seen: Vec<String> = Vec::new();
        for (index, item) in select.projection.iter_mut().enumerate() {
            let SelectItem::UnnamedExpr(Expr::Value(value)) = &*item else { continue };
            let text = value.to_string();
            if seen.contains(&text) {
                // PostgreSQL calls them all the same, without a number.
                let alias = Ident::with_quote('"', format!("?column?{}", index + 1));
                *item = SelectItem::ExprWithAlias { expr: Expr::Value(value.clone()), alias };
            } else {
                seen.push(text);
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn made(item: &str) -> String {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, &format!("SELECT {item} FROM t")).unwrap();
        make_lists(&mut statements[0]);
        name_columns(&mut statements[0]);
        statements[0].to_string().replace("SELECT ", "").replace(" FROM t", "")
    }

    #[test]
    fn vectors_count_from_0_and_arrays_from_1() {
        let vector = "CAST(string_to_array(i.indkey, ' ') AS INT[])";
        let array = "CAST(string_to_array(btrim(con.conkey, '[]'), ', ') AS INT[])";
        for (item, expected) in [
            ("i.indkey[0]", format!("array_element({vector}, (0) + 1)")),
            ("(i.indkey)[n - 1]", "array_element(CAST(string_to_array((i.indkey), ' ') AS INT[]), (n - 1) + 1)".into()),
            ("con.conkey[pos.n]", format!("array_element({array}, (pos.n))")),
            ("array_contains(con.conkey, 7)", format!("array_contains({array}, 7)")),
            ("unnest(i.indkey)", format!("unnest({vector})")),
        ] {
            assert_eq!(made(item), expected);
        }
    }

    #[test]
    fn what_is_expanded_has_parts() {
        let item = "(information_schema._pg_expandarray(i.indkey)).n, _pg_expandarray(i.indkey) AS keys, (r.KEYS).X";
        let expected = "get_field(unnest(_pg_expandarray(i.indkey)), 'n'), unnest(_pg_expandarray(i.indkey)) AS keys, \
                        get_field(r.KEYS, 'x')";
        assert_eq!(made(item), expected);
    }

    /// Each is made of the text of those within it.
    #[test]
    fn parts_of_parts_are_read_to_their_end() {
        let parts = made(&format!("{}k{}", "(".repeat(30), ").x".repeat(30)));
        assert_eq!((parts.matches("get_field(").count(), parts.matches(", 'x')").count()), (30, 30), "{parts}");
    }

    #[test]
    fn columns_of_the_same_name_get_another() {
        assert_eq!(
            made("NULL, a, NULL, 1, NULL AS b, NULL"),
            "NULL, a, NULL AS \"?column?3\", 1, NULL AS b, NULL AS \"?column?6\""
        );
    }

    #[test]
    fn what_is_no_list_of_the_catalogue_stays() {
        for item in
            ["a.b[1]", "(current_schemas(true))[1]", "array_length(a.b, 1)", "i.indkey", "unnest(a.b)", "1, 2, a, a"]
        {
            assert_eq!(made(item), item);
        }
    }
}
