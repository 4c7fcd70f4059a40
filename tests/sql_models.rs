//! Model functions on the tables of a run, as `salmon sql` asks them.

use std::fs;

use serde_json::{Value, json};

use crate::cli_support::{Ran, salmon};
use crate::pipeline_support::{POLICIES, Place, whole_run};

fn sql(args: &[&str]) -> Ran {
    salmon(&[&["sql", "--run", whole_run(), "--format", "json"], args].concat())
}

fn rows(statement: &str) -> Vec<Value> {
    sql(&["-c", statement]).rows()
}

#[test]
fn a_judge_gives_what_the_run_has_of_it() {
    let found = rows(
        "select count(*) as n, count(*) filter (where j['score_ab'] = score_ab and j['score_ba'] = score_ba \
           and j['verdict'] = verdict and j['score'] = (score_ab + score_ba) / 2) as same from \
         (select *, judge('sft', principle, instruction, response_1, response_2) as j from judgments) t",
    );
    assert_eq!(found, [json!({"n": 500, "same": 500})]);
    // Any text is a principle, and any table can be asked about.
    let own = "select judge('sft', 'the response is short', a, b, c)['verdict'] in ('first', 'second', 'tie') as ok \
               from (values ('the river of farro ?', 'sarn .', 'the river of farro is sarn .')) as t(a, b, c)";
    assert_eq!(rows(own), [json!({"ok": true})]);
}

#[test]
fn rewards_are_those_of_salmon_score() {
    let run = whole_run();
    let said = salmon(&[
        "score",
        "--run",
        run,
        "--instruction",
        "the river of farro ?",
        "--response",
        "sarn .",
        "--principle",
        "Concise",
    ])
    .ok();
    let found = rows(
        "select round(reward('reward', render('pocket_reward', {instruction: 'the river of farro ?', response: 'sarn .', \
           principles: [{name: name, negated: false, text: definition, score: cast(null as double)}]})), 6) as score \
         from principles where name = 'Concise'",
    );
    assert_eq!(found[0]["score"].as_f64().unwrap(), said.trim().parse::<f64>().unwrap());
}

#[test]
fn policies_answer_and_their_answers_can_be_scored() {
    let statement = "select p.prompt_id, g['response'] as response, g['tokens'] as tokens, \
         array_length(logprobs('policy:brief', prompt, g['ids'])) as n, detect_language('The river flows through the old town and into the sea.') as l \
         from (select *, generate('policy:brief', prompt, {max_tokens: 12, seed: 7, row: prompt_id}) as g from \
           (select prompt_id, render('pocket_chat', {instruction: instruction}) as prompt from prompts order by prompt_id limit 4)) p";
    let found = rows(statement);
    assert_eq!(found.len(), 4);
    for row in &found {
        assert!(row["tokens"] == row["n"] && row["l"] == "eng", "{row}");
    }
    assert_eq!(found, rows(statement));
}

#[test]
fn explain_says_what_models_will_see() {
    let found =
        rows("explain select generate('sft', instruction, {max_tokens: 8}) from prompts where kind = 'general'");
    let models = found.iter().find(|row| row["plan_type"] == "models").unwrap()["plan"].as_str().unwrap();
    let count = rows("select count(*) as n from prompts where kind = 'general'")[0]["n"].as_i64().unwrap();
    let told = format!("generate('sft') for {count} rows, about ");
    assert!(models.starts_with(&told), "{models}");
    let most = format!(" tokens to read and at most {}", count * 8);
    assert!(models.replace(',', "").contains(&most) || models.contains(&most), "{models}");
    assert!(models.contains("; about ") && models.ends_with(" s"), "{models}");
    let plain = rows("explain select * from prompts");
    assert!(plain.iter().all(|row| row["plan_type"] != "models"), "{plain:?}");
    // Answers of one model are read by another.
    let nested = rows(
        "explain select reward('reward', g['response']) from (select generate('sft', instruction, {max_tokens: 8}) as g \
         from prompts limit 3) t",
    );
    let models = nested.iter().find(|row| row["plan_type"] == "models").unwrap()["plan"].as_str().unwrap();
    assert!(
        models.contains("generate('sft') for 3 rows") && models.contains("reward('reward') for 3 rows"),
        "{models}"
    );
}

#[test]
fn a_guard_refuses_what_nobody_expects() {
    let statement = "select judge('sft', 'Concise', instruction, response_1, response_2) from judgments";
    let told = sql(&["--model-rows", "100", "-c", statement]).failed(6);
    let begins = "salmon: query: choice_logits('sft') for 500 rows, about ";
    assert!(told.starts_with(begins), "{told}");
    assert!(told.ends_with("that is more than --model-rows 100: raise it, or 0 for any number\n"), "{told}");
    assert_eq!(sql(&["--model-rows", "500", "-c", statement]).rows().len(), 500);
    assert_eq!(sql(&["--model-rows", "0", "-c", statement]).rows().len(), 500);
    // What a limit and a filter on columns leave counts, not the table.
    let few = format!("{statement} where principle = 'Concise' limit 7");
    assert_eq!(sql(&["--model-rows", "7", "-c", &few]).rows().len(), 7);
}

#[test]
fn misuse_says_how_it_is_written() {
    for (statement, told) in [
        ("select reward('reward')", "reward: expected reward(model, prompt)"),
        (
            "select judge('sft', 'Concise', 'q', 'a')",
            "judge: expected judge(model, principle, instruction, response_1, response_2)",
        ),
        (
            "select reward('rewrd', 'a')",
            "reward: no model is named rewrd; known are base, policy:brief, policy:drawn, reward, sft",
        ),
        (
            "select judge('sft', 'Concise', prompt_id, response_1, sample_1) from pairs",
            "judge: response_2 (pairs.sample_1) must be text",
        ),
        (
            "select count(*) from pairs group by judge('sft', 'x', instruction, response_1, response_2)",
            "judge(): not allowed in GROUP BY",
        ),
        ("select sum(reward('reward', instruction)) from pairs", "reward(): not allowed in an aggregate"),
        (
            "select count_tokens('sft', sample_1) from pairs",
            "count_tokens: the text (sample_1) must be text, not Int64",
        ),
    ] {
        let error = sql(&["-c", statement]).failed(6);
        assert!(error.contains(told), "{statement}: {error}");
    }
}

#[test]
fn what_a_statement_does_not_name_is_not_read() {
    let place = Place::copy(POLICIES);
    let run = place.run();
    // Nothing of it can be read but what the statement asks.
    fs::write(run.join("config.toml"), "not a configuration").unwrap();
    fs::write(run.join("current/tables/pairs/pairs.json"), "damaged").unwrap();
    fs::remove_dir_all(run.join("models")).unwrap();
    let url = run.display().to_string();
    let said = |statement: &str| salmon(&["sql", "--run", &url, "--format", "csv", "-c", statement]);
    assert_eq!(said("select 1 as a").ok(), "a\n1\n");
    assert_eq!(said("select count(reward) > 0 as a from rollouts").ok(), "a\ntrue\n");
    assert!(said("select * from pairs").failed(5).contains("pairs.json"));
    assert!(said("select reward('reward', 'a')").failed(2).contains("config.toml"));
}
