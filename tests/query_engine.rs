//! The operators over the real engine: a small random model, the same answers in SQL as one request at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use salmon::draw;
use salmon::engine::{Engine, EngineOptions, Inference, Output, Request, Sampling, Task};
use salmon::model::{Head, ModelConfig};
use salmon::query::{SessionOptions, register_batches};

use crate::query_support::{CONTEXT, World, one_partition, prompt, table, tokenizer};

/// Two layers of 16, with draws for weights.
fn engine() -> Engine {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "vocab_size": 10, "hidden_size": 16,
        "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": CONTEXT, "tie_word_embeddings": true,
        "bos_token_id": 0, "eos_token_id": 9, "torch_dtype": "float32",
    });
    let config = ModelConfig::from_json(json.as_object().unwrap().clone(), "test").unwrap();
    let mut shapes: Vec<(String, Vec<i64>)> =
        vec![("model.embed_tokens.weight".into(), vec![10, 16]), ("score.weight".into(), vec![1, 16])];
    for layer in 0..2 {
        for (name, shape) in [
            ("self_attn.q_proj", vec![16, 16]),
            ("self_attn.k_proj", vec![8, 16]),
            ("self_attn.v_proj", vec![8, 16]),
            ("self_attn.o_proj", vec![16, 16]),
            ("mlp.gate_proj", vec![32, 16]),
            ("mlp.up_proj", vec![32, 16]),
            ("mlp.down_proj", vec![16, 32]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![16]));
        }
    }
    shapes.push(("model.norm.weight".into(), vec![16]));
    let mut weights = BTreeMap::new();
    for (name, shape) in shapes {
        let key = draw::key(1, &[&name]);
        let numbers = shape.iter().product::<i64>() as u64;
        let values: Vec<f32> = (0..numbers).map(|n| key.normal(n) as f32 * 0.5).collect();
        weights.insert(name, tch::Tensor::from_slice(&values).reshape(shape));
    }
    let options = EngineOptions { workers: 2, kv_bytes: 1 << 20, ..EngineOptions::default() };
    Engine::new(&config, weights, tokenizer(), Head::Linear, options).unwrap()
}

const QUERY: &str = "SELECT id, generate('real', prompt, {temperature: 0.8, max_tokens: 5, seed: 3, row: id}) AS g,
    choice_logits('real', prompt, ['a', 'b']) AS c, reward('real', prompt) AS r,
    logprobs('real', prompt, 'red one') AS l FROM t ORDER BY id";

fn doubles(column: &dyn Array, row: usize) -> Vec<f64> {
    column.as_list::<i32>().value(row).as_primitive::<Float64Type>().values().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_gives_what_the_engine_gives_one_request_at_a_time() {
    let engine: Arc<dyn Inference> = Arc::new(engine());
    let mut shown: Option<RecordBatch> = None;
    for (batch_size, micro_batch, in_flight) in [(1, 64, 4), (1000, 1, 2), (1000, 64, 4)] {
        let world = World::new(0, &SessionOptions { batch_size, micro_batch, in_flight, ..one_partition() });
        let whole = table(40);
        let batches = (0..40).step_by(batch_size).map(|at| whole.slice(at, batch_size.min(40 - at))).collect();
        register_batches(&world.context, "t", whole.schema(), batches).unwrap();
        let shared = Arc::clone(&engine);
        world.models.register("real", move || Ok(Arc::clone(&shared)));
        let batches = world.batches(QUERY).await.unwrap();
        let got = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(got.num_rows(), 40);
        match &shown {
            None => shown = Some(got),
            Some(first) => assert_eq!(first, &got),
        }
    }
    let shown = shown.unwrap();
    let generations = shown.column(1).as_struct();
    for row in 0..40 {
        let Some(text) = prompt(row as i64) else {
            assert!((1..5).all(|column| shown.column(column).is_null(row)));
            continue;
        };
        let ids = engine.tokenizer().encode(&text, true).unwrap();
        if ids.len() > CONTEXT {
            assert_eq!(generations.column(3).as_string::<i32>().value(row), "prompt_too_long");
            continue;
        }
        let sampling = Sampling { temperature: 0.8, top_p: 1.0, top_k: 0, max_tokens: 5, stop: Vec::new() };
        let tasks = [
            Task::Generate { sampling: Arc::new(sampling), key: draw::key(3, &[&row.to_string()]) },
            Task::Choice { tokens: vec![1, 2] },
            Task::Reward,
            Task::Logprobs { response: vec![4, 7] },
        ];
        for task in tasks {
            let outputs = engine.submit(vec![Request { prompt: ids.clone(), task }]).await.unwrap();
            match &outputs[0] {
                Output::Generation(g) => {
                    let ids = generations.column(1).as_list::<i32>().value(row);
                    let ids: Vec<u32> = ids.as_primitive::<Int64Type>().values().iter().map(|id| *id as u32).collect();
                    assert_eq!(ids, g.ids);
                    assert_eq!(generations.column(0).as_string::<i32>().value(row), g.text);
                    let logprobs: Vec<f64> = g.logprobs.iter().map(|x| f64::from(*x)).collect();
                    assert_eq!(doubles(generations.column(4), row), logprobs);
                }
                Output::Logits(values) => {
                    assert_eq!(doubles(shown.column(2), row), values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
                }
                Output::Logprobs(values) => {
                    assert_eq!(doubles(shown.column(4), row), values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
                }
                Output::Reward(value) => {
                    assert_eq!(shown.column(3).as_primitive::<Float64Type>().value(row), f64::from(*value));
                }
            }
        }
    }
}
