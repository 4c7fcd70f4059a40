//! What the query tests share: a small model that counts what it is asked, tables, and runs of SQL.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use salmon::engine::{Finish, Generation, Inference, Output, Request, Task};
use salmon::model::Tokenizer;
use salmon::principle::{Library, Templates};
use salmon::query::{Judging, Models, Params, SessionOptions, register_batches, session, sql};
use tokio::sync::Semaphore;

/// Ten words, of which `<s>` stands before every prompt.
pub const WORDS: [&str; 10] = ["<s>", "a", "b", "c", "red", "green", "blue", "one", "two", "three"];

pub fn tokenizer() -> Arc<Tokenizer> {
    let vocab: BTreeMap<&str, usize> = WORDS.iter().enumerate().map(|(id, word)| (*word, id)).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<s>"},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"bos_token": "<s>"}"#).unwrap();
    Arc::new(Tokenizer::open(folder.path()).unwrap())
}

/// A model whose answers are simple functions of the request. It counts, and it can be held back.
#[derive(Debug)]
pub struct Fake {
    pub tokenizer: Arc<Tokenizer>,
    pub log: Arc<Log>,
    /// Each submission waits for a permit, if there is one.
    gate: Option<Arc<Semaphore>>,
    fail: bool,
}

/// What a [`Fake`] was asked.
#[derive(Debug, Default)]
pub struct Log {
    pub submissions: AtomicUsize,
    pub requests: AtomicUsize,
    pub finished: AtomicUsize,
    pub cancelled: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    in_flight: AtomicUsize,
    pub sizes: Mutex<Vec<usize>>,
}

impl Log {
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

/// Longest sequence of the fake model, tokens.
pub const CONTEXT: usize = 12;

impl Fake {
    pub fn new() -> Self {
        static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(tokenizer);
        Fake { tokenizer: Arc::clone(&TOKENIZER), log: Arc::default(), gate: None, fail: false }
    }

    pub fn gated(gate: &Arc<Semaphore>) -> Self {
        Fake { gate: Some(Arc::clone(gate)), ..Fake::new() }
    }

    pub fn failing() -> Self {
        Fake { fail: true, ..Fake::new() }
    }

    /// The plain form of what the model answers, one request at a time.
    pub fn answer(tokenizer: &Tokenizer, request: &Request) -> Output {
        let sum: u32 = request.prompt.iter().sum();
        match &request.task {
            Task::Generate { sampling, key } => {
                let room = sampling.max_tokens.min(CONTEXT - request.prompt.len());
                let wanted = 1 + key.below(99, 6) as usize;
                let ids: Vec<u32> = (0..wanted.min(room)).map(|i| 1 + key.below(i as u64, 9) as u32).collect();
                let finish = if wanted <= room { Finish::Stop } else { Finish::Length };
                let text = tokenizer.decode(&ids).unwrap();
                let logprobs = ids.iter().map(|id| -(*id as f32) / 8.0).collect();
                Output::Generation(Generation { ids, text, logprobs, finish })
            }
            Task::Choice { tokens } => Output::Logits(tokens.iter().map(|token| (sum * token) as f32 / 4.0).collect()),
            Task::Logprobs { response } => {
                Output::Logprobs(response.iter().map(|id| -((sum + id) as f32) / 16.0).collect())
            }
            Task::Reward => Output::Reward(sum as f32 / 2.0),
        }
    }
}

/// Counts a submission as cancelled when it is dropped before its end.
struct InFlight(Arc<Log>, bool);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
        let counter = if self.1 { &self.0.finished } else { &self.0.cancelled };
        counter.fetch_add(1, SeqCst);
    }
}

impl Inference for Fake {
    fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    fn context(&self) -> usize {
        CONTEXT
    }

    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, salmon::Result<Vec<Output>>> {
        let (log, gate, fail) = (Arc::clone(&self.log), self.gate.clone(), self.fail);
        let tokenizer = Arc::clone(&self.tokenizer);
        let number = log.submissions.fetch_add(1, SeqCst);
        log.requests.fetch_add(requests.len(), SeqCst);
        log.sizes.lock().unwrap().push(requests.len());
        log.most_in_flight.fetch_max(log.in_flight.fetch_add(1, SeqCst) + 1, SeqCst);
        let guard = InFlight(log, false);
        Box::pin(async move {
            let mut guard = guard;
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            } else {
                // Earlier submissions take longer than later ones.
                for _ in 0..(7 - number.min(7)) {
                    tokio::task::yield_now().await;
                }
            }
            if fail {
                return Err(salmon::Error::model("fake", "out of tensors"));
            }
            let outputs = requests.iter().map(|request| Fake::answer(&tokenizer, request)).collect();
            guard.1 = true;
            Ok(outputs)
        })
    }
}

pub fn templates() -> Arc<Templates> {
    Arc::new(Templates::load(None, &Library::default()).unwrap())
}

/// A session with models `m` and `n` and table `t (id, prompt, kind)`.
pub struct World {
    pub context: SessionContext,
    pub models: Arc<Models>,
    /// What `m` was asked.
    pub m: Arc<Log>,
    /// What `n` was asked.
    pub n: Arc<Log>,
}

/// The prompts of table `t`: some NULL, one too long.
pub fn prompt(id: i64) -> Option<String> {
    match id {
        5 | 17 => None,
        8 => Some(["a"; CONTEXT + 3].join(" ")),
        _ => Some(format!("{} {}", WORDS[1 + id as usize % 9], WORDS[1 + (id as usize / 3) % 9])),
    }
}

pub fn table(rows: i64) -> RecordBatch {
    let ids: Vec<i64> = (0..rows).collect();
    let prompts: StringArray = ids.iter().map(|id| prompt(*id)).collect();
    let kinds: StringArray = ids.iter().map(|id| Some(["even", "odd"][*id as usize % 2])).collect();
    RecordBatch::try_from_iter(vec![
        ("id", Arc::new(Int64Array::from(ids)) as ArrayRef),
        ("prompt", Arc::new(prompts) as ArrayRef),
        ("kind", Arc::new(kinds) as ArrayRef),
    ])
    .unwrap()
}

/// How `judge` asks a fake.
pub fn judging() -> Arc<Judging> {
    Arc::new(Judging {
        templates: templates(),
        template: "judge".into(),
        answers: ["a".into(), "b".into()],
        max_query_tokens: 64,
        max_response_tokens: 64,
        principles: Default::default(),
    })
}

pub fn one_partition() -> SessionOptions {
    SessionOptions { target_partitions: 1, ..SessionOptions::default() }
}

impl World {
    pub fn new(rows: i64, options: &SessionOptions) -> Self {
        Self::with(Fake::new(), rows, options)
    }

    pub fn with(m: Fake, rows: i64, options: &SessionOptions) -> Self {
        let n = Fake::new();
        let (m_log, n_log) = (Arc::clone(&m.log), Arc::clone(&n.log));
        let models = Arc::new(Models::new());
        let (m, n): (Arc<dyn Inference>, Arc<dyn Inference>) = (Arc::new(m), Arc::new(n));
        models.register("m", move || Ok(Arc::clone(&m)));
        models.register("n", move || Ok(Arc::clone(&n)));
        let context = session(Arc::clone(&models), templates(), options).unwrap();
        let batch = table(rows);
        register_batches(&context, "t", batch.schema(), vec![batch]).unwrap();
        World { context, models, m: m_log, n: n_log }
    }

    pub async fn batches(&self, text: &str) -> salmon::Result<Vec<RecordBatch>> {
        Ok(sql(&self.context, text, &Params::new()).await?.collect().await?)
    }

    /// The result as a table in text.
    pub async fn show(&self, text: &str) -> String {
        pretty_format_batches(&self.batches(text).await.unwrap()).unwrap().to_string()
    }

    /// The rows of the result.
    pub async fn count(&self, text: &str) -> usize {
        self.batches(text).await.unwrap().iter().map(RecordBatch::num_rows).sum()
    }

    /// The error's one line, and that the model was not asked.
    pub async fn refused(&self, text: &str) -> String {
        let error = self.batches(text).await.unwrap_err().to_string();
        assert_eq!(self.m.requests() + self.n.requests(), 0, "{text}");
        assert!(!error.contains('\n'));
        error
    }

    /// The optimised and the physical plan.
    pub async fn plan(&self, text: &str) -> String {
        let frame = sql(&self.context, text, &Params::new()).await.unwrap();
        let logical = frame.clone().into_optimized_plan().unwrap().display_indent().to_string();
        let physical = frame.create_physical_plan().await.unwrap();
        let physical = datafusion::physical_plan::displayable(physical.as_ref()).indent(false).to_string();
        format!("{logical}\n--\n{}", physical.trim_end())
    }
}
