//! The tables of a run: names, columns and what they mean, the same in SQL, Rust, Parquet and the docs.
//!
//! In: nothing. Out: a [`Table`] per name, whose Arrow schema every sink casts to and every reader expects.
//! [`markdown`] is the page of all of them (`docs/tables.md`).

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use crate::{Error, Result};

/// One column: its name, type, whether it may be null, and its meaning.
#[derive(Debug, Clone)]
pub struct Column {
    /// The name, the same everywhere.
    pub name: &'static str,
    /// The Arrow type.
    pub data_type: DataType,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// What it means, with its unit.
    pub doc: &'static str,
}

/// One table of a run.
#[derive(Debug, Clone)]
pub struct Table {
    /// The name in SQL and in the store.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// The columns in order.
    pub columns: Vec<Column>,
}

impl Table {
    /// The Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns.iter().map(|c| Field::new(c.name, c.data_type.clone(), c.nullable)).collect();
        Arc::new(Schema::new(fields))
    }
}

const TEXT: DataType = DataType::Utf8;
const INT: DataType = DataType::Int64;
const REAL: DataType = DataType::Float64;
const FLAG: DataType = DataType::Boolean;

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// `struct<name, negated, text, score>`: one principle as it stood in a prompt. `score` is the signed,
/// variance-normalised score in `preferences`, null where there is none.
pub fn drawn_principle() -> DataType {
    DataType::Struct(Fields::from(vec![
        Field::new("name", TEXT, true),
        Field::new("negated", FLAG, true),
        Field::new("text", TEXT, true),
        Field::new("score", REAL, true),
    ]))
}

fn column(name: &'static str, data_type: DataType, doc: &'static str) -> Column {
    Column { name, data_type, nullable: false, doc }
}

fn optional(name: &'static str, data_type: DataType, doc: &'static str) -> Column {
    Column { name, data_type, nullable: true, doc }
}

/// Every table of a run, in the order the pipeline makes them.
pub fn all() -> Vec<Table> {
    vec![
        principles(),
        prompts(),
        demonstrations(),
        responses(),
        pairs(),
        judgments(),
        preferences(),
        rollouts(),
        answers(),
        metrics(),
        evaluations(),
        runs(),
    ]
}

/// The table of that name, which our own code says is one.
///
/// # Errors
/// An internal error when it is none.
pub(crate) fn declared(name: &str) -> Result<Table> {
    by_name(name).ok_or_else(|| Error::internal(format!("table {name}"), "is not a table of a run"))
}

/// The table of that name.
pub fn by_name(name: &str) -> Option<Table> {
    all().into_iter().find(|table| table.name == name)
}

const HEAD: &str = "\
# Tables

The tables of a run, in the order in which the pipeline makes them. This page is made from the program
(`src/table.rs`).

Names are the same in SQL, Rust and Parquet. Every table is there for `salmon sql` from the start, without rows until its
stage has run. Rows are not deleted: where a table has `kept`, a dropped row stays and `drop_reason` says why. Types are
those of SQL; a column may be NULL only where it says so.
";

/// `docs/tables.md`.
pub fn markdown() -> String {
    let mut page = HEAD.to_string();
    for table in all() {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {}\n\n{}\n\n| column | type | meaning |\n|---|---|---|\n", table.name, table.doc);
        for column in &table.columns {
            let null = if column.nullable { ", or NULL" } else { "" };
            let _ = writeln!(page, "| `{}` | {}{null} | {} |", column.name, sql_type(&column.data_type), column.doc);
        }
    }
    page
}

/// A type as the documentation calls it.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "text".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float64 => "double".into(),
        DataType::Boolean => "boolean".into(),
        DataType::List(item) => format!("list of {}", sql_type(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            format!("struct({})", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// Principles as the files give them.
pub fn principles() -> Table {
    Table {
        name: "principles",
        doc: "One principle, from the principle files.",
        columns: vec![
            column("name", TEXT, "short name, unique"),
            column("definition", TEXT, "what the judge and the reward model read"),
            optional("negative_definition", TEXT, "the opposite, shown when the principle is negated"),
            column("weight", REAL, "weight of the draw at RL time, 0 = never drawn"),
            column("sets", list(TEXT), "the sets it belongs to, e.g. reward, rl, harmless"),
            column("tags", list(TEXT), "free tags; a prompt kind's boost names a tag"),
        ],
    }
}

/// Cleaned prompts.
pub fn prompts() -> Table {
    Table {
        name: "prompts",
        doc: "One prompt, unique by its instruction.",
        columns: vec![
            column("prompt_id", TEXT, "stable id, a hash of the instruction unless the source had one"),
            column("instruction", TEXT, "what the user asks"),
            column("source", TEXT, "the dataset it came from"),
            column("kind", TEXT, "general, reasoning or red_teaming"),
            optional("language", TEXT, "ISO 639-3 code, null when unknown"),
            column("length_bonus", REAL, "multiplier of the length bonus in RL (1.0 general, -0.4 reasoning)"),
            column("split", TEXT, "train or test; test prompts are used by evaluation only"),
        ],
    }
}

/// Self-align answers and what became of them.
pub fn demonstrations() -> Table {
    Table {
        name: "demonstrations",
        doc: "One self-align answer of the base model, made with rules and exemplars in sight.",
        columns: vec![
            column("prompt_id", TEXT, "the prompt"),
            column("instruction", TEXT, "its instruction"),
            column("sample", INT, "which answer to the prompt, from 0"),
            optional("thoughts", TEXT, "internal thoughts before the answer, when the exemplars have them"),
            column("response", TEXT, "the answer after post-processing"),
            column("kept", FLAG, "whether SFT trains on it"),
            optional("drop_reason", TEXT, "why not: empty, too_short, unfinished, leaked_rules, ..."),
        ],
    }
}

/// Sampled responses.
pub fn responses() -> Table {
    Table {
        name: "responses",
        doc: "One sampled response of the SFT policy.",
        columns: vec![
            column("prompt_id", TEXT, "the prompt"),
            column("sample", INT, "which sample of the prompt, from 0"),
            column("response", TEXT, "its text, after cutting"),
            column("tokens", INT, "tokens sampled"),
            column("finish_reason", TEXT, "stop, length or prompt_too_long"),
            column("logprob", REAL, "sum of the sampled tokens' log-probabilities, nats, at temperature 1"),
            column("kept", FLAG, "whether it may enter a pair"),
            optional("drop_reason", TEXT, "why not: too_short, unfinished, prompt_too_long"),
        ],
    }
}

/// Pairs of responses to one prompt.
pub fn pairs() -> Table {
    Table {
        name: "pairs",
        doc: "Two responses to one prompt, or the reason why a prompt has none.",
        columns: vec![
            column("prompt_id", TEXT, "the prompt"),
            column("instruction", TEXT, "its instruction"),
            optional("language", TEXT, "its language"),
            column("split", TEXT, "train, or test for the pairs kept aside to measure the reward model"),
            optional("sample_1", INT, "sample of the first response"),
            optional("sample_2", INT, "sample of the second response"),
            optional("response_1", TEXT, "the first response"),
            optional("response_2", TEXT, "the second response"),
            column("kept", FLAG, "whether it is judged"),
            optional("drop_reason", TEXT, "why not: no_response, one_response, identical"),
        ],
    }
}

/// What the judge said.
pub fn judgments() -> Table {
    Table {
        name: "judgments",
        doc: "One pair under one principle, judged in both orders.",
        columns: vec![
            column("prompt_id", TEXT, "the prompt"),
            column("instruction", TEXT, "its instruction"),
            optional("language", TEXT, "its language"),
            column("split", TEXT, "train or test, from the pair"),
            column("sample_1", INT, "sample of the first response"),
            column("sample_2", INT, "sample of the second response"),
            column("response_1", TEXT, "the first response"),
            column("response_2", TEXT, "the second response"),
            column("principle", TEXT, "the principle's name"),
            optional("score_ab", REAL, "logit(a) - logit(b), the first response shown as (a); null when unread"),
            optional("score_ba", REAL, "the same with the order turned, sign turned back: positive favours the first"),
            column("verdict", TEXT, "first, second, tie when the orders disagree, unread beyond the context"),
        ],
    }
}

/// Labelled preferences.
pub fn preferences() -> Table {
    Table {
        name: "preferences",
        doc: "One labelled pair under drawn principles (TRL names).",
        columns: vec![
            column("prompt_id", TEXT, "the prompt"),
            column("pass", INT, "which aggregation pass drew the principles, from 0"),
            column("prompt", TEXT, "the instruction"),
            column("chosen", TEXT, "the preferred response"),
            column("rejected", TEXT, "the other one"),
            column("principles", list(drawn_principle()), "the principles in the reward prompt, in their order"),
            optional("dominant", TEXT, "the principle whose score decided"),
            column("margin", REAL, "magnitude of the deciding score"),
            optional("rule", TEXT, "the rule that overrode the scores: boilerplate or language"),
            column("flipped", FLAG, "whether label noise turned it"),
            column("first", FLAG, "whether chosen is shown first in the training batch"),
            column("split", TEXT, "train or test"),
            column("kept", FLAG, "whether the reward model trains on it"),
            optional("drop_reason", TEXT, "why not: tie, both_wrong_language, held_out, unread"),
        ],
    }
}

/// PPO rollouts, one file per step.
pub fn rollouts() -> Table {
    Table {
        name: "rollouts",
        doc: "One sampled response of one PPO step, with everything its update used.",
        columns: vec![
            column("policy", TEXT, "the policy's name in the configuration"),
            column("step", INT, "PPO step, from 0"),
            column("prompt_id", TEXT, "the prompt"),
            column("instruction", TEXT, "its instruction"),
            column("principles", list(drawn_principle()), "the principles in the reward prompt"),
            column("query_ids", list(INT), "token ids of the prompt"),
            column("response_ids", list(INT), "token ids of the response, with the end token when it stopped"),
            column("response", TEXT, "its text"),
            column("finish_reason", TEXT, "stop or length"),
            column("logprobs", list(REAL), "policy log-probability per response token, nats"),
            column("ref_logprobs", list(REAL), "the same of the reference"),
            column("values", list(REAL), "value estimate per response token"),
            column("score", REAL, "the reward model's output"),
            column("length_bonus", REAL, "added for length"),
            column("stop_penalty", REAL, "added where the response never stopped (negative)"),
            column("reward", REAL, "what the response earns before KL: shaped, scaled or whitened"),
            column("kl", REAL, "KL estimate of the response to the reference, nats"),
            column("advantages", list(REAL), "GAE advantage per response token, before whitening"),
            column("returns", list(REAL), "advantage + value per response token"),
        ],
    }
}

/// What the policies say to test prompts.
pub fn answers() -> Table {
    Table {
        name: "answers",
        doc: "What a policy answers to one test prompt; evaluations count over these rows.",
        columns: vec![
            column("policy", TEXT, "sft, or the policy's name in the configuration"),
            column("prompt_id", TEXT, "the prompt, of the split test"),
            column("instruction", TEXT, "its instruction"),
            column("sample", INT, "number of the answer to this prompt, from 0"),
            column("response", TEXT, "the text"),
            column("tokens", INT, "its tokens"),
            column("finish_reason", TEXT, "stop, length or prompt_too_long"),
            optional("kl", REAL, "log-probability against that under the SFT policy, nats; null for prompt_too_long"),
        ],
    }
}

/// Training metrics.
pub fn metrics() -> Table {
    Table {
        name: "metrics",
        doc: "One number of one training step (TRL names). Wall-clock times are in runs.",
        columns: vec![
            column("stage", TEXT, "sft, reward or policy:<name>"),
            column("step", INT, "optimizer or PPO step, from 1"),
            column("name", TEXT, "e.g. loss, rewards/accuracies, objective/kl"),
            column("value", REAL, "the number"),
        ],
    }
}

/// What was measured.
pub fn evaluations() -> Table {
    Table {
        name: "evaluations",
        doc: "One measured figure.",
        columns: vec![
            column("what", TEXT, "judge, reward, policy:sft or policy:<name>"),
            optional("principle", TEXT, "null for a figure over all"),
            optional("subset", TEXT, "e.g. single, negated, held_out_combination, reworded"),
            column("metric", TEXT, "agreement, accuracy, rate, words, facts, valid, kl, ..."),
            optional("value", REAL, "the figure; null when n is 0"),
            column("n", INT, "how many cases it is over"),
        ],
    }
}

/// What was run.
pub fn runs() -> Table {
    Table {
        name: "runs",
        doc: "One stage that ran to its commit.",
        columns: vec![
            column("stage", TEXT, "the stage"),
            column("name", TEXT, "the table or model it made"),
            column("fingerprint", TEXT, "the version it made"),
            column("inputs", list(TEXT), "name=fingerprint of each input"),
            column("rows", INT, "rows written (0 for a model)"),
            column("seconds", REAL, "wall-clock seconds"),
            column("started", TEXT, "UTC, RFC 3339"),
            column("host", TEXT, "the machine's name"),
            column("version", TEXT, "salmon's version"),
        ],
    }
}
