//! What the tests of `sql/*.sql` share: a model whose every answer is a plain function of the prompt's text, tables
//! from JSON rows, and typed access to what a statement gives.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use salmon::draw::key;
use salmon::engine::{Finish, Generation, Inference, Output, Request, Sampling, Task};
use salmon::model::Tokenizer;
use salmon::principle::{Library, Templates};
use salmon::query::{Models, Params, SessionOptions, register_batches, session, sql};
use serde_json::{Value, json};

/// Longest sequence of the model, in tokens; a token is a letter.
pub const CONTEXT: usize = 3000;

/// One token per letter, so that cutting by tokens is cutting by letters.
pub fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
        let letters = std::iter::once('\n').chain((32..127u8).map(char::from));
        let mut vocab: BTreeMap<String, usize> = letters.enumerate().map(|(id, c)| (c.to_string(), id + 1)).collect();
        vocab.insert("<unk>".into(), 0);
        let json = json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false},
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        });
        Arc::new(Tokenizer::from_bytes(json.to_string().as_bytes(), "letters").unwrap())
    });
    Arc::clone(&TOKENIZER)
}

/// A model that answers with one of `texts`, and with numbers drawn from the prompt's text.
#[derive(Debug)]
pub struct Toy {
    pub texts: Vec<&'static str>,
}

/// What the toy model generates.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub finish: &'static str,
    pub ids: Vec<u32>,
    pub logprob: f64,
}

impl Toy {
    /// The answer for a rendered prompt, by the sampling settings and the key of the row.
    pub fn generate(&self, prompt: &str, sampling: &Sampling, seed: u64, row: &str) -> Answer {
        self.answer(prompt, sampling, key(seed, &[row]).bits())
    }

    fn answer(&self, prompt: &str, sampling: &Sampling, row: u64) -> Answer {
        if prompt.chars().count() + 1 > CONTEXT {
            return Answer { text: String::new(), finish: "prompt_too_long", ids: vec![], logprob: 0.0 };
        }
        let settings = format!("{} {} {:?}", sampling.temperature, sampling.top_p, sampling.stop);
        let choice = key(row, &[prompt, &settings]).below(0, self.texts.len() as u64);
        let whole = self.texts[choice as usize];
        let text: String = whole.chars().take(sampling.max_tokens).collect();
        let finish = if text == whole { "stop" } else { "length" };
        let ids = tokenizer().encode(&text, false).unwrap();
        let logprob = ids.iter().map(|id| f64::from(-(*id as f32) / 64.0)).sum();
        Answer { text, finish, ids, logprob }
    }

    /// The next-token logit of one letter after a prompt.
    pub fn logit(prompt: &str, letter: &str) -> f64 {
        f64::from((4.0 * key(1, &[prompt, letter]).normal(0)) as f32)
    }

    /// The reward of a rendered prompt; none beyond the context.
    pub fn reward(prompt: &str) -> f64 {
        f64::from(key(2, &[prompt]).normal(0) as f32)
    }
}

impl Inference for Toy {
    fn tokenizer(&self) -> &Arc<Tokenizer> {
        static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(tokenizer);
        &TOKENIZER
    }

    fn context(&self) -> usize {
        CONTEXT
    }

    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, salmon::Result<Vec<Output>>> {
        let answer = |request: &Request| {
            let prompt = self.tokenizer().decode(&request.prompt).unwrap();
            match &request.task {
                Task::Generate { sampling, key } => {
                    let made = self.answer(&prompt, sampling, key.bits());
                    let finish = if made.finish == "stop" { Finish::Stop } else { Finish::Length };
                    let logprobs = made.ids.iter().map(|id| -(*id as f32) / 64.0).collect();
                    Output::Generation(Generation { ids: made.ids, text: made.text, logprobs, finish })
                }
                Task::Choice { tokens } => {
                    let logit = |id: &u32| Toy::logit(&prompt, &self.tokenizer().decode(&[*id]).unwrap()) as f32;
                    Output::Logits(tokens.iter().map(logit).collect())
                }
                Task::Reward => Output::Reward(Toy::reward(&prompt) as f32),
                Task::Logprobs { .. } => unreachable!("no statement here asks for it"),
            }
        };
        let outputs = requests.iter().map(answer).collect();
        Box::pin(async { Ok(outputs) })
    }
}

/// The built-in templates, with the library of the pocket world.
pub fn templates() -> Arc<Templates> {
    static TEMPLATES: LazyLock<Arc<Templates>> = LazyLock::new(|| {
        let library = Library::load(std::path::Path::new("."), &["pocket".to_string()]).unwrap();
        Arc::new(Templates::load(None, &library).unwrap())
    });
    Arc::clone(&TEMPLATES)
}

pub fn render(template: &str, values: Value) -> String {
    templates().render(template, values).unwrap()
}

/// A session with the toy model under some names.
pub struct Bench {
    pub context: SessionContext,
}

impl Bench {
    pub fn new(models: &[&str], texts: &[&'static str], partitions: usize) -> Self {
        let catalog = Arc::new(Models::new());
        let toy: Arc<dyn Inference> = Arc::new(Toy { texts: texts.to_vec() });
        for name in models {
            let toy = Arc::clone(&toy);
            catalog.register(*name, move || Ok(Arc::clone(&toy)));
        }
        // Small batches, so that rows come in several.
        let options = SessionOptions { target_partitions: partitions, batch_size: 64, ..SessionOptions::default() };
        Bench { context: session(catalog, templates(), &options).unwrap() }
    }

    pub fn table(self, name: &str, schema: SchemaRef, rows: &[Value]) -> Self {
        self.put(name, schema, rows);
        self
    }

    /// Table `name`, in place of one that has the name.
    pub fn put(&self, name: &str, schema: SchemaRef, rows: &[Value]) {
        let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(64).build_decoder().unwrap();
        let mut batches = Vec::new();
        for chunk in rows.chunks(64) {
            decoder.serialize(chunk).unwrap();
            batches.extend(decoder.flush().unwrap());
        }
        register_batches(&self.context, name, schema, batches).unwrap();
    }

    /// Table `known_<table>` without rows; `key` are text columns beyond those of the table.
    pub fn nothing_known(self, table: &str, key: &[&str]) -> Self {
        let mut fields = schema(table).fields().to_vec();
        fields.extend(key.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, true))));
        register_batches(&self.context, &format!("known_{table}"), Arc::new(Schema::new(fields)), vec![]).unwrap();
        self
    }

    pub async fn run(&self, text: &str, params: &Params) -> Rows {
        let frame = sql(&self.context, text, params).await.unwrap();
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Rows(concat_batches(&schema, &frame.collect().await.unwrap()).unwrap())
    }
}

impl Bench {
    /// The rows of each of `shards` shards of a statement that is cut into shards, which it gives one by one as it gives
    /// them in one run; and in that run nothing waits for the model's last answer.
    pub async fn shards(&self, text: &str, params: &Params, shards: i64) -> Vec<Rows> {
        let some = |first: i64, end: i64| {
            params.clone().with("first_shard", first).with("end_shard", end).with("shards", shards)
        };
        let mut rows = Vec::new();
        for shard in 0..shards {
            let got = self.run(text, &some(shard, shard + 1)).await;
            assert!((0..got.len()).all(|row| got.int(row, "shard") == Some(shard)));
            rows.push(got);
        }
        let whole = self.run(text, &some(0, shards)).await;
        assert_eq!(whole.0, concat_batches(&whole.0.schema(), rows.iter().map(|rows| &rows.0)).unwrap());
        let plan = sql(&self.context, text, &some(0, shards)).await.unwrap().create_physical_plan().await.unwrap();
        assert_streams(&displayable(plan.as_ref()).indent(false).to_string());
        rows
    }
}

/// Checks that no operator above a model keeps rows back.
fn assert_streams(plan: &str) {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = plan.lines().collect();
    let models: Vec<usize> = (0..lines.len()).filter(|&at| lines[at].trim_start().starts_with("ModelExec")).collect();
    assert!(!models.is_empty(), "{plan}");
    for model in models {
        let mut below = depth(lines[model]);
        for line in lines[..model].iter().rev().filter(|line| !line.is_empty()) {
            if depth(line) < below {
                below = depth(line);
                let keeps = ["SortExec", "Aggregate", "Window", "HashJoin"].iter().any(|name| line.contains(name));
                assert!(!keeps, "an operator above the model waits for its last answer:\n{plan}");
            }
        }
    }
}

/// The table's schema, as a statement reads it.
pub fn schema(table: &str) -> SchemaRef {
    salmon::table::by_name(table).unwrap().schema()
}

/// A schema of nullable columns.
pub fn columns(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

pub fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// A statement's rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows(pub RecordBatch);

/// A principle as it stands in a list of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    pub name: String,
    pub negated: bool,
    pub text: String,
    pub score: Option<f64>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    fn column(&self, name: &str) -> &dyn Array {
        self.0.column_by_name(name).unwrap_or_else(|| panic!("no column {name}")).as_ref()
    }

    pub fn text(&self, row: usize, name: &str) -> Option<&str> {
        let column = self.column(name);
        if column.data_type().is_null() {
            return None;
        }
        let column = column.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row))
    }

    pub fn int(&self, row: usize, name: &str) -> Option<i64> {
        let column = self.column(name).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    }

    pub fn real(&self, row: usize, name: &str) -> Option<f64> {
        let column = self.column(name).as_primitive::<Float64Type>();
        column.is_valid(row).then(|| column.value(row))
    }

    pub fn flag(&self, row: usize, name: &str) -> bool {
        let column = self.column(name).as_boolean();
        assert!(column.is_valid(row));
        column.value(row)
    }

    pub fn ids(&self, row: usize, name: &str) -> Vec<u32> {
        let list = self.column(name).as_list::<i32>().value(row);
        list.as_primitive::<Int64Type>().values().iter().map(|id| *id as u32).collect()
    }

    pub fn principles(&self, row: usize) -> Vec<Drawn> {
        let list = self.column("principles").as_list::<i32>().value(row);
        let list = list.as_struct();
        let [names, negated, texts, scores] =
            ["name", "negated", "text", "score"].map(|name| list.column_by_name(name).unwrap());
        let scores = scores.as_primitive::<Float64Type>();
        (0..list.len())
            .map(|i| Drawn {
                name: names.as_string::<i32>().value(i).to_string(),
                negated: negated.as_boolean().value(i),
                text: texts.as_string::<i32>().value(i).to_string(),
                score: scores.is_valid(i).then(|| scores.value(i)),
            })
            .collect()
    }
}

/// `uniform(seed, keys..)` of SQL.
pub fn uniform(seed: u64, keys: &[&str]) -> f64 {
    key(seed, keys).uniform(0)
}

/// The first of `shards` parts, as the statements part prompts.
pub fn shard(prompt: &str, shards: i64) -> i64 {
    (uniform(0, &["shard", prompt]) * shards as f64).floor() as i64
}

/// Whether two numbers are equal but for rounding.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

/// Upper bound of a chi-square statistic with `freedom` degrees of freedom: exceeded once in about a million
/// (Wilson and Hilferty's approximation at 4.75 deviations).
pub fn chi_square_bound(freedom: usize) -> f64 {
    let k = freedom as f64;
    k * (1.0 - 2.0 / (9.0 * k) + 4.75 * (2.0 / (9.0 * k)).sqrt()).powi(3)
}

/// The chi-square statistic of counts against probabilities.
pub fn chi_square(counts: &[f64], probabilities: &[f64]) -> f64 {
    let n: f64 = counts.iter().sum();
    counts.iter().zip(probabilities).map(|(o, p)| (o - n * p).powi(2) / (n * p)).sum()
}
