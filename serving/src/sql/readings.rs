//! How much a parser reads. Some words it takes for one thing first and, when that fails, for another: `CAST(…)` without AS
//! is a function of that name, and so is `NOT (…)` where what follows it is wrong. What is within them, or behind them, is
//! read once more, within one another twice as often each time: forty were never read to the end, on a thread that answers
//! everything else. Which texts these are only the parser knows, so it is asked, and stopped when it has read enough.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::parser::DFParserBuilder;
use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Whether a text is read to its end, or to an error, before `most` of its words and signs are read, each as often as it is.
pub(super) fn ends(tokens: Vec<TokenWithSpan>, dialect: &dyn Dialect, most: usize) -> bool {
    // What the parser says of the text is said to whoever asked when it is read in earnest.
    if dialect.is::<PostgreSqlDialect>() {
        let counting = Counting::new(PostgreSqlDialect {}, &tokens, most);
        let _ = Parser::new(&counting).with_tokens_with_locations(tokens).parse_statements();
        return counting.left.get() > 0;
    }
    let counting = Counting::new(GenericDialect {}, &tokens, most);
    if let Ok(mut parser) = DFParserBuilder::new(tokens).with_dialect(&counting).build() {
        let _ = parser.parse_statements();
    }
    counting.left.get() > 0
}

/// A dialect that counts what is read in it.
#[derive(Debug)]
struct Counting<D> {
    inner: D,
    /// What it takes to begin with an expression at a token.
    costs: Vec<usize>,
    left: Cell<usize>,
}

impl<D: Dialect> Counting<D> {
    fn new(inner: D, tokens: &[TokenWithSpan], most: usize) -> Self {
        Self { inner, costs: costs(tokens), left: Cell::new(most) }
    }
}

/// What it takes to begin with an expression at each token. A word may be a type, and is read with what is in its brackets
/// up to what cannot be there.
fn costs(tokens: &[TokenWithSpan]) -> Vec<usize> {
    let mut costs = vec![1; tokens.len()];
    // Of the tokens behind: how many may be in a type's brackets, and what a word before them takes besides itself.
    let (mut run, mut ahead, mut cost) = (0, 0, 1);
    for (own, token) in costs.iter_mut().zip(tokens).rev() {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::LParen => (run, ahead, cost) = (0, run, 1),
            Token::Period => (run, ahead, cost) = (0, cost, 1),
            Token::Word(_) => (run, ahead, cost) = (run + 1, 0, 1 + ahead),
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Comma => (run, ahead, cost) = (run + 1, 0, 1),
            _ => (run, ahead, cost) = (0, 0, 1),
        }
        *own = cost;
    }
    costs
}

/// What one of the dialects says otherwise than dialects do.
macro_rules! same {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { self.inner.$name() })* };
}

impl<D: Dialect> Dialect for Counting<D> {
    fn dialect(&self) -> TypeId {
        self.inner.dialect()
    }

    /// Called wherever an expression begins.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let cost = self.costs.get(parser.get_current_index() + 1).copied().unwrap_or(1);
        self.left.set(self.left.get().saturating_sub(cost));
        // From then on nothing is read any more, whatever else it might be.
        if self.left.get() == 0 {
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        self.inner.parse_prefix(parser)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.inner.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.inner.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, word: Keyword) -> bool {
        self.inner.is_reserved_for_identifier(word)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        self.inner.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        self.inner.prec_value(precedence)
    }

    same! {
        allow_extract_custom allow_extract_single_quotes support_map_literal_syntax supports_alter_column_type_using
        supports_array_join_syntax supports_array_typedef_with_brackets supports_asc_desc_in_column_definition
        supports_bitwise_shift_operators supports_comma_separated_set_assignments supports_comma_separated_trim
        supports_comment_on supports_comment_optimizer_hint supports_connect_by
        supports_constraint_keyword_without_name supports_create_index_with_clause
        supports_create_table_like_parenthesized supports_create_view_comment_syntax supports_cte_without_as
        supports_data_type_signed_suffix supports_detach supports_dictionary_syntax supports_empty_projections
        supports_explain_with_utility_options supports_extract_comma_syntax supports_factorial_operator
        supports_filter_during_aggregation supports_from_first_select supports_geometric_types supports_group_by_expr
        supports_group_by_with_modifier supports_insert_table_alias supports_install supports_interpolate
        supports_interval_options supports_key_column_option supports_left_associative_joins_without_parens
        supports_limit_by supports_limit_comma supports_listen_notify supports_load_extension supports_match_against
        supports_match_recognize supports_multiline_comment_hints supports_named_fn_args_with_assignment_operator
        supports_named_fn_args_with_colon_operator supports_named_fn_args_with_expr_name supports_nested_comments
        supports_notnull_operator supports_numeric_literal_underscores supports_optimize_table
        supports_parens_around_table_factor supports_parenthesized_set_variables supports_partition_by_after_order_by
        supports_pipe_operator supports_prewhere supports_projection_trailing_commas supports_quote_delimited_string
        supports_select_format supports_select_item_multi_column_alias supports_select_wildcard_except
        supports_select_wildcard_exclude supports_select_wildcard_ilike supports_select_wildcard_rename
        supports_select_wildcard_replace supports_select_wildcard_with_alias supports_set_names supports_settings
        supports_start_transaction_modifier supports_string_escape_constant supports_struct_literal
        supports_try_convert supports_unicode_string_literal supports_update_order_by supports_user_host_grantee
        supports_values_as_table_factor supports_window_clause_named_window_reference
        supports_window_function_null_treatment_arg supports_with_fill supports_xml_expressions
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    const MOST: usize = 100_000;

    fn ends_in(dialect: &dyn Dialect, query: &str) -> bool {
        let tokens = Tokenizer::new(dialect, query).tokenize_with_location().unwrap();
        ends(tokens, dialect, MOST)
    }

    fn within(begin: &str, inner: &str, end: &str, times: usize) -> String {
        format!("select {}{inner}{}", begin.repeat(times), end.repeat(times))
    }

    #[test]
    fn what_is_read_again_and_again_is_stopped() {
        for (begin, inner, end) in [
            ("cast(", "1", ")"),
            ("position(", "1", ")"),
            ("case (", "1", ")"),
            ("not (", "1 1", ")"),
            ("floor(", "1 1", ")"),
            ("current_date(", "1 1", ")"),
            ("array[", "1 1", "]"),
            ("position(1) over (order by ", "1 1", ")"),
            ("cast(", "1", ")::int"),
            ("/* a */ CaSt /* b */ (", "1", ")"),
            // No brackets are around what is read again here.
            ("not (1) = ", "", ""),
            ("not - 1 = ", "", ""),
        ] {
            let query = within(begin, inner, end, 40);
            assert!(!ends_in(&GenericDialect {}, &query), "{begin}");
            assert!(!ends_in(&PostgreSqlDialect {}, &query), "{begin}");
            assert!(ends_in(&GenericDialect {}, &within(begin, inner, end, 5)), "{begin}");
            assert!(ends_in(&PostgreSqlDialect {}, &within(begin, inner, end, 5)), "{begin}");
        }
        let functions = within("replace(", "1", ")", 40);
        assert!(ends_in(&GenericDialect {}, &functions) && !ends_in(&PostgreSqlDialect {}, &functions));
    }

    #[test]
    fn what_is_read_once_may_be_long() {
        let many = |what: &str, between: &str, times: usize| format!("select {}", vec![what; times].join(between));
        for query in [
            within("cast(", "1", " as int)", 40),
            within("floor(", "1", ")", 40),
            within("case (", "1", ") when 1 then 2 end", 15),
            many("not (cast(a as int) = 1)", " and ", 200),
            many("a not in (1, 2) and b is not null", " and ", 200),
            many("'cast(cast(cast(cast(cast(cast(cast(cast('", ", ", 5_000),
            many("coalesce(a, b)", ", ", 5_000),
            "select $$ cast(cast( $$, 'not (', /* cast(cast( */ 1 -- cast(cast(".to_owned(),
        ] {
            assert!(ends_in(&GenericDialect {}, &query), "{query}");
            assert!(ends_in(&PostgreSqlDialect {}, &query), "{query}");
        }
        // As an argument each number takes one; and the type that it is not, all of them.
        let list = format!("select f({})", vec!["1"; MOST / 4].join(","));
        assert!(ends_in(&GenericDialect {}, &list));
        let list = format!("select f({})", vec!["1"; MOST / 2].join(","));
        assert!(!ends_in(&GenericDialect {}, &list));
    }

    #[test]
    fn words_that_may_be_types_take_what_is_in_their_brackets() {
        let of = |query: &str| {
            let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize_with_location().unwrap();
            let costs = costs(&tokens);
            let words = tokens.iter().zip(costs).filter(|(token, _)| matches!(token.token, Token::Word(_)));
            words.map(|(_, cost)| cost).collect::<Vec<_>>()
        };
        assert_eq!(of("f (1, 'a' b)"), [5, 1]);
        assert_eq!(of("a.b.f(1)"), [4, 3, 2]);
        assert_eq!(of("f(g(1)) + h"), [2, 2, 1]);
    }
}
