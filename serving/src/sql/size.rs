//! How large a query may be to be planned. Planning is work that no clock stops, and whose memory no limit counts: what would
//! take too much of either, or more stack than there is, is refused before it begins.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit as _, Visitor};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::readings::ends;
use crate::ServingError;

/// Most words, numbers, strings and signs of a query. A list of 80,000 texts took 17 s to plan.
pub const TOKENS_MAX: usize = 50_000;
/// Most operators around one another: `1 + 1 + 1` has two. Planning and running a level take stack.
pub const OPERATORS_MAX: usize = 500;
/// Most brackets within one another. The parser goes through fifty expressions at most, and through types without end.
pub const BRACKETS_MAX: usize = 100;
/// Most words that stand around what follows them without a bracket: `EXPLAIN EXPLAIN …` took all stack there was, and
/// `INTERVAL INTERVAL …` twice the time for each.
pub const NESTED_MAX: usize = 16;
/// Most words and signs that are read in all, those that are read again counted again.
pub const READINGS_MAX: usize = 1 << 20;
/// Most tables that a query reads, each name of a `WITH` written out: planning writes them out, and a name that stands for
/// two of the one before it doubles the plan. Thirty of those took all memory there was.
pub const TABLES_MAX: usize = 1_000;
/// Most queries within one another, names written out. A chain of 300 took 9 s to plan.
pub const QUERIES_MAX: usize = 100;
/// Most columns of any step of a plan; 20,000 took 18 s.
pub const COLUMNS_MAX: usize = 2_000;
/// Most steps of a plan.
pub const STEPS_MAX: usize = 5_000;
/// Most steps of a plan below one another.
pub const LEVELS_MAX: usize = 300;

/// Refuses a text that is too large to be parsed and planned.
///
/// # Errors
/// [`ServingError::BadRequest`] of `query`.
pub fn check_text(query: &str, dialect: &dyn Dialect) -> Result<(), ServingError> {
    // What is no text of tokens is refused, with a reason, by who parses it.
    let Ok(text) = Tokenizer::new(dialect, query).tokenize_with_location() else { return Ok(()) };
    let is_token = |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_));
    let tokens: Vec<Token> = text.iter().filter(is_token).map(|token| token.token.clone()).collect();
    if tokens.len() > TOKENS_MAX {
        return Err(too_many(tokens.len(), "words and signs", TOKENS_MAX));
    }
    let (brackets, nested) = (brackets(&tokens), nested(&tokens));
    if brackets > BRACKETS_MAX {
        return Err(too_many(brackets, "brackets within one another", BRACKETS_MAX));
    }
    if nested > NESTED_MAX {
        let what = "words EXPLAIN, INTERVAL without a text, ARRAY< and STRUCT<";
        return Err(too_many(nested, what, NESTED_MAX));
    }
    let operators = operators(&tokens);
    if operators > OPERATORS_MAX {
        return Err(ServingError::bad(
            "query",
            format!(
                "it has {operators} operators around one another, the limit is {OPERATORS_MAX}; write many ORs as IN (…)"
            ),
        ));
    }
    // Only now: it is the parser itself that reads.
    if !ends(text, dialect, READINGS_MAX) {
        let what = "words and signs to read, those that may be one thing or another counted for each";
        return Err(ServingError::bad("query", format!("it has more than {READINGS_MAX} {what}, which is the limit")));
    }
    Ok(())
}

/// Refuses a statement whose plan would be too large to be made.
///
/// # Errors
/// As [`check_text`].
pub fn check_statement(statement: &Statement) -> Result<(), ServingError> {
    let mut named = Named { open: vec![Extent::default()], ..Named::default() };
    // It goes through all of it: nothing breaks off.
    let _ = statement.visit(&mut named);
    let all = named.open.pop().unwrap_or_default();
    if all.tables > TABLES_MAX {
        return Err(too_many(all.tables, "tables, names of WITH written out", TABLES_MAX));
    }
    if all.deep > QUERIES_MAX {
        return Err(too_many(all.deep, "queries within one another, names of WITH written out", QUERIES_MAX));
    }
    Ok(())
}

/// How much a query is once names are written out.
#[derive(Debug, Default, Clone, Copy)]
struct Extent {
    tables: usize,
    deep: usize,
}

impl Extent {
    fn add(&mut self, other: Self) {
        self.tables = self.tables.saturating_add(other.tables);
        self.deep = self.deep.max(other.deep);
    }
}

/// Goes through a statement, each query after those in it.
#[derive(Debug, Default)]
struct Named {
    /// Queries that are gone through, the outermost first.
    open: Vec<Extent>,
    /// The queries that names stand for, by where they are.
    named: HashMap<*const Query, String>,
    /// What a name stands for, at most: wherever it is known.
    extents: HashMap<String, Extent>,
}

impl Visitor for Named {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.named.insert(&raw const *table.query, table.alias.name.value.to_lowercase());
        }
        self.open.push(Extent::default());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut own = self.open.pop().unwrap_or_default();
        own.deep += 1;
        // Without a table it is written out all the same.
        own.tables = own.tables.max(1);
        match self.named.get(&std::ptr::from_ref(query)) {
            Some(name) => {
                let extent = self.extents.entry(name.clone()).or_default();
                extent.tables = extent.tables.max(own.tables);
                extent.deep = extent.deep.max(own.deep);
            }
            None => {
                if let Some(outer) = self.open.last_mut() {
                    outer.add(own);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_lowercase());
        let extent = name.and_then(|name| self.extents.get(&name)).copied();
        if let Some(query) = self.open.last_mut() {
            query.add(extent.unwrap_or(Extent { tables: 1, deep: 0 }));
        }
        ControlFlow::Continue(())
    }
}

/// Refuses a plan that is too large to be optimised.
///
/// # Errors
/// As [`check_text`].
pub fn check_plan(plan: &LogicalPlan) -> Result<(), ServingError> {
    let (mut steps, mut columns) = (0, 0);
    let walk = plan.apply_with_subqueries(|step| {
        steps += 1;
        columns = columns.max(step.schema().fields().len());
        Ok(if steps > STEPS_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walk.map_err(ServingError::internal)?;
    if steps > STEPS_MAX {
        return Err(ServingError::bad(
            "query",
            format!("its plan has more than {STEPS_MAX} steps, which is the limit"),
        ));
    }
    if columns > COLUMNS_MAX {
        return Err(too_many(columns, "columns", COLUMNS_MAX));
    }
    let mut open = vec![(plan, 1)];
    while let Some((step, level)) = open.pop() {
        if level > LEVELS_MAX {
            let message = format!("its plan has more than {LEVELS_MAX} steps below one another, which is the limit");
            return Err(ServingError::bad("query", message));
        }
        open.extend(step.inputs().into_iter().map(|below| (below, level + 1)));
    }
    Ok(())
}

fn too_many(found: usize, what: &str, most: usize) -> ServingError {
    ServingError::bad("query", format!("it has {found} {what}, the limit is {most}"))
}

/// How many brackets are open at once, at most.
fn brackets(tokens: &[Token]) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open += 1,
            Token::RParen | Token::RBracket | Token::RBrace => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// How many words stand around what follows them, for which the parser calls itself and does not count.
fn nested(tokens: &[Token]) -> usize {
    let is_around = |(at, token): &(usize, &Token)| {
        let Token::Word(word) = token else { return false };
        let next = tokens.get(at + 1);
        match word.keyword {
            Keyword::EXPLAIN => true,
            Keyword::INTERVAL => {
                !matches!(next, Some(Token::SingleQuotedString(_) | Token::Number(..) | Token::Placeholder(_)))
            }
            Keyword::ARRAY | Keyword::STRUCT => matches!(next, Some(Token::Lt)),
            _ => false,
        }
    };
    tokens.iter().enumerate().filter(is_around).count()
}

/// What stands between two parentheses, up to now.
#[derive(Debug, Default)]
struct Between {
    /// Operators since the last comma.
    chain: usize,
    /// Most operators around one another in parentheses since the last comma.
    below: usize,
    /// The most before that.
    most: usize,
    /// Set operators: commas are parts of the queries that they stand around, and end no chain of these.
    sets: usize,
}

impl Between {
    fn since_comma(&self) -> usize {
        self.most.max(self.chain + self.below)
    }

    fn most(&self) -> usize {
        self.since_comma() + self.sets
    }

    fn comma(&mut self) {
        *self = Self { most: self.since_comma(), sets: self.sets, ..Self::default() };
    }

    fn holds(&mut self, inner: &Self) {
        self.below = self.below.max(inner.most());
    }
}

/// Operators around one another, at most: a chain of them is as deep as it is long, and lies around what stands in
/// parentheses in it.
fn operators(tokens: &[Token]) -> usize {
    let mut open: Vec<Between> = Vec::new();
    let mut here = Between::default();
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // An index stands behind its array as an operator does.
                here.chain += usize::from(*token == Token::LBracket);
                open.push(std::mem::take(&mut here));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let mut outer = open.pop().unwrap_or_default();
                outer.holds(&here);
                here = outer;
            }
            Token::Comma | Token::SemiColon => here.comma(),
            other if is_of_sets(other) => here.sets += 1,
            other => here.chain += usize::from(is_operator(other)),
        }
    }
    while let Some(mut outer) = open.pop() {
        outer.holds(&here);
        here = outer;
    }
    here.most()
}

/// Whether it stands around all queries before it.
const fn is_of_sets(token: &Token) -> bool {
    matches!(
        token,
        Token::Word(word)
            if matches!(word.keyword, Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::MINUS)
    )
}

/// Whether something may stand around what comes before it.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::SIMILAR
                | Keyword::DIV
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::OVERLAPS
                | Keyword::JOIN
        ),
        Token::EOF
        | Token::Period
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Placeholder(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn of(query: &str) -> usize {
        let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize().unwrap();
        operators(&tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect::<Vec<_>>())
    }

    #[test]
    fn chains_are_as_deep_as_they_are_long() {
        for (query, expected) in [
            ("select 1", 0),
            ("select a, b.c, 'x' from t", 0),
            ("select 1 + 1 + 1", 2),
            ("select 1 + 1, 1 + 1 + 1, 2", 2),
            ("select (1 + 1) + (1 + 1 + 1)", 3),
            ("select ((1 + 1) + 1) + 1", 3),
            ("select f(1 + 1, 1 + 1) + 1", 2),
            ("select 1 in (1, 2, 3, 4, 5, 6, 7)", 1),
            ("select x[1][1]", 2),
            ("select 1::int::int", 2),
            ("select 1 union select 1 union select 1", 2),
            ("select 1, 2 union select 1, 2 except select 1, 2", 2),
            ("select (select 1, 2 union select 1, 2) + 1, 2 union select 1 + 1 + 1, 2", 3),
            ("select 1 from a join b on a.x = b.x", 2),
            ("select 1 + (1 + 1", 2),
            ("select 1 + 1) + 1", 2),
        ] {
            assert_eq!(of(query), expected, "{query}");
        }
    }

    #[test]
    fn names_are_written_out() {
        let check = |query: &str| {
            let statements = Parser::parse_sql(&GenericDialect {}, query).unwrap();
            check_statement(&statements[0]).map_err(|error| error.to_string())
        };
        let names = |count: usize, of: &dyn Fn(usize) -> String| {
            let names = (0..count).map(|at| format!("t{} AS ({})", at + 1, of(at))).collect::<Vec<_>>().join(", ");
            format!("WITH t0 AS (SELECT 1 FROM x), {names} SELECT * FROM T{count}")
        };
        let twice = |at: usize| format!("SELECT * FROM t{at} UNION ALL SELECT * FROM t{at}");
        let once = |at: usize| format!("SELECT * FROM t{at}");
        assert_eq!(check(&names(9, &twice)), Ok(()));
        assert!(check(&names(10, &twice)).unwrap_err().contains("1024 tables"));
        assert!(check(&names(60, &twice)).unwrap_err().contains("tables"));
        assert!(check(&names(30, &twice).replace(" FROM x)", ")")).unwrap_err().contains("tables"));
        assert_eq!(check(&names(90, &once)), Ok(()));
        assert!(check(&names(110, &once)).unwrap_err().contains("queries within one another"));
        // A name that means less somewhere else means as much as before here.
        let hidden = names(12, &twice)
            .replace("SELECT * FROM T12", "SELECT (WITH t12 AS (SELECT 1) SELECT 1 FROM t12) FROM t12");
        assert!(check(&hidden).unwrap_err().contains("tables"));
        let nested = "WITH a AS (WITH b AS (SELECT * FROM x, y) SELECT * FROM b, b AS c) SELECT * FROM a, a AS d";
        assert_eq!(check(nested), Ok(()));
        assert_eq!(check("WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t"), Ok(()));
        assert_eq!(check("EXPLAIN SELECT 1"), Ok(()));
        assert!(check(&format!("EXPLAIN {}", names(12, &twice))).is_err());
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let check = |query: &str| check_text(query, &GenericDialect {});
        let sum = |numbers: usize| format!("select {}", vec!["1"; numbers].join("+"));
        assert!(check(&sum(OPERATORS_MAX + 1)).is_ok());
        let refused = check(&sum(OPERATORS_MAX + 2)).unwrap_err();
        assert!(refused.to_string().contains("501 operators"), "{refused}");
        let list = |numbers: usize| format!("select 1 in ({})", vec!["1"; numbers].join(","));
        assert!(check(&list(TOKENS_MAX / 2 - 3)).is_ok());
        assert!(check(&list(TOKENS_MAX / 2)).is_err());
        for word in ["EXPLAIN ", "INTERVAL ", "INTERVAL (", "ARRAY<"] {
            let nested = |words: usize| format!("{} x", word.repeat(words));
            assert!(check(&nested(NESTED_MAX)).is_ok(), "{word}");
            assert!(check(&nested(NESTED_MAX + 1)).is_err(), "{word}");
        }
        let hours = vec!["minute > now() - INTERVAL '1 hour'"; 40].join(" OR ");
        assert!(check(&format!("SELECT ARRAY[1], {hours}")).is_ok());
        let types = |types: usize| format!("SELECT a::{}INT", "Nullable(".repeat(types));
        assert!(check(&types(BRACKETS_MAX)).is_ok());
        assert!(check(&types(BRACKETS_MAX + 1)).is_err());
        let within = |word: &str, times: usize| format!("select {}1{}", word.repeat(times), ")".repeat(times));
        for word in ["cast(", "position(", "not (", "case ("] {
            assert!(check(&within(word, 8)).is_ok(), "{word}");
            assert!(check(&within(word, 40)).unwrap_err().to_string().contains("to read"), "{word}");
        }
        assert!(check(&within("replace(", 40)).is_ok());
        assert!(check_text(&within("replace(", 40), &PostgreSqlDialect {}).is_err(), "there it is read twice");
        assert!(check_text(&within("replace(", 8), &PostgreSqlDialect {}).is_ok());
        let union = |queries: usize| vec!["select 1, 2"; queries].join(" union all ");
        assert!(check(&union(OPERATORS_MAX + 1)).is_ok());
        assert!(check(&union(OPERATORS_MAX + 2)).is_err(), "it is a tree as deep as it is long");
        assert!(check("select 'not closed").is_ok(), "the parser says what is wrong");
    }
}
