//! The functions that users write for model calls. They only mark the place: the analyser takes them out.
//!
//! In: a name and arguments in SQL. Out: the type of the result, for the planner; nothing is ever computed here.

use std::sync::LazyLock;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::call::ModelFunction;
use super::functions::{MODEL_SECTION, documentation};
use super::judge;
use super::options::OPTIONS;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    function: ModelFunction,
    signature: Signature,
}

/// One marker per model function.
pub(super) fn all() -> Vec<ScalarUDF> {
    ModelFunction::ALL.into_iter().map(one).chain([judge::marker()]).collect()
}

/// The marker of one function. Volatile keeps everything that runs before the analyser from folding or repeating a call.
pub(super) fn one(function: ModelFunction) -> ScalarUDF {
    ScalarUDF::new_from_impl(Marker { function, signature: Signature::variadic_any(Volatility::Volatile) })
}

/// The model function and its arguments, if `expression` is a model call.
pub(super) fn as_call(expression: &Expr) -> Option<(ModelFunction, &[Expr])> {
    let Expr::ScalarFunction(call) = expression else { return None };
    let marker = call.func.inner().downcast_ref::<Marker>()?;
    Some((marker.function, &call.args))
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.function.output_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(crate::Error::query(self.name(), "a model call runs as an operator; compute it in a subquery first").into())
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(match self.function {
            ModelFunction::Generate => &GENERATE,
            ModelFunction::ChoiceLogits => &CHOICE_LOGITS,
            ModelFunction::Reward => &REWARD,
            ModelFunction::Logprobs => &LOGPROBS,
        })
    }
}

pub(super) const MODEL: (&str, &str) = ("model", "name of a model of the run, a literal or a $parameter");
const PROMPT: (&str, &str) = ("prompt", "text; it is encoded with the model's tokenizer, after its begin token");

static GENERATE: LazyLock<Documentation> = LazyLock::new(|| {
    let options: String = OPTIONS.iter().map(|(name, meaning)| format!("\n  - `{name}`: {meaning}")).collect();
    let options = format!("a struct of named values, literals or $parameters (`row` takes any expression){options}");
    documentation(
        MODEL_SECTION,
        "Samples a response. Gives a struct: `response` text, without the end token and cut before a stop text; `ids` \
         list of bigint, the sampled token ids with the end token; `tokens` bigint, their number; `finish_reason` \
         `stop`, `length` or `prompt_too_long` (then the response is empty); `logprobs` list of double, the \
         log-probability of each id at temperature 1, nats; `logprob` double, their sum. NULL prompt: NULL. \
         The draws of a row depend on `seed` and `row` only, not on its place in the table.",
        ModelFunction::Generate.syntax(),
        &[MODEL, PROMPT, ("options", &options)],
        "SELECT prompt_id, g.response, g.tokens FROM (SELECT prompt_id, generate('sft', instruction, \
         {temperature: 0.7, max_tokens: 128, stop: ['###'], seed: 42, row: prompt_id}) AS g FROM prompts) AS t",
    )
});

static CHOICE_LOGITS: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        MODEL_SECTION,
        "Logits of the next token after the prompt, one double per choice. NULL where the prompt is NULL or does not \
         fit the context.",
        ModelFunction::ChoiceLogits.syntax(),
        &[MODEL, PROMPT, ("choices", "list of texts, each exactly one token of the model, a literal or a $parameter")],
        "SELECT l[1] - l[2] AS score FROM (SELECT choice_logits('sft', prompt, ['a', 'b']) AS l FROM judge_prompts) AS t",
    )
});

static REWARD: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        MODEL_SECTION,
        "The score of the model's reward head at the last token of the prompt, double. NULL where the prompt is NULL or \
         does not fit the context.",
        ModelFunction::Reward.syntax(),
        &[MODEL, PROMPT],
        "SELECT prompt_id, reward('reward', prompt) AS score FROM reward_prompts",
    )
});

static LOGPROBS: LazyLock<Documentation> = LazyLock::new(|| {
    documentation(
        MODEL_SECTION,
        "Log-probability of each token of the response after the prompt, nats, list of double. NULL where prompt or \
         response is NULL or both together do not fit the context.",
        ModelFunction::Logprobs.syntax(),
        &[MODEL, PROMPT, ("response", "text, or the list of token ids that generate gave back")],
        "SELECT logprobs('sft', prompt, chosen) AS lp FROM preferences",
    )
});
