//! The whole pipeline through the program: valid tables, every row accounted for, the same bytes again, and nothing
//! done twice.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use salmon::table;

use crate::pipeline_support::{POLICIES, Place, STAGES, assert_same, files, number, salmon, succeeded, whole};

#[tokio::test]
async fn every_table_is_what_its_schema_says() {
    let run = whole();
    let contents = files(&run.run());
    let mut seen = std::collections::BTreeSet::new();
    for (path, bytes) in contents.iter().filter(|(path, _)| path.ends_with(".parquet")) {
        let name = path.split('/').nth(1).unwrap();
        let schema = table::by_name(name).unwrap_or_else(|| panic!("{path} is no table")).schema();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes.clone())).unwrap();
        assert_eq!(reader.schema().fields(), schema.fields(), "{path}");
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            for (field, column) in schema.fields().iter().zip(batch.columns()) {
                assert!(field.is_nullable() || column.logical_null_count() == 0, "{path}: {} has nulls", field.name());
            }
        }
        seen.insert(name);
    }
    let made: Vec<&str> = table::all().into_iter().map(|t| t.name).filter(|name| *name != "runs").collect();
    assert_eq!(seen, made.into_iter().collect(), "every table is made");
    let context = run.tables().await;
    assert_eq!(number(&context, "select count(distinct stage) from runs").await, STAGES.len() as i64);
    assert_eq!(number(&context, "select count(*) from runs where rows is null or seconds < 0").await, 0);
}

#[tokio::test]
async fn every_row_is_accounted_for() {
    let context = whole().tables().await;
    for (what, text, wanted) in [
        ("prompts of the world", "select count(*) from prompts", 275),
        ("prompts x samples", "select count(*) from demonstrations", 24 * 2),
        ("distinct", "select count(*) from (select distinct prompt_id, sample from demonstrations)", 24 * 2),
        ("(prompts + test) x rounds x samples", "select count(*) from responses", (20 + 6) * 2 * 2),
        ("distinct", "select count(*) from (select distinct prompt_id, sample from responses)", 26 * 4),
        ("a pair or a reason per prompt and round", "select count(*) from pairs", 26 * 2),
        ("test prompts", "select count(distinct prompt_id) from pairs where split = 'test'", 6),
        ("policies x steps x batch", "select count(*) from rollouts", 2 * 3 * 8),
        ("steps", "select count(*) from (select distinct policy, step from rollouts)", 6),
    ] {
        assert_eq!(number(&context, text).await, wanted, "{what}: {text}");
    }
    let kept_pairs = number(&context, "select count(*) from pairs where kept").await;
    assert!(kept_pairs > 10, "the run is large enough to mean something");
    assert_eq!(number(&context, "select count(*) from judgments").await, kept_pairs * 10);
    assert_eq!(number(&context, "select count(*) from preferences").await, kept_pairs * 3);
    for table in ["demonstrations", "responses", "pairs", "preferences"] {
        let kept = number(&context, &format!("select count(*) from {table} where kept and drop_reason is null")).await;
        let text = format!("select count(*) from {table} where not kept and drop_reason is not null");
        let dropped = number(&context, &text).await;
        assert_eq!(kept + dropped, number(&context, &format!("select count(*) from {table}")).await, "{table}");
    }
    // What a trainer used or left out is what was kept.
    for (stage, rows) in [
        ("sft", "select count(*) from demonstrations where kept"),
        ("reward", "select count(*) from preferences where kept and split = 'train'"),
    ] {
        let used = format!("select sum(value) from metrics where stage = '{stage}' and name like 'rows/%'");
        assert_eq!(number(&context, &used).await, number(&context, rows).await, "{stage}");
    }
    // Test prompts are for evaluation only.
    for table in ["demonstrations", "responses", "rollouts"] {
        let text = format!(
            "select count(*) from {table} t join prompts p on p.prompt_id = t.prompt_id where p.split = 'test'"
        );
        assert_eq!(number(&context, &text).await, 0, "{table}");
    }
    for what in ["judge", "reward", "policy:sft", "policy:brief", "policy:drawn"] {
        let text = format!("select count(*) from evaluations where what = '{what}' and value is not null");
        assert!(number(&context, &text).await > 3, "{what}");
    }
}

#[tokio::test]
async fn rollouts_hold_what_the_update_used() {
    let context = whole().tables().await;
    let text = "select * from rollouts order by policy, step, prompt_id, response";
    let batches = context.sql(text).await.unwrap().collect().await.unwrap();
    let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let lists = |name: &str, row: usize| rows[name].as_list::<i32>().value(row);
    let reals = |name: &str, row: usize| lists(name, row).as_primitive::<Float64Type>().values().to_vec();
    let real = |name: &str, row: usize| rows[name].as_primitive::<Float64Type>().value(row);
    for row in 0..rows.num_rows() {
        let tokens = lists("response_ids", row).len();
        assert!(tokens > 0 && !lists("query_ids", row).is_empty());
        for name in ["logprobs", "ref_logprobs", "values", "advantages", "returns"] {
            assert_eq!(reals(name, row).len(), tokens, "{name}");
        }
        let (logprobs, reference) = (reals("logprobs", row), reals("ref_logprobs", row));
        let kl: f64 = logprobs.iter().zip(&reference).map(|(p, q)| p - q).sum();
        assert!((real("kl", row) - kl).abs() < 1e-9);
        for ((advantage, value), wanted) in
            reals("advantages", row).iter().zip(reals("values", row)).zip(reals("returns", row))
        {
            assert!((advantage + value - wanted).abs() < 1e-6);
        }
        if rows["step"].as_primitive::<Int64Type>().value(row) == 0 {
            assert_eq!(logprobs, reference, "the policy starts as the reference");
        }
        let stopped = rows["finish_reason"].as_string::<i32>().value(row) == "stop";
        assert_eq!(real("stop_penalty", row), if stopped { 0.0 } else { -3.0 });
        assert_eq!(real("length_bonus", row), 0.0);
        let principles = lists("principles", row);
        let principles = principles.as_struct();
        let names = principles.column_by_name("name").unwrap().as_string::<i32>();
        let negated = principles.column_by_name("negated").unwrap().as_boolean();
        let shown: Vec<(&str, bool)> = (0..names.len()).map(|i| (names.value(i), negated.value(i))).collect();
        if rows["policy"].as_string::<i32>().value(row) == "brief" {
            assert_eq!(shown, [("Concise", false), ("Polite", true)]);
        } else {
            assert_eq!((shown.len(), shown[0]), (3, ("Honest", false)));
            assert!(shown[1].0 != shown[2].0 && shown[1].0 != "Honest" && shown[2].0 != "Honest");
        }
    }
    // The first batch fixes what a score is measured by.
    for policy in ["brief", "drawn"] {
        let of = |row: &usize| rows["policy"].as_string::<i32>().value(*row) == policy;
        let first = |row: &usize| rows["step"].as_primitive::<Int64Type>().value(*row) == 0;
        let all: Vec<usize> = (0..rows.num_rows()).filter(of).collect();
        let scores: Vec<f64> = all.iter().filter(|row| first(row)).map(|row| real("score", *row)).collect();
        let mean = scores.iter().sum::<f64>() / 8.0;
        let deviation = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 8.0).sqrt() + 1e-4;
        for row in all {
            let wanted = (real("score", row) - mean) / deviation + real("stop_penalty", row);
            assert!((real("reward", row) - wanted).abs() < 1e-9 * (1.0 + wanted.abs()), "{policy} {row}");
        }
    }
}

#[test]
fn a_second_run_does_nothing_and_says_so() {
    let place = Place::copy(POLICIES);
    // The configuration kept in the run names the folder that it was copied from.
    let contents = || {
        let mut found = files(&place.run());
        found.remove("config.toml");
        found
    };
    let before = contents();
    let said = place.succeed(&[]);
    let mut wanted: Vec<String> = STAGES.iter().map(|stage| format!("{stage}: cached")).collect();
    wanted.push(format!("nothing to do: all {} stages are up to date", STAGES.len()));
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
    assert_same(&contents(), &before, "a second run");
}

#[test]
fn the_same_bytes_elsewhere_on_any_number_of_workers() {
    let wanted = whole().contents();
    for workers in ["model.workers=1", "model.workers=3"] {
        let place = Place::new(POLICIES);
        place.succeed(&["--set", workers]);
        assert_same(&place.contents(), &wanted, workers);
    }
}

#[test]
fn the_demo_ends_in_figures_and_again_without_work() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("demo");
    let demo = || {
        let mut command = salmon(&["demo", "--seed", "3", "--run"]);
        command.arg(&run);
        for set in crate::pipeline_support::TINY.into_iter().chain(["ppo.steps=1", "ppo.trainer.batch_size=4"]) {
            command.args(["--set", set]);
        }
        command.output().unwrap()
    };
    let first = demo();
    succeeded(&first);
    let shown = String::from_utf8(first.stdout).unwrap();
    for word in ["held_out_combination", "reworded", "agreement", "policy:sft", "policy:thorough-ethical", "valid"] {
        assert!(shown.contains(word), "{word} is missing from {shown}");
    }
    let again = demo();
    assert!(succeeded(&again).contains("nothing to do: all 22 stages are up to date"));
    assert_eq!(String::from_utf8(again.stdout).unwrap(), shown);
}
