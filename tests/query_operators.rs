//! Model functions in SQL: what they give, and what they cost.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use salmon::draw;
use salmon::engine::{Inference, Output, Request, Sampling, Task};
use salmon::query::{Models, Params, SessionOptions, session, sql};
use tokio::sync::Semaphore;

use crate::query_support::{CONTEXT, Fake, World, one_partition, prompt, table, templates};

const ALL_FOUR: &str = "SELECT id,
    generate('m', prompt, {temperature: 0.7, max_tokens: 4, stop: ['###'], seed: 42, row: 'r/' || id}) AS g,
    choice_logits('m', prompt, ['a', 'b']) AS c,
    reward('m', prompt) AS r,
    logprobs('m', prompt, 'red blue') AS l
  FROM t ORDER BY id";

/// One row of [`ALL_FOUR`], computed without SQL, as JSON.
fn expected(id: i64) -> serde_json::Value {
    let tokenizer = Fake::new().tokenizer;
    let nothing = serde_json::json!({"id": id, "g": null, "c": null, "r": null, "l": null});
    let Some(text) = prompt(id) else { return nothing };
    let ids = tokenizer.encode(&text, true).unwrap();
    if ids.len() > CONTEXT {
        let mut row = nothing;
        row["g"] = serde_json::json!({"response": "", "ids": [], "tokens": 0, "finish_reason": "prompt_too_long",
            "logprobs": [], "logprob": 0.0});
        return row;
    }
    let ask = |task: Task| Fake::answer(&tokenizer, &Request { prompt: ids.clone(), task });
    let sampling = Sampling { temperature: 0.7, top_p: 1.0, top_k: 0, max_tokens: 4, stop: vec!["###".into()] };
    let key = draw::key(42, &[&format!("r/{id}")]);
    let Output::Generation(g) = ask(Task::Generate { sampling: Arc::new(sampling), key }) else { unreachable!() };
    let Output::Logits(c) = ask(Task::Choice { tokens: vec![1, 2] }) else { unreachable!() };
    let Output::Reward(r) = ask(Task::Reward) else { unreachable!() };
    let Output::Logprobs(l) = ask(Task::Logprobs { response: vec![4, 6] }) else { unreachable!() };
    let finish = if g.finish == salmon::engine::Finish::Stop { "stop" } else { "length" };
    serde_json::json!({"id": id, "g": {"response": g.text, "ids": g.ids, "tokens": g.ids.len(), "finish_reason": finish,
        "logprobs": g.logprobs, "logprob": g.logprobs.iter().sum::<f32>()}, "c": c, "r": r, "l": l})
}

async fn rows(context: &SessionContext, text: &str) -> Vec<serde_json::Value> {
    let batches = sql(context, text, &Params::new()).await.unwrap().collect().await.unwrap();
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap()
}

/// Numbers as they compare, whole or not.
fn normal(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => serde_json::json!(number.as_f64().unwrap()),
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::Object(fields) => Value::Object(fields.iter().map(|(k, v)| (k.clone(), normal(v))).collect()),
        other => other.clone(),
    }
}

#[tokio::test]
async fn streamed_in_any_pieces_equals_one_row_at_a_time() {
    let reference: Vec<_> = (0..50).map(|id| normal(&expected(id))).collect();
    for (batch_size, micro_batch, in_flight, target_partitions) in
        [(1, 64, 4, 1), (7, 3, 2, 1), (1000, 1, 3, 1), (1000, 64, 4, 1), (8, 16, 4, 3)]
    {
        let options = SessionOptions { batch_size, micro_batch, in_flight, target_partitions, ..one_partition() };
        let world = World::new(0, &options);
        // As many input batches and partitions as the options ask for.
        let whole = table(50);
        let batches = (0..50).step_by(batch_size).map(|at| whole.slice(at, batch_size.min(50 - at)));
        let mut partitions = vec![Vec::new(); target_partitions];
        for (i, batch) in batches.enumerate() {
            partitions[i % target_partitions].push(batch);
        }
        let mem = datafusion::datasource::MemTable::try_new(whole.schema(), partitions).unwrap();
        world.context.deregister_table("t").unwrap();
        world.context.register_table("t", Arc::new(mem)).unwrap();
        let got: Vec<_> = rows(&world.context, ALL_FOUR).await.iter().map(normal).collect();
        assert_eq!(got, reference, "batch size {batch_size}, micro-batch {micro_batch}");
        // 47 askable rows, four calls.
        assert_eq!(world.m.requests(), 47 * 4);
    }
}

#[tokio::test]
async fn the_same_call_runs_once_per_row() {
    for (text, requests) in [
        ("SELECT reward('m', prompt), reward('m', prompt) + 1 FROM t", 27),
        ("SELECT id FROM t WHERE reward('m', prompt) > 1 AND reward('m', prompt) < 9", 27),
        ("SELECT id, reward('m', prompt) FROM t WHERE reward('m', prompt) > 0 ORDER BY reward('m', prompt)", 27),
        ("SELECT id FROM t ORDER BY reward('m', prompt) DESC", 27),
        ("SELECT s, s * 2, -s FROM (SELECT reward('m', prompt) AS s FROM t) WHERE s > 0 AND s < 100", 27),
        ("SELECT g['response'], g['tokens'], g['ids'] FROM (SELECT generate('m', prompt) AS g FROM t)", 27),
        ("SELECT generate('m', prompt, {seed: 1}), generate('m', prompt, {seed: 2 - 1, top_p: 1}) FROM t", 27),
        // Different questions are asked one by one.
        ("SELECT generate('m', prompt, {seed: 1}), generate('m', prompt, {seed: 2}) FROM t", 54),
        ("SELECT reward('m', prompt), reward('m', prompt || ' a') FROM t", 54),
    ] {
        let world = World::new(30, &one_partition());
        world.batches(text).await.unwrap();
        assert_eq!(world.m.requests(), requests, "{text}");
    }
}

#[tokio::test]
async fn filters_limits_and_sorts_on_input_columns_spare_the_model() {
    // The fake model's reward is half the sum of the prompt's ids, of which the begin token's is 0.
    let high = (900..1000).filter(|id| (1 + id % 9) + (1 + id / 3 % 9) > 11).count();
    for (text, requests, rows) in [
        ("SELECT id, reward('m', prompt) AS s FROM t WHERE kind = 'even' AND id >= 100", 450, 450),
        ("SELECT * FROM (SELECT id, reward('m', prompt) AS s FROM t) WHERE id >= 100 AND id < 110", 10, 10),
        ("SELECT * FROM (SELECT id, reward('m', prompt) AS s FROM t) WHERE id >= 900 AND s > 5.5", 100, high),
        ("SELECT reward('m', prompt) FROM t LIMIT 4", 4, 4),
        ("SELECT reward('m', prompt) FROM t WHERE id >= 100 LIMIT 4 OFFSET 2", 4, 4),
        ("SELECT id, reward('m', prompt) AS s FROM t ORDER BY id DESC LIMIT 5", 5, 5),
        (
            "WITH a AS (SELECT *, reward('m', prompt) AS s FROM t), b AS (SELECT id AS i, s + 1 AS s FROM a)
          SELECT i, s FROM b ORDER BY i DESC LIMIT 5",
            5,
            5,
        ),
        // A result nobody reads is not computed.
        ("SELECT id FROM (SELECT id, reward('m', prompt) AS s FROM t)", 0, 1000),
        ("SELECT count(*) FROM (SELECT id, reward('m', prompt) AS s FROM t)", 0, 1),
        ("SELECT max(r) FROM (SELECT reward('m', prompt) AS s, reward('m', prompt || ' a') AS r FROM t)", 997, 1),
        // One that decides needs every row.
        ("SELECT id, reward('m', prompt) AS s FROM t ORDER BY s DESC LIMIT 5", 997, 5),
    ] {
        let world = World::new(1000, &one_partition());
        assert_eq!(world.count(text).await, rows, "{text}");
        assert_eq!(world.m.requests(), requests, "{text}");
    }
}

#[tokio::test]
async fn a_limit_above_a_filter_on_results_stops_the_model() {
    let world = World::new(1000, &one_partition());
    let text = "SELECT * FROM (SELECT id, reward('m', prompt) AS s FROM t) WHERE s > 2 LIMIT 3";
    assert_eq!(world.count(text).await, 3);
    // Micro-batches of 8, 16, 32 and 64 may be under way, no more.
    assert!(world.m.requests() <= 120, "{}", world.m.requests());
}

#[tokio::test]
async fn the_first_rows_come_early_and_dropping_the_stream_cancels() {
    let gate = Arc::new(Semaphore::new(1));
    let world = World::with(Fake::gated(&gate), 1000, &one_partition());
    let frame = sql(&world.context, "SELECT id, reward('m', prompt) AS s FROM t", &Params::new()).await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.num_rows(), 8);
    // The next poll finds the model busy with the other micro-batches.
    assert!(futures::poll!(stream.next()).is_pending());
    let asked = world.m.submissions.load(SeqCst);
    assert_eq!(world.m.most_in_flight.load(SeqCst), 4);
    drop(stream);
    assert_eq!(world.m.cancelled.load(SeqCst), asked - 1);
    assert_eq!(world.m.finished.load(SeqCst), 1);
    gate.add_permits(100);
    tokio::task::yield_now().await;
    assert_eq!(world.m.submissions.load(SeqCst), asked);
    assert_eq!(world.context.runtime_env().memory_pool.reserved(), 0);
}

#[tokio::test]
async fn micro_batches_grow_and_fill_across_small_input_batches() {
    let world = World::new(0, &SessionOptions { micro_batch: 20, ..one_partition() });
    let whole = table(100);
    let batches = (0..100).step_by(3).map(|at| whole.slice(at, 3.min(100 - at))).collect();
    salmon::query::register_batches(&world.context, "t", whole.schema(), batches).unwrap();
    assert_eq!(world.count("SELECT reward('m', prompt) FROM t").await, 100);
    // 100 rows of which three cannot be asked: 5 and 17 (NULL) and 8 (too long).
    assert_eq!(*world.m.sizes.lock().unwrap(), vec![7, 14, 20, 20, 20, 16]);
}

#[tokio::test]
async fn calls_nest_and_meet_in_joins_subqueries_and_unions() {
    for text in [
        "SELECT id, reward('n', prompt || ' ' || generate('m', prompt, {seed: 3})['response']) AS s FROM t",
        "SELECT id, reward('n', prompt || ' ' || g['response']) AS s
         FROM (SELECT *, generate('m', prompt, {seed: 3}) AS g FROM t)",
        "WITH answered AS (SELECT id, prompt, generate('m', prompt, {seed: 3}) AS g FROM t)
         SELECT a.id, reward('n', a.prompt || ' ' || a.g['response']) AS s FROM answered a",
        "SELECT b.id, b.s FROM (SELECT id, reward('m', prompt) AS x FROM t) a JOIN
         (SELECT id, reward('n', prompt || ' ' || generate('m', prompt, {seed: 3})['response']) AS s FROM t) b
         ON a.id = b.id",
        "SELECT id, reward('n', prompt || ' ' || generate('m', prompt, {seed: 3})['response']) AS s FROM t WHERE id < 9
         UNION ALL
         SELECT id, reward('n', prompt || ' ' || generate('m', prompt, {seed: 3})['response']) AS s FROM t WHERE id >= 9",
    ] {
        let world = World::new(20, &one_partition());
        let mut got = rows(&world.context, &format!("SELECT * FROM ({text}) ORDER BY id")).await;
        let tokenizer = Fake::new().tokenizer;
        for (id, row) in got.iter_mut().enumerate() {
            let wanted = prompt(id as i64).and_then(|text| {
                let ids = tokenizer.encode(&text, true).unwrap();
                let sampling =
                    Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 256, stop: Vec::new() };
                let task = Task::Generate { sampling: Arc::new(sampling), key: draw::key(3, &[&text]) };
                let response = if ids.len() >= CONTEXT {
                    String::new()
                } else {
                    let Output::Generation(g) = Fake::answer(&tokenizer, &Request { prompt: ids, task }) else {
                        unreachable!()
                    };
                    g.text
                };
                let both = tokenizer.encode(&format!("{text} {response}"), true).unwrap();
                let sum: u32 = both.iter().sum();
                (both.len() <= CONTEXT).then_some(f64::from(sum) / 2.0)
            });
            assert_eq!(row["s"].as_f64(), wanted, "row {id} of {text}");
        }
        assert_eq!(got.len(), 20);
    }
}

#[tokio::test]
async fn logprobs_takes_the_ids_that_generate_gave() {
    let world = World::new(20, &one_partition());
    let text = "SELECT logprobs('m', prompt, g['ids']) AS by_ids, logprobs('m', prompt, g['response']) AS by_text,
        logprobs('m', prompt, '') AS none FROM (SELECT prompt, generate('m', prompt) AS g FROM t WHERE id < 5)";
    let got = rows(&world.context, text).await;
    assert_eq!(got.len(), 5);
    for row in got {
        assert_eq!(row["by_ids"], row["by_text"]);
        assert!(!row["by_ids"].as_array().unwrap().is_empty());
        assert_eq!(row["none"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn draws_belong_to_the_row_and_not_to_its_place() {
    let world = World::new(30, &one_partition());
    let call = "generate('m', 'a b', {seed: 7, row: id})['ids']";
    let forward = rows(&world.context, &format!("SELECT id, {call} AS ids FROM t ORDER BY id")).await;
    let other =
        rows(&world.context, &format!("SELECT id, {call} AS ids FROM t WHERE id % 3 = 1 ORDER BY id DESC")).await;
    assert_eq!(other.len(), 10);
    for row in &other {
        assert_eq!(row, &forward[row["id"].as_i64().unwrap() as usize]);
    }
    let distinct: std::collections::BTreeSet<String> = forward.iter().map(|row| row["ids"].to_string()).collect();
    assert!(distinct.len() > 20, "{}", distinct.len());
}

#[tokio::test]
async fn misuse_is_an_error_that_says_how_to_write_it() {
    let world = World::new(20, &one_partition());
    let how =
        "compute it in a subquery first and use its column: SELECT ... FROM (SELECT *, reward(...) AS x FROM ...) AS t";
    for (text, place) in [
        ("SELECT count(*) FROM t GROUP BY reward('m', prompt)", "GROUP BY"),
        ("SELECT avg(reward('m', prompt)) FROM t", "an aggregate"),
        ("SELECT row_number() OVER (ORDER BY reward('m', prompt)) FROM t", "a window function"),
        ("SELECT a.id FROM t a JOIN t b ON reward('m', a.prompt) > b.id", "a join condition"),
        ("SELECT DISTINCT ON (reward('m', prompt)) id FROM t", "DISTINCT ON"),
    ] {
        assert_eq!(world.refused(text).await, format!("reward(): not allowed in {place}; {how}"), "{text}");
    }
    for (text, wanted) in [
        ("SELECT reward('x', prompt) FROM t", "reward: no model is named x; known are m, n"),
        ("SELECT reward(kind, prompt) FROM t", "reward: the model name must be a literal or a $parameter, not t.kind"),
        ("SELECT reward('m') FROM t", "reward: expected reward(model, prompt)"),
        ("SELECT reward('m', id) FROM t", "reward: the prompt (t.id) must be text, not Int64"),
        ("SELECT choice_logits('m', prompt, []) FROM t", "choice_logits: give at least one choice, e.g. ['a', 'b']"),
        (
            "SELECT choice_logits('m', prompt, [1]) FROM t",
            "choice_logits: the choices must be a list of texts, e.g. ['a', 'b'], not [1]",
        ),
        (
            "SELECT choice_logits('m', prompt, ['a b']) FROM t",
            "choice_logits: choice \"a b\" is 2 tokens of model m; give choices that are one token each",
        ),
        ("SELECT logprobs('m', prompt, id) FROM t", "logprobs: the response must be text or a list of token ids"),
        ("SELECT logprobs('m', prompt, [77]) FROM t", "logprobs: the response holds 77, not a token id"),
        (
            "SELECT (SELECT reward('m', t.prompt)) FROM t",
            "reward: an argument may not be a subquery or refer to an outer query: join it in a subquery first",
        ),
        (
            "SELECT generate('m', prompt, {heat: 1}) FROM t",
            "generate: unknown option heat; known are temperature, top_p, top_k, max_tokens, stop, seed, row",
        ),
        ("SELECT generate('m', prompt, {seed: 1, seed: 2}) FROM t", "generate: option seed is given twice"),
        (
            "SELECT generate('m', prompt, {temperature: -1}) FROM t",
            "generate: option temperature must be a number from 0, not -1",
        ),
        (
            "SELECT generate('m', prompt, {temperature: id}) FROM t",
            "generate: option temperature must be a literal or a $parameter, not t.id",
        ),
        (
            "SELECT generate('m', prompt, {top_p: 0}) FROM t",
            "generate: option top_p must be a number above 0, at most 1, not 0",
        ),
        (
            "SELECT generate('m', prompt, {max_tokens: 0}) FROM t",
            "generate: option max_tokens must be a whole number from 1, not 0",
        ),
        ("SELECT generate('m', prompt, {stop: ['']}) FROM t", "generate: option stop must not hold an empty text"),
        (
            "SELECT generate('m', prompt, 0.7) FROM t",
            "generate: the options are a struct with named fields, e.g. {temperature: 0.7, row: prompt_id}",
        ),
    ] {
        assert_eq!(world.refused(text).await, wanted, "{text}");
    }
}

#[tokio::test]
async fn options_are_literals_constant_expressions_or_parameters() {
    let world = World::new(9, &one_partition());
    let literal = rows(
        &world.context,
        "SELECT generate('m', prompt, {temperature: 0.5, max_tokens: 2, stop: ['x', 'y'], seed: 9, row: id})['ids'] AS i
         FROM t ORDER BY id",
    )
    .await;
    let text = "SELECT generate($model, prompt, named_struct('temperature', $t / 2, 'max_tokens', $n, 'stop', $stop,
        'seed', $seed, 'row', id))['ids'] AS i FROM t ORDER BY id";
    let params = Params::new().with("model", "m").with("t", 1.0).with("n", 2i64).with("seed", 9i64);
    let error = sql(&world.context, text, &params).await.unwrap_err().to_string();
    assert_eq!(error, "SQL: parameter $stop has no value; given are $model, $n, $seed, $t");
    let params = params.with_texts("stop", &["x", "y"]);
    let batches = sql(&world.context, text, &params).await.unwrap().collect().await.unwrap();
    let literal_text: Vec<String> = literal.iter().map(|row| row["i"].to_string()).collect();
    let shown = pretty_format_batches(&batches).unwrap().to_string();
    for (row, wanted) in shown.lines().skip(3).zip(&literal_text).filter(|(_, wanted)| *wanted != "null") {
        assert_eq!(row.replace([' ', '|'], ""), *wanted);
    }
    // An empty list of stop texts is none.
    let none: [&str; 0] = [];
    sql(&world.context, text, &params.with_texts("stop", &none)).await.unwrap().collect().await.unwrap();
}

#[tokio::test]
async fn models_load_once_and_a_failed_load_is_tried_again() {
    let world = World::new(20, &SessionOptions { target_partitions: 3, ..one_partition() });
    let loads = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    world.models.register("late", move || {
        if counted.fetch_add(1, SeqCst) == 0 {
            return Err(salmon::Error::model("late/config.json", "cannot be read"));
        }
        Ok(Arc::new(Fake::new()) as Arc<dyn Inference>)
    });
    let text = "SELECT reward('late', prompt), choice_logits('late', prompt, ['a']) FROM t";
    assert_eq!(loads.load(SeqCst), 0);
    let error = world.batches(&format!("{text} LIMIT 1")).await.unwrap_err();
    // The first attempt fails for whoever made it; nobody keeps the failure.
    assert_eq!(error.to_string(), "late/config.json: cannot be read");
    assert_eq!(error.kind(), salmon::error::Kind::Model);
    let after_failure = loads.load(SeqCst);
    world.batches(text).await.unwrap();
    world.batches(text).await.unwrap();
    assert!(after_failure <= 2 && loads.load(SeqCst) == 2);
}

#[tokio::test]
async fn a_failing_model_ends_the_query_with_its_own_error() {
    let world = World::with(Fake::failing(), 100, &one_partition());
    let error = world.batches("SELECT reward('m', prompt) FROM t").await.unwrap_err();
    assert_eq!(error.to_string(), "fake: out of tensors");
    assert_eq!(error.kind(), salmon::error::Kind::Model);
    assert_eq!(world.context.runtime_env().memory_pool.reserved(), 0);
}

#[tokio::test]
async fn rows_under_way_are_counted_in_the_memory_pool() {
    let text = "SELECT generate('m', prompt, {max_tokens: 100000}) FROM t";
    let world = World::new(1000, &SessionOptions { memory_limit: Some(1_000_000), ..one_partition() });
    let error = world.batches(text).await.unwrap_err().to_string();
    assert!(error.contains("ModelExec[0]") && error.contains("Resources exhausted"), "{error}");
    assert_eq!(world.context.runtime_env().memory_pool.reserved(), 0);
    let world = World::new(1000, &SessionOptions { memory_limit: Some(1_000_000_000), ..one_partition() });
    assert_eq!(world.count(text).await, 1000);
    assert_eq!(world.context.runtime_env().memory_pool.reserved(), 0);
}

#[tokio::test]
async fn explain_analyze_shows_rows_tokens_and_time() {
    let world = World::new(20, &one_partition());
    let shown = world.show("EXPLAIN ANALYZE SELECT generate('m', prompt, {max_tokens: 2}) FROM t").await;
    let line = shown.lines().find(|line| line.contains("ModelExec")).unwrap();
    for metric in ["output_rows=20", "requests=17", "prompt_tokens=51", "too_long=1", "model_time=", "load_time="] {
        assert!(line.contains(metric), "{metric} in {line}");
    }
    let sampled: usize = line.split("sampled_tokens=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!((17..=34).contains(&sampled));
}

#[tokio::test]
async fn a_session_without_models_says_so() {
    let context = session(Arc::new(Models::new()), templates(), &one_partition()).unwrap();
    let frame = sql(&context, "SELECT reward('m', 'a')", &Params::new()).await.unwrap();
    let error = salmon::Error::from(frame.collect().await.unwrap_err());
    assert_eq!(error.to_string(), "reward: no model is named m; there are none");
}

#[tokio::test]
async fn sorted_rows_stay_sorted_in_several_partitions() {
    for text in [
        "SELECT id, generate('m', prompt)['tokens'] AS n FROM t ORDER BY id DESC",
        "SELECT * FROM (SELECT id, generate('m', prompt)['tokens'] AS n FROM t) WHERE n > 1 ORDER BY id DESC",
        "SELECT * FROM (SELECT id, generate('m', prompt)['tokens'] AS n FROM t) WHERE n > 1 ORDER BY id DESC LIMIT 20",
    ] {
        let world = World::new(0, &SessionOptions { target_partitions: 4, ..one_partition() });
        let whole = table(400);
        let partitions = (0..4).map(|part| vec![whole.slice(part * 100, 50), whole.slice(part * 100 + 50, 50)]);
        let mem = datafusion::datasource::MemTable::try_new(whole.schema(), partitions.collect()).unwrap();
        world.context.deregister_table("t").unwrap();
        world.context.register_table("t", Arc::new(mem)).unwrap();
        let ids: Vec<i64> = rows(&world.context, text).await.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert!(ids.len() >= 20 && ids.is_sorted_by(|a, b| a > b), "{text}: {ids:?}");
    }
}
