//! A policy and a reward model with tokenizers of their own: between them goes text, and each reads it its own way.

use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use salmon::draw;
use salmon::engine::{Engine, EngineOptions, Inference, Output, Request, Sampling, Task};
use salmon::model::{Head, PlainWeights, Tokenizer};
use salmon::query::register_batches;
use tch::Kind;

use crate::query_support::{World, one_partition, prompt, table};
use crate::random_llama::{Shape, write};

/// A random model whose vocabulary was learned from these texts.
fn engine(folder: &Path, texts: &[&str], vocab: usize, head: Head, seed: u64) -> Arc<dyn Inference> {
    let texts: Vec<String> = texts.iter().map(|text| text.repeat(20)).collect();
    write(folder, &texts, Shape { vocab, hidden: 16, layers: 1, context: 256 }, seed).unwrap();
    let weights = PlainWeights::open(folder, Kind::Float).unwrap();
    let tokenizer = Arc::new(Tokenizer::open(folder).unwrap());
    let config = weights.config().clone();
    Arc::new(
        Engine::new(&config, weights, tokenizer, head, EngineOptions { workers: 1, ..Default::default() }).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reward_model_reads_the_policys_text_with_its_own_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let (p, r) = (folder.path().join("policy"), folder.path().join("reward"));
    let policy = engine(&p, &["red one two ", "green three "], 270, Head::None, 1);
    let reward = engine(&r, &["of the and ing ", "wholly other words "], 330, Head::YesNo { yes: 4, no: 5 }, 2);
    assert_ne!(policy.tokenizer().vocab_size(), reward.tokenizer().vocab_size());

    let world = World::new(0, &one_partition());
    let rows = table(12);
    register_batches(&world.context, "t", rows.schema(), vec![rows]).unwrap();
    for (name, engine) in [("own_policy", &policy), ("own_reward", &reward)] {
        let engine = Arc::clone(engine);
        world.models.register(name, move || Ok(Arc::clone(&engine)));
    }
    let sql =
        "WITH g AS (SELECT id, generate('own_policy', prompt, {temperature: 1.0, max_tokens: 12, seed: 3, row: id})
                 ['response'] AS response FROM t WHERE prompt IS NOT NULL)
               SELECT id, response, reward('own_reward', response) AS score FROM g ORDER BY id";
    let batches = world.batches(sql).await.unwrap();
    let got = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let (mut compared, mut differ) = (0, 0);
    let mut prompts = (0..12).filter_map(|id| Some((id, prompt(id)?)));
    for row in 0..got.num_rows() {
        let (id, prompt) = prompts.next().unwrap();
        // The policy answers in its own tokens ..
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 12, stop: Vec::new() };
        let task = Task::Generate { sampling: Arc::new(sampling), key: draw::key(3, &[&id.to_string()]) };
        let ids = policy.tokenizer().encode(&prompt, true).unwrap();
        let outputs = policy.submit(vec![Request { prompt: ids, task }]).await.unwrap();
        let Output::Generation(said) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(got.column(1).as_string::<i32>().value(row), said.text);
        // .. and the reward model scores the text, in its own.
        let theirs = reward.tokenizer().encode(&said.text, true).unwrap();
        differ += usize::from(theirs[1..] != said.ids);
        let outputs = reward.submit(vec![Request { prompt: theirs, task: Task::Reward }]).await.unwrap();
        let Output::Reward(score) = outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(got.column(2).as_primitive::<Float64Type>().value(row), f64::from(score), "{said:?}");
        compared += 1;
    }
    assert!(compared >= 8 && differ >= 8, "{compared} rows, {differ} with other tokens");
}
