//! The scalar functions against plain code, and their documentation.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use salmon::draw;
use salmon::engine::Inference;
use salmon::query::functions::{
    Side, contains_any, cut_at, cut_repetition, detect_language, markdown, truncate_tokens,
};
use salmon::query::{Models, SessionOptions};

use crate::docs::page_is;
use crate::query_support::{World, judging, one_partition, templates, tokenizer};

/// The one text of a one-row result, `None` for NULL.
async fn text(world: &World, expression: &str) -> Option<String> {
    let batches = world.batches(&format!("SELECT CAST({expression} AS VARCHAR) AS x")).await.unwrap();
    let column = batches[0].column(0).as_string::<i32>();
    column.iter().next().unwrap().map(str::to_string)
}

fn numbers(batches: &[RecordBatch], column: usize) -> Vec<Option<f64>> {
    batches.iter().flat_map(|b| b.column(column).as_primitive::<Float64Type>().iter()).collect()
}

#[tokio::test]
async fn uniform_is_the_draw_of_seed_and_keys() {
    let query =
        "SELECT uniform(7, 'x', id, kind), uniform(id, 'x'), uniform(7, prompt), uniform(CAST(NULL AS INT), 'x')
        FROM t ORDER BY id";
    let mut results = Vec::new();
    for batch_size in [1, 1000] {
        let world = World::new(40, &SessionOptions { batch_size, ..one_partition() });
        results.push(world.batches(query).await.unwrap());
    }
    for batches in &results {
        let kinds = ["even", "odd"];
        let by_row: Vec<_> =
            (0..40).map(|i: usize| Some(draw::key(7, &["x", &i.to_string(), kinds[i % 2]]).uniform(0))).collect();
        assert_eq!(numbers(batches, 0), by_row);
        let by_seed: Vec<_> = (0..40).map(|seed| Some(draw::key(seed, &["x"]).uniform(0))).collect();
        assert_eq!(numbers(batches, 1), by_seed);
        let nulls: Vec<usize> =
            numbers(batches, 2).iter().enumerate().filter(|(_, x)| x.is_none()).map(|(i, _)| i).collect();
        assert_eq!(nulls, vec![5, 17]);
        assert_eq!(numbers(batches, 3), vec![None; 40]);
    }
    let world = World::new(1000, &one_partition());
    let drawn = numbers(&world.batches("SELECT uniform(1, id) FROM t").await.unwrap(), 0);
    let mean = drawn.iter().flatten().sum::<f64>() / 1000.0;
    assert!((mean - 0.5).abs() < 0.03, "{mean}");
    assert!(drawn.iter().flatten().all(|x| (0.0..1.0).contains(x)));
}

#[tokio::test]
async fn cut_repetition_stops_before_the_first_repeated_fragment() {
    let world = World::new(0, &one_partition());
    for (given, wanted) in [
        ("It is so. It is not. It is so. It is", "It is so. It is not."),
        ("Rivers; lakes: rivers", "Rivers; lakes: rivers"),
        ("one, two, one, three", "one, two,"),
        ("one, two, one, two, one, three", "one, two,"),
        ("a\na\nb", "a"),
        ("\n\n1. red\n2. green\n\n1. blue", "\n\n1. red\n2. green\n\n1. blue"),
        ("Grüße! Grüße! Ende", "Grüße!"),
        ("same. same. x", "same."),
        ("", ""),
    ] {
        // The slow twin: all fragments in a list, each compared with all before it.
        let mut slow: Vec<String> = vec![String::new()];
        for c in given.chars() {
            slow.last_mut().unwrap().push(c);
            if "\n.?!;:,`".contains(c) {
                slow.push(String::new());
            }
        }
        let letters = |i: &usize| slow[*i].chars().any(char::is_alphabetic);
        let repeated = |i: &usize| slow[..*i].iter().any(|other| other.trim() == slow[*i].trim());
        let slow = match (0..slow.len()).find(|i| letters(i) && repeated(i)) {
            Some(i) => slow[..i].concat().trim_end().to_string(),
            None => given.to_string(),
        };
        assert_eq!(slow, cut_repetition(given), "{given:?}");
        let sql = text(&world, &format!("cut_repetition('{given}')")).await;
        assert_eq!(sql.as_deref(), Some(cut_repetition(given)));
        assert_eq!(cut_repetition(given), wanted);
    }
}

#[tokio::test]
async fn cut_at_and_contains_any_look_for_markers() {
    let world = World::new(0, &one_partition());
    for (given, markers, cut, found) in [
        ("answer ### User next", "['###', 'User']", "answer ", true),
        ("answer User ### next", "['###', 'User']", "answer ", true),
        ("answer", "['###']", "answer", false),
        ("answer", "['', NULL, 'wer']", "ans", true),
        ("answer", "[]", "answer", false),
        ("### x", "['###']", "", true),
    ] {
        assert_eq!(text(&world, &format!("cut_at('{given}', {markers})")).await.as_deref(), Some(cut), "{given}");
        let contains = text(&world, &format!("contains_any('{given}', {markers})")).await;
        assert_eq!(contains, Some(found.to_string()), "{given}");
    }
    assert_eq!(cut_at("äöü###", &["###"]), "äöü");
    assert!(contains_any("äöü", &["ö"]) && !contains_any("äöü", &["x", ""]));
    assert_eq!(text(&world, "cut_at('x', NULL)").await, None);
    let error = world.refused("SELECT cut_at('x', 'y')").await;
    assert!(error.contains("cut_at: the markers must be a list of texts, not Utf8"), "{error}");
}

#[tokio::test]
async fn tokens_are_counted_and_cut_as_the_tokenizer_has_them() {
    let world = World::new(0, &one_partition());
    let tokenizer = tokenizer();
    let long = "a b c red green blue";
    for (max, side, name) in
        [(0, Side::Left, "left"), (2, Side::Left, "left"), (2, Side::Right, "right"), (6, Side::Right, "right")]
    {
        let sql = text(&world, &format!("truncate_tokens('m', '{long}', {max}, '{name}')")).await;
        let words: Vec<&str> = long.split(' ').collect();
        let plain = if side == Side::Left { &words[6 - max..] } else { &words[..max] };
        assert_eq!(sql, Some(plain.join(" ")));
        assert_eq!(truncate_tokens(&tokenizer, long, max, side).unwrap(), plain.join(" "));
    }
    // A text that fits stays letter for letter.
    assert_eq!(text(&world, "truncate_tokens('m', 'a   b', 2, 'left')").await.as_deref(), Some("a   b"));
    assert_eq!(text(&world, &format!("count_tokens('m', '{long}')")).await.as_deref(), Some("6"));
    assert_eq!(text(&world, "count_tokens('m', NULL)").await, None);
    for (call, wanted) in [
        ("truncate_tokens('m', 'a b', 1, 'up')", "truncate_tokens: the side must be 'left' or 'right', not \"up\""),
        ("truncate_tokens('m', 'a b', -1, 'left')", "truncate_tokens: max must be from 0, not -1"),
        ("count_tokens('x', 'a b')", "model: no model is named x; known are m, n"),
        ("count_tokens('m', 3)", "count_tokens: the text must be text, not Int64"),
    ] {
        assert_eq!(world.refused(&format!("SELECT {call}")).await, wanted);
    }
}

#[tokio::test]
async fn a_tokenizer_of_its_own_spares_loading_the_model() {
    let world = World::new(3, &one_partition());
    let fail = || Err(salmon::Error::model("huge", "must not be loaded"));
    world.models.register_with_tokenizer("huge", fail, || Ok(tokenizer()));
    assert_eq!(
        world.count("SELECT count_tokens('huge', prompt), truncate_tokens('huge', prompt, 1, 'left') FROM t").await,
        3
    );
}

#[tokio::test]
async fn languages_are_told_apart_when_it_is_clear() {
    let world = World::new(0, &one_partition());
    for (given, wanted) in [
        ("The river flows through the old town and into the sea.", Some("eng")),
        ("El río atraviesa la ciudad vieja y desemboca en el mar.", Some("spa")),
        ("Der Fluss fließt durch die alte Stadt und mündet ins Meer.", Some("deu")),
        ("river", None),
        ("12345 67890 !!! ...", None),
    ] {
        assert_eq!(detect_language(given), wanted, "{given}");
        assert_eq!(text(&world, &format!("detect_language('{given}')")).await.as_deref(), wanted, "{given}");
    }
}

#[tokio::test]
async fn render_fills_templates_with_structs_and_lists() {
    let world = World::new(300, &one_partition());
    let plain = templates();
    let call = "render('reward', {instruction: prompt, response: kind,
        principles: [{name: 'Concise', negated: id % 2 = 0, text: 'says it ' || id}]})";
    let batches =
        world.batches(&format!("SELECT {call} AS x FROM t WHERE prompt IS NOT NULL ORDER BY id")).await.unwrap();
    let texts: Vec<&str> = batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten()).collect();
    let ids = (0..300i64).filter(|id| crate::query_support::prompt(*id).is_some());
    assert_eq!(texts.len(), 298);
    for (id, text) in ids.zip(texts) {
        let values = serde_json::json!({
            "instruction": crate::query_support::prompt(id), "response": (["even", "odd"][id as usize % 2]),
            "principles": [{"name": "Concise", "negated": id % 2 == 0, "text": format!("says it {id}")}],
        });
        assert_eq!(text, plain.render("reward", &values).unwrap());
    }
    assert_eq!(text(&world, "render(NULL, {instruction: 'x'})").await, None);
    let error = world.refused("SELECT render('reward', prompt) FROM t").await;
    assert_eq!(error, "render: values must be a struct, e.g. {instruction: instruction}, not Utf8");
    let error = world.refused("SELECT render('nonesuch', {instruction: prompt}) FROM t").await;
    assert!(error.contains("nonesuch"), "{error}");
}

#[test]
fn the_page_of_functions_is_what_the_program_says() {
    let page = markdown(&Arc::new(Models::new()), &templates()).unwrap();
    page_is("docs/sql-functions.md", &page);
}

#[tokio::test]
async fn every_example_on_the_page_runs() {
    let page = markdown(&Arc::new(Models::new()), &templates()).unwrap();
    let world = World::new(10, &one_partition());
    for name in ["base", "sft", "reward"] {
        let load = || Ok(Arc::new(crate::query_support::Fake::new()) as Arc<dyn Inference>);
        world.models.register_with_judging(name, load, move || Ok(Arc::clone(load()?.tokenizer())), judging());
    }
    for (table, columns) in [
        ("prompts", "id AS prompt_id, prompt AS instruction"),
        ("responses", "kind AS response"),
        ("preferences", "id AS prompt_id, prompt, kind AS chosen, kind AS rejected"),
        ("judge_prompts", "prompt"),
        ("reward_prompts", "id AS prompt_id, prompt"),
    ] {
        world.count(&format!("CREATE VIEW {table} AS SELECT {columns} FROM t")).await;
    }
    let examples: Vec<&str> = page.split("```sql\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert_eq!(examples.len(), 13);
    for example in examples {
        world.batches(example).await.unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}
