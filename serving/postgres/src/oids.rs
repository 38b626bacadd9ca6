//! Names cast to numbers of the catalogue: `'array_in'::regproc`, `'pg_class'::regclass`, `'integer'::regtype`.
//!
//! `datafusion-pg-catalog` looks such a name up, as it stands, in a table of the catalogue. Here it gets the form in which
//! that table has it. Where PostgreSQL has the number of a function in a column, our catalogue has its name: what is
//! compared with such a column stays a name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Ident, Statement, Value, ValueWithSpan, visit_expressions_mut,
};

/// The columns that hold the name of a function; `-` is none.
const FUNCTION_COLUMNS: [&str; 33] = [
    "aggfnoid",
    "aggtransfn",
    "aggfinalfn",
    "aggcombinefn",
    "aggserialfn",
    "aggdeserialfn",
    "aggmtransfn",
    "aggminvtransfn",
    "aggmfinalfn",
    "amhandler",
    "amproc",
    "conproc",
    "oprcode",
    "oprrest",
    "oprjoin",
    "prosupport",
    "rngcanonical",
    "rngsubdiff",
    "prsstart",
    "prstoken",
    "prsend",
    "prsheadline",
    "prslextype",
    "tmplinit",
    "tmpllexize",
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
    "typmodin",
    "typmodout",
    "typanalyze",
    "typsubscript",
];

/// PostgreSQL's own tables, which have the same number everywhere; `pg_class` here has ours only.
const TABLES: [(&str, &str); 28] = [
    ("pg_am", "2601"),
    ("pg_attrdef", "2604"),
    ("pg_attribute", "1249"),
    ("pg_authid", "1260"),
    ("pg_cast", "2605"),
    ("pg_class", "1259"),
    ("pg_collation", "3456"),
    ("pg_constraint", "2606"),
    ("pg_conversion", "2607"),
    ("pg_database", "1262"),
    ("pg_event_trigger", "3466"),
    ("pg_extension", "3079"),
    ("pg_foreign_data_wrapper", "2328"),
    ("pg_foreign_server", "1417"),
    ("pg_index", "2610"),
    ("pg_language", "2612"),
    ("pg_namespace", "2615"),
    ("pg_opclass", "2616"),
    ("pg_operator", "2617"),
    ("pg_opfamily", "2753"),
    ("pg_proc", "1255"),
    ("pg_rewrite", "2618"),
    ("pg_tablespace", "1213"),
    ("pg_trigger", "2620"),
    ("pg_ts_config", "3602"),
    ("pg_ts_dict", "3600"),
    ("pg_ts_parser", "3601"),
    ("pg_type", "1247"),
];

/// Types by the names that SQL has for them, and by those that the catalogue has.
const TYPES: [(&str, &str); 18] = [
    ("\"char\"", "char"),
    ("bigint", "int8"),
    ("bit varying", "varbit"),
    ("boolean", "bool"),
    ("char", "bpchar"),
    ("character", "bpchar"),
    ("character varying", "varchar"),
    ("decimal", "numeric"),
    ("double precision", "float8"),
    ("float", "float8"),
    ("int", "int4"),
    ("integer", "int4"),
    ("real", "float4"),
    ("smallint", "int2"),
    ("time with time zone", "timetz"),
    ("time without time zone", "time"),
    ("timestamp with time zone", "timestamptz"),
    ("timestamp without time zone", "timestamp"),
];

/// What a name is cast to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    Table,
    Type,
    Schema,
}

/// Gives all names that are cast the form in which the catalogue has them.
pub fn name_as_catalogue(statement: &mut Statement) {
    // What is cast is visited before what it is compared with.
    let _ = visit_expressions_mut(statement, |expr| {
        rewrite(expr);
        ControlFlow::<()>::Continue(())
    });
}

fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::Cast { expr: operand, data_type, .. } => {
            let Some(kind) = kind_of(data_type) else { return };
            if kind == Kind::Function && is_function(operand) {
                let column = Expr::clone(operand);
                *expr = column;
            } else if let Some(name) = text_of(operand) {
                **operand = text(as_catalogue(kind, name));
            }
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } => {
            compare_names(left, right);
            compare_names(right, left);
        }
        Expr::InList { expr: column, list, .. } => list.iter_mut().for_each(|other| compare_names(column, other)),
        _ => {}
    }
}

/// Makes a name of what a column of names is compared with.
fn compare_names(column: &Expr, other: &mut Expr) {
    if !is_function(column) {
        return;
    }
    let name = match &*other {
        Expr::Cast { expr: operand, data_type, .. } if kind_of(data_type) == Some(Kind::Function) => {
            text_of(operand).map(str::to_owned)
        }
        // No function at all.
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) if number == "0" => Some("-".to_owned()),
        _ => None,
    };
    if let Some(name) = name {
        *other = text(name);
    }
}

fn kind_of(data_type: &DataType) -> Option<Kind> {
    let name = data_type.to_string().to_lowercase();
    match name.strip_prefix("pg_catalog.").unwrap_or(&name) {
        "regproc" => Some(Kind::Function),
        "regclass" => Some(Kind::Table),
        "regtype" => Some(Kind::Type),
        "regnamespace" => Some(Kind::Schema),
        _ => None,
    }
}

/// Whether it is a column that holds the name of a function.
fn is_function(expr: &Expr) -> bool {
    let is_one = |column: &Ident| FUNCTION_COLUMNS.contains(&column.value.to_lowercase().as_str());
    match expr {
        Expr::Identifier(column) => is_one(column),
        Expr::CompoundIdentifier(names) => names.last().is_some_and(is_one),
        Expr::Nested(inner) => is_function(inner),
        _ => false,
    }
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

fn text(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

/// A name in the form that the catalogue has; that of a table may be its number.
fn as_catalogue(kind: Kind, name: &str) -> String {
    let bare = name.strip_prefix("pg_catalog.").unwrap_or(name);
    let known = |names: &[(&str, &str)], name: &str| {
        names.iter().find(|(known, _)| *known == name).map(|(_, found)| (*found).to_owned())
    };
    match kind {
        Kind::Function => unquoted(bare),
        // Those of our tables are read where they are looked up, with the schema that may go before them.
        Kind::Table => known(&TABLES, &unquoted(bare)).unwrap_or_else(|| name.to_owned()),
        Kind::Type => {
            let (element, list) = bare.strip_suffix("[]").map_or((bare, ""), |element| (element, "_"));
            format!("{list}{}", known(&TYPES, &element.to_lowercase()).unwrap_or_else(|| unquoted(element)))
        }
        Kind::Schema => unquoted(name),
    }
}

/// A name without its quotes, in small letters where it has none.
fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn named(condition: &str) -> String {
        let query = format!("SELECT 1 FROM t WHERE {condition}");
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, &query).unwrap();
        name_as_catalogue(&mut statements[0]);
        statements[0].to_string().replace("SELECT 1 FROM t WHERE ", "")
    }

    #[test]
    fn functions_are_compared_by_their_names_where_the_catalogue_has_names() {
        for (condition, expected) in [
            ("typinput = 'pg_catalog.array_in'::regproc", "typinput = 'array_in'"),
            ("t.typinput = 'array_in'::regproc", "t.typinput = 'array_in'"),
            ("CAST('array_in' AS pg_catalog.regproc) <> t.typinput", "'array_in' <> t.typinput"),
            ("typinput IN ('array_in'::regproc, 'enum_in'::regproc)", "typinput IN ('array_in', 'enum_in')"),
            ("t.typinput::regproc = 'array_in'::regproc", "t.typinput = 'array_in'"),
            ("(typreceive)::regproc::text = 'x'", "(typreceive)::TEXT = 'x'"),
            ("typreceive <> 0", "typreceive <> '-'"),
            ("p.oid = 'pg_catalog.abs'::regproc", "p.oid = 'abs'::regproc"),
        ] {
            assert_eq!(named(condition), expected);
        }
    }

    #[test]
    fn tables_types_and_schemas_are_named_as_they_are_looked_up() {
        for (condition, expected) in [
            ("d.classoid = 'pg_class'::regclass", "d.classoid = '1259'::REGCLASS"),
            ("classid = 'pg_catalog.pg_constraint'::regclass::oid", "classid = '2606'::REGCLASS::oid"),
            ("c.oid = 'public.stats'::regclass", "c.oid = 'public.stats'::REGCLASS"),
            ("c.oid = '16391'::regclass", "c.oid = '16391'::REGCLASS"),
            ("t.oid = 'pg_catalog.int4'::regtype", "t.oid = 'int4'::regtype"),
            ("t.oid = 'character varying'::regtype", "t.oid = 'varchar'::regtype"),
            ("t.oid = 'Integer[]'::regtype", "t.oid = '_int4'::regtype"),
            ("t.oid = '\"char\"'::regtype", "t.oid = 'char'::regtype"),
            ("n.oid = '\"public\"'::regnamespace", "n.oid = 'public'::regnamespace"),
        ] {
            assert_eq!(named(condition), expected);
        }
    }

    #[test]
    fn what_is_no_name_stays() {
        for condition in ["c.relname = 'pg_class'", "typlen = 0", "c.oid = $1::REGCLASS", "a.x = 'array_in'::TEXT"] {
            assert_eq!(named(condition), condition);
        }
    }
}
