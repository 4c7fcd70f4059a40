//! `judge(model, principle, instruction, response_1, response_2)`: which response is better, as the pipeline asks it.
//!
//! In: a call of the marker. Out: the expression it stands for, which the analyser then treats like any other:
//! ```text
//! judge('sft', p, q, a, b)
//! becomes
//! {score: (ab[1] - ab[2] + ba[2] - ba[1]) / 2, score_ab: ab[1] - ab[2], score_ba: ba[2] - ba[1], verdict: ..}
//!   where ab = choice_logits('sft', render(judge template, q, a, b, p), answers)      both orders
//!         ba = choice_logits('sft', render(judge template, q, b, a, p), answers)
//! ```
//! Texts are cut as the stage `judgments` cuts them, so that a row has the scores that it has there.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::functions_nested::expr_fn::{array_element, make_array};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Case, ColumnarValue, Documentation, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit, when,
};

use super::call::ModelFunction;
use super::functions::{self, MODEL_SECTION, documentation};
use super::markers::{self, MODEL};
use super::models::Models;
use super::options::{fold, wrong};
use crate::principle::Templates;
use crate::{Error, Result};

const NAME: &str = "judge";
const SYNTAX: &str = "judge(model, principle, instruction, response_1, response_2)";

/// How a run judges.
#[derive(Debug)]
pub struct Judging {
    /// The templates that hold the judge's.
    pub templates: Arc<Templates>,
    /// The name of the judge's template.
    pub template: String,
    /// The two answers; the first one favours what stands first.
    pub answers: [String; 2],
    /// Most tokens of the instruction, cut from the left.
    pub max_query_tokens: i64,
    /// Most tokens of each response, cut from the right.
    pub max_response_tokens: i64,
    /// Definitions of principles by name.
    pub principles: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Judge {
    signature: Signature,
}

/// The marker.
pub(super) fn marker() -> ScalarUDF {
    ScalarUDF::new_from_impl(Judge { signature: Signature::variadic_any(Volatility::Volatile) })
}

/// `judge`, if `expression` is a call of it.
pub(super) fn name_of(expression: &Expr) -> Option<&'static str> {
    args_of(expression).map(|_| NAME)
}

fn args_of(expression: &Expr) -> Option<&[Expr]> {
    let Expr::ScalarFunction(call) = expression else { return None };
    call.func.inner().downcast_ref::<Judge>().map(|_| call.args.as_slice())
}

/// The expressions with every call written out; `schema` is that of the input they refer to.
pub(super) fn expand(exprs: Vec<Expr>, models: &Arc<Models>, schema: &DFSchemaRef) -> Result<Vec<Expr>> {
    let one = |expr: Expr| {
        let written = expr.transform_up(|part| match args_of(&part) {
            Some(args) => Ok(Transformed::yes(written(args, models, schema)?)),
            None => Ok(Transformed::no(part)),
        })?;
        Ok(written.data)
    };
    exprs.into_iter().map(one).collect()
}

fn written(args: &[Expr], models: &Arc<Models>, schema: &DFSchemaRef) -> Result<Expr> {
    let [model, principle, instruction, response_1, response_2] = args else {
        return Err(Error::query(NAME, format!("expected {SYNTAX}")));
    };
    let name = match fold(model, schema, NAME, "the model name")? {
        ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) => name,
        other => return Err(wrong(NAME, "the model name", "a text", &other)),
    };
    let how = models.judging(&name)?;
    let text = |what: &str, expr: &Expr| text(what, expr, schema);
    let principle = text("the principle", principle)?;
    let cut = |expr: Expr, most: i64, side: &str| {
        call(functions::truncation(models), vec![lit(name.as_str()), expr, lit(most), lit(side)])
    };
    let instruction = cut(text("the instruction", instruction)?, how.max_query_tokens, "left");
    let first = cut(text("response_1", response_1)?, how.max_response_tokens, "right");
    let second = cut(text("response_2", response_2)?, how.max_response_tokens, "right");
    let definition = definition(&principle, &how.principles);
    let ask = |a: &Expr, b: &Expr| {
        let fields = [
            ("instruction", &instruction),
            ("output_a", a),
            ("output_b", b),
            ("principle", &principle),
            ("definition", &definition),
        ];
        let fields = fields.into_iter().flat_map(|(name, value)| [lit(name), value.clone()]).collect();
        let prompt = call(functions::render(&how.templates), vec![lit(how.template.as_str()), named_struct(fields)]);
        let answers = make_array(how.answers.iter().map(|answer| lit(answer.as_str())).collect());
        call(markers::one(ModelFunction::ChoiceLogits), vec![lit(name.as_str()), prompt, answers])
    };
    let (ab, ba) = (ask(&first, &second), ask(&second, &first));
    let logit = |of: &Expr, place: i64| array_element(of.clone(), lit(place));
    let score_ab = logit(&ab, 1) - logit(&ab, 2);
    let score_ba = logit(&ba, 2) - logit(&ba, 1);
    let both = |of: fn(Expr, Expr) -> Expr| of(score_ab.clone(), lit(0.0)).and(of(score_ba.clone(), lit(0.0)));
    let unread = score_ab.clone().is_null().or(score_ba.clone().is_null());
    let verdict = when(unread, lit("unread"))
        .when(both(Expr::gt), lit("first"))
        .when(both(Expr::lt), lit("second"))
        .otherwise(lit("tie"))?;
    let score = (score_ab.clone() + score_ba.clone()) / lit(2.0);
    Ok(named_struct(vec![
        lit("score"),
        score,
        lit("score_ab"),
        score_ab,
        lit("score_ba"),
        score_ba,
        lit("verdict"),
        verdict,
    ]))
}

fn call(function: ScalarUDF, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args))
}

/// The definition of a principle by its name; any other text is its own.
fn definition(principle: &Expr, known: &BTreeMap<String, String>) -> Expr {
    if known.is_empty() {
        return principle.clone();
    }
    let cases = known
        .iter()
        .map(|(name, definition)| (Box::new(lit(name.as_str())), Box::new(lit(definition.as_str()))))
        .collect();
    Expr::Case(Case::new(Some(Box::new(principle.clone())), cases, Some(Box::new(principle.clone()))))
}

fn text(what: &str, expr: &Expr, schema: &DFSchemaRef) -> Result<Expr> {
    match expr.get_type(schema)? {
        DataType::Utf8 => Ok(expr.clone()),
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
            Ok(expr.clone().cast_to(&DataType::Utf8, schema)?)
        }
        other => Err(Error::query(NAME, format!("{what} ({expr}) must be text, not {other}; expected {SYNTAX}"))),
    }
}

impl ScalarUDFImpl for Judge {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        Ok(DataType::Struct(Fields::from(vec![
            field("score", DataType::Float64),
            field("score_ab", DataType::Float64),
            field("score_ba", DataType::Float64),
            field("verdict", DataType::Utf8),
        ])))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Err(Error::query(NAME, "a model call runs as an operator; compute it in a subquery first").into())
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOC)
    }
}

static DOC: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        MODEL_SECTION,
        "Compares two responses under one principle with the judge's template of the run, in both orders. Gives a struct as \
         in table judgments: `score_ab` double, logit of the first answer minus logit of the second, positive where \
         response_1 is better; `score_ba` double, the same with the responses in the other order and the sign turned; \
         `score` double, their mean; `verdict` `first`, `second`, `tie` (the orders disagree) or `unread` (too long for \
         the model; then there are no scores).",
        SYNTAX,
        &[
            MODEL,
            ("principle", "name of a principle of the run, whose definition is then shown, or any text"),
            ("instruction", "text, what was asked"),
            ("response_1", "text"),
            ("response_2", "text"),
        ],
        "SELECT prompt_id, judge('sft', 'Concise', prompt, chosen, rejected)['verdict'] AS verdict FROM preferences",
    )
});
