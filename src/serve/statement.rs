//! What may be asked.
//!
//! In: SQL text, or what a protocol's own parser made of it. Out: one statement that only reads. Two locks, one behind
//! the other: a list of the kinds of statement that are let in, here, and a look at every node of the plan that comes of
//! it, subqueries and what EXPLAIN holds included ([`verify`]).

use std::borrow::Cow;

use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SQLOptions;
use datafusion::sql::parser::{DFParser, Statement as Parsed};
use datafusion::sql::sqlparser::ast::Statement as Ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::failure::{Failure, Why};
use crate::catalog::text;

/// Longer statements are nobody's; planning cannot be stopped half-way.
const LONGEST: usize = 256 << 10;

const ONLY: &str = "only queries are allowed here: SELECT, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW COLUMNS";

/// A statement that was let in.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    /// As it came.
    pub(super) text: String,
    pub(super) parsed: Parsed,
}

impl Statement {
    /// The one statement of a text.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |failure: Failure| Failure { why: Why::Invalid, ..failure };
        let read = numbered(&prepared(text)?)?;
        let mut parsed = DFParser::parse_sql_with_dialect(&read, &GenericDialect {}).map_err(|e| wrong(e.into()))?;
        match (parsed.pop_front(), parsed.is_empty()) {
            (Some(parsed), true) => Statement::checked(text, parsed),
            (None, _) => Err(Failure::new(Why::Invalid, "there is no statement in the text")),
            (Some(_), false) => Err(Failure::refused("one statement at a time; this text holds several")),
        }
    }

    /// What another parser made of a text.
    pub(super) fn checked(text: &str, parsed: Parsed) -> Result<Self, Failure> {
        check_length(text)?;
        if reads(&parsed) {
            return Ok(Statement { text: text.to_string(), parsed });
        }
        Err(Failure::refused(ONLY))
    }
}

/// A text that is not too long, past versions (`as of`) written as the catalog knows them.
pub(super) fn prepared(text: &str) -> Result<Cow<'_, str>, Failure> {
    check_length(text)?;
    text::as_of(text).map_err(|e| Failure { why: Why::Invalid, ..e.into() })
}

/// `?` becomes `$1`, `$2`: JDBC and ODBC write parameters so.
fn numbered(text: &str) -> Result<String, Failure> {
    let (mut out, mut done, mut count) = (String::new(), 0, 0);
    if text.contains('?') {
        for piece in text::pieces(text)? {
            let parameter = matches!(&piece.token, Token::Question) || piece.token == Token::Placeholder("?".into());
            if parameter {
                count += 1;
                out += &text[done..piece.range.start];
                out += &format!("${count}");
                done = piece.range.end;
            }
        }
    }
    Ok(out + &text[done..])
}

fn check_length(text: &str) -> Result<(), Failure> {
    if text.len() > LONGEST {
        return Err(Failure::refused(format!("a statement has at most {} KiB here", LONGEST >> 10)));
    }
    Ok(())
}

fn reads(statement: &Parsed) -> bool {
    match statement {
        Parsed::Statement(statement) => ast_reads(statement),
        Parsed::Explain(explain) => reads(&explain.statement),
        _ => false,
    }
}

fn ast_reads(statement: &Ast) -> bool {
    match statement {
        Ast::Query(_)
        | Ast::ExplainTable { .. }
        | Ast::ShowTables { .. }
        | Ast::ShowColumns { .. }
        | Ast::ShowFunctions { .. } => true,
        Ast::Explain { statement, .. } => ast_reads(statement),
        _ => false,
    }
}

/// That a plan only reads, whatever became of the statement on the way.
pub(super) fn verify(plan: &LogicalPlan) -> Result<(), Failure> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| Failure::refused(ONLY))
}
