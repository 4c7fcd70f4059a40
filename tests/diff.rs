//! `salmon diff`: two runs, and what is not the same.

use std::sync::Arc;

use salmon::audit;
use salmon::stage::{Graph, Job, Options, Stage};
use salmon::store::{Artifact, Lineage, Store};
use serde_json::{Value, json};

use crate::cli_support::{batch, copy_of_tiny, salmon, tiny};
use crate::store_common::{run, stream};

#[test]
fn equal_runs_have_no_difference() {
    let (_folder, copy) = copy_of_tiny();
    let said = salmon(&["diff", tiny(), &copy]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "no difference\n", ""));
    let json: Value = serde_json::from_str(&salmon(&["diff", tiny(), &copy, "--format", "json"]).ok()).unwrap();
    assert!(json.as_object().unwrap().values().all(|list| list.as_array().unwrap().is_empty()), "{json}");
}

#[test]
fn a_changed_parameter_is_named_with_the_rows_that_changed() {
    let (_folder, copy) = copy_of_tiny();
    let config = format!("{}/config.toml", tiny());
    let set = ["run", "--config", &config, "--run", &copy, "--set", "preferences.passes=3", "preferences"];
    assert_eq!(salmon(&set).code, 0);
    let said = salmon(&["diff", tiny(), &copy]).ok();
    assert!(said.starts_with("stages\n  preferences: parameter passes 2 -> 3\n\nrows\n"), "{said}");
    let json: Value = serde_json::from_str(&salmon(&["diff", tiny(), &copy, "--format", "json"]).ok()).unwrap();
    let change = &json["tables"][0];
    let before = change["before"].as_i64().unwrap();
    assert_eq!((json["tables"].as_array().unwrap().len(), &change["table"]), (1, &json!("preferences")));
    assert_eq!(change["after"], before / 2 * 3);
    assert_eq!((&change["added"], &change["removed"], &change["changed"]), (&json!(before / 2), &json!(0), &json!(0)));
    // The other way round.
    let back: Value = serde_json::from_str(&salmon(&["diff", &copy, tiny(), "--format", "json"]).ok()).unwrap();
    assert_eq!((&back["tables"][0]["added"], &back["tables"][0]["removed"]), (&json!(0), &json!(before / 2)));
    assert_eq!(back["stages"][0]["why"], "parameter passes 3 -> 2");
}

fn writes(name: &'static str, table: &'static str, seed: u64, rows: Vec<Value>) -> Stage {
    let recipe = Lineage { seed: Some(seed), ..Lineage::default() };
    Stage::new(name, vec![], vec![Artifact::table(table)], recipe, move |job: Arc<Job>| {
        let rows = rows.clone();
        async move { job.write_table(table, stream(vec![batch(table, &rows)])).await.map(drop) }
    })
}

async fn made(stages: Vec<Stage>) -> Store {
    let store = Store::open("memory://").unwrap();
    run(&Graph::new(stages).unwrap(), &store, &Options::default()).await.unwrap();
    store
}

fn principle(name: &str, definition: &str, weight: f64) -> Value {
    json!({"name": name, "definition": definition, "negative_definition": null, "weight": weight, "sets": ["rl"], "tags": []})
}

#[tokio::test(flavor = "multi_thread")]
async fn principles_rows_and_figures_side_by_side() {
    let response = |id: &str, sample: i64, text: &str| json!({"prompt_id": id, "sample": sample, "response": text, "tokens": 2, "finish_reason": "stop", "logprob": -1.5, "kept": true});
    let figure = |metric: &str, subset: Value, value: f64| json!({"what": "judge", "principle": null, "subset": subset, "metric": metric, "value": value, "n": 4});
    let metric = |step: i64, value: f64| json!({"stage": "sft", "step": step, "name": "loss", "value": value});
    let before = made(vec![
        writes(
            "principles",
            "principles",
            1,
            vec![
                principle("Kind", "be kind", 1.0),
                principle("Old", "x", 1.0),
                principle("Same", "s", 1.0),
                principle("Weight", "w", 1.0),
            ],
        ),
        writes(
            "responses",
            "responses",
            1,
            vec![response("a", 0, "one"), response("a", 1, "two"), response("b", 0, "three")],
        ),
        writes("sft", "metrics", 1, vec![metric(1, 3.0), metric(2, 2.0)]),
        writes(
            "evaluate:judge",
            "evaluations",
            1,
            vec![figure("agreement", Value::Null, 0.5), figure("rate", json!("single"), 1.0)],
        ),
        writes("gone", "prompts", 1, vec![]),
    ])
    .await;
    let after = made(vec![
        writes(
            "principles",
            "principles",
            2,
            vec![
                principle("Kind", "be very kind", 1.0),
                principle("New", "n", 1.0),
                principle("Same", "s", 1.0),
                principle("Weight", "w", 2.0),
            ],
        ),
        writes(
            "responses",
            "responses",
            2,
            vec![response("a", 0, "one"), response("a", 1, "zwei"), response("c", 0, "four")],
        ),
        writes("sft", "metrics", 2, vec![metric(1, 3.0), metric(2, 1.5)]),
        writes(
            "evaluate:judge",
            "evaluations",
            2,
            vec![figure("agreement", Value::Null, 0.75), figure("rate", json!("single"), 1.0)],
        ),
    ])
    .await;
    let found = serde_json::to_value(audit::diff(&before, &after, 5).await.unwrap()).unwrap();
    let stages: Vec<(&str, &str)> = found["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["stage"].as_str().unwrap(), s["why"].as_str().unwrap()))
        .collect();
    assert_eq!(stages.len(), 5);
    assert!(
        stages.contains(&("responses", "seed 1 -> 2")) && stages.contains(&("gone", "is only in the first run")),
        "{stages:?}"
    );
    let principles: Vec<(&str, &str)> = found["principles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p["change"].as_str().unwrap()))
        .collect();
    assert_eq!(principles, [("Kind", "reworded"), ("New", "added"), ("Old", "removed"), ("Weight", "changed")]);
    let table = |name: &str| found["tables"].as_array().unwrap().iter().find(|t| t["table"] == name).unwrap();
    let counts =
        |name: &str| ["before", "after", "added", "removed", "changed"].map(|key| table(name)[key].as_i64().unwrap());
    assert_eq!(counts("responses"), [3, 3, 1, 1, 1]);
    assert_eq!(counts("principles"), [4, 4, 1, 1, 2]);
    assert_eq!(
        table("responses")["sample"],
        json!([{"key": [["prompt_id", "a"], ["sample", "1"]], "columns": {"response": ["two", "zwei"]}}])
    );
    assert_eq!(found["metrics"], json!([{"what": "sft", "name": "loss", "before": 2.0, "after": 1.5}]));
    assert_eq!(found["evaluations"], json!([{"what": "judge", "name": "agreement", "before": 0.5, "after": 0.75}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_key_are_told_apart_by_their_values() {
    let row = |chosen: &str| {
        json!({"prompt_id": "a", "pass": 0, "prompt": "p", "chosen": chosen, "rejected": "r", "margin": 1.0, "flipped": false,
               "principles": [{"name": "Kind", "negated": false, "text": "t", "score": null}], "first": true, "split": "train", "kept": true})
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| row(text)).collect::<Vec<_>>();
    let before = made(vec![writes("preferences", "preferences", 1, texts(&["1", "2", "3", "3", "4"]))]).await;
    let after = made(vec![writes("preferences", "preferences", 2, texts(&["4", "3", "x", "1", "2", "3", "3"]))]).await;
    let found = audit::diff(&before, &after, 5).await.unwrap();
    let table = &found.tables[0];
    assert_eq!((table.before, table.after, table.added, table.removed, table.changed), (5, 7, 2, 0, 0));
    let shuffled = made(vec![writes("preferences", "preferences", 3, texts(&["4", "3", "3", "1", "2"]))]).await;
    assert!(audit::diff(&before, &shuffled, 5).await.unwrap().tables.is_empty(), "the order of rows is no difference");
}

#[test]
fn damaged_versions_are_named_and_the_rest_is_compared() {
    let (_folder, copy) = copy_of_tiny();
    let files = crate::pipeline_support::files(std::path::Path::new(&copy));
    let manifest =
        files.keys().find(|name| name.starts_with("tables/pairs/") && name.ends_with("manifest.json")).unwrap();
    std::fs::write(format!("{copy}/{manifest}"), "{").unwrap();
    let said = salmon(&["diff", tiny(), &copy]).ok();
    assert!(said.starts_with(&format!("cannot be read\n  {copy}/{manifest}: is damaged (EOF")), "{said}");
    assert_eq!(said.lines().count(), 2, "nothing else differs: {said}");
    let nowhere = salmon(&["diff", tiny(), "nowhere"]).failed(5);
    assert!(nowhere.contains("nowhere: there is no such folder"), "{nowhere}");
}
