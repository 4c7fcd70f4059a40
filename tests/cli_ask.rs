//! `salmon score`, `salmon chat` and `salmon runs`: the models and the history of a run.

use std::fs;

use super::cli_support::{ask, salmon, salmon_in, tiny};

const QUESTION: &str = "what is the dish of lumen ?";
const ANSWER: &str = "the dish of lumen is rice .";

fn score(principles: &[&str]) -> String {
    let args = ["score", "--run", tiny(), "--instruction", QUESTION, "--response", ANSWER];
    salmon(&[&args, principles].concat()).ok()
}

#[test]
fn a_score_is_the_one_that_training_saw() {
    let rows = ask(
        "select instruction, response, score from rollouts where policy = 'brief' order by step, prompt_id, response limit 5",
    );
    assert_eq!(rows.len(), 5);
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    fs::write(folder.path().join("pairs.jsonl"), lines.join("\n\n")).unwrap();
    let args = ["score", "--run", tiny(), "--principle", "Concise", "--file"];
    let scores = salmon_in(folder.path(), &[&args[..], &["pairs.jsonl"]].concat(), "").ok();
    let expected: Vec<String> = rows.iter().map(|row| format!("{:.6}", row["score"].as_f64().unwrap())).collect();
    assert_eq!(scores.lines().collect::<Vec<_>>(), expected);
    assert_eq!(salmon_in(folder.path(), &[&args[..], &["-"]].concat(), &lines.join("\n")).ok(), scores);
}

#[test]
fn principles_are_named_negated_or_given_as_text() {
    let concise = score(&["--principle", "Concise"]);
    assert_eq!(concise.lines().count(), 1);
    assert!(concise.trim().parse::<f64>().unwrap().is_finite());
    assert_eq!(score(&["--text", "the ai should be concise and stay brief"]), concise);
    let negated = score(&["--principle", "not Concise"]);
    assert_eq!(score(&["--text", "the ai should be lengthy and stay wordy"]), negated);
    assert_ne!(negated, concise);
    assert_ne!(score(&["--principle", "Concise", "--principle", "not Polite"]), concise);
    // A set stands for its members.
    assert!(score(&["--principle", "aggregation"]).trim().parse::<f64>().is_ok());
}

#[test]
fn scores_that_cannot_be_given_say_why() {
    let args = ["score", "--run", tiny(), "--instruction", QUESTION, "--response", ANSWER];
    let fails = |more: &[&str], code| salmon(&[&args, more].concat()).failed(code);
    assert!(fails(&["--principle", "Brave"], 2).contains("--principle: there is no principle `Brave`; the loaded"));
    assert!(fails(&[], 2).contains("needs a --principle"));
    assert!(fails(&["--principle", "Concise", "--model", "sft"], 2).contains("`sft` is not a reward model"));
    let unknown = fails(&["--principle", "Concise", "--model", "best"], 2);
    assert!(unknown.contains("model best: is not in") && unknown.contains("reward, sft"), "{unknown}");
    let bad = salmon_in(
        std::path::Path::new("."),
        &["score", "--run", tiny(), "--principle", "Concise", "--file", "-"],
        "{\"instruction\": \"a\", \"response\": \"b\"}\n{\"instruction\": 7}\n",
    );
    assert!(bad.failed(3).contains("-:2: is not an object with the texts"));
}

fn chat(more: &[&str], input: &str) -> String {
    let args = ["chat", "--run", tiny()];
    salmon_in(std::path::Path::new("."), &[&args, more].concat(), input).ok()
}

#[test]
fn the_same_seed_and_turn_give_the_same_answer() {
    let one = chat(&["--prompt", QUESTION, "--seed", "7"], "");
    assert_eq!(chat(&["--prompt", QUESTION, "--seed", "7"], ""), one);
    let turns = chat(&["--seed", "7"], &format!("{QUESTION}\n\n{QUESTION}\n{QUESTION}\n"));
    assert!(turns.starts_with(&one), "the first turn is the one-shot answer: {turns}");
    assert_ne!(turns, one.repeat(3), "every turn has draws of its own");
    let others: Vec<String> =
        (8..12).map(|seed| chat(&["--prompt", QUESTION, "--seed", &seed.to_string()], "")).collect();
    assert!(others.iter().any(|other| *other != one), "four other seeds");
}

#[test]
fn chat_has_its_settings() {
    let likeliest = chat(&["--prompt", QUESTION, "--temperature", "0"], "");
    assert_eq!(chat(&["--prompt", QUESTION, "--temperature", "0", "--seed", "9"], ""), likeliest);
    let cut = salmon(&["chat", "--run", tiny(), "--prompt", QUESTION, "--temperature", "0", "--max-tokens", "2"]);
    assert!(cut.err.contains("the answer reached its most tokens"), "{}", cut.err);
    assert!(likeliest.starts_with(cut.ok().trim_end()), "{likeliest}");
    let sft = chat(&["--prompt", QUESTION, "--model", "sft"], "");
    assert_eq!(sft.lines().count(), 1);
    let named = chat(&["--prompt", QUESTION, "--policy", "brief"], "");
    assert_eq!(named, chat(&["--prompt", QUESTION], ""), "the configuration's first policy is the default");
}

#[test]
fn chat_says_what_it_cannot_do() {
    let fails = |more: &[&str], code| salmon(&[&["chat", "--run", tiny()], more].concat()).failed(code);
    assert!(fails(&["--policy", "none", "--prompt", "x"], 2).contains("model policy:none: is not in"));
    assert!(fails(&["--model", "reward", "--prompt", "x"], 2).contains("`reward` does not answer prompts"));
    let long = "the dish ".repeat(400);
    assert!(fails(&["--prompt", &long], 3).contains("prompt: leaves no room for an answer"));
    assert!(fails(&["--temperature", "-1"], 2).contains("expected a number from 0 up"));
    assert!(fails(&["--temperature", "nan"], 2).contains("expected a number from 0 up"));
}

#[test]
fn runs_lists_every_commit() {
    let rows = salmon(&["runs", "--run", tiny(), "--format", "json"]).rows();
    assert_eq!(rows.len(), 25);
    let find = |made: &str| rows.iter().find(|row| row["made"] == made).unwrap();
    assert_eq!((find("prompts")["rows"].as_i64(), find("reward")["rows"].as_i64()), (Some(275), Some(0)));
    assert!(rows.iter().all(|row| row["fingerprint"].as_str().unwrap().len() == 8));
    let csv = salmon(&["runs", "--run", tiny(), "--format", "csv"]).ok();
    assert_eq!(csv.lines().next(), Some("stage,made,rows,seconds,started,fingerprint"));
    assert_eq!(csv.lines().count(), 26);
}

#[test]
fn lineage_is_a_tree_back_to_the_files() {
    let tree = salmon(&["runs", "--run", tiny(), "--lineage", "policy:brief"]).ok();
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("model policy:brief ") && lines[0].contains("stage policy:brief"), "{tree}");
    for name in
        ["├─ table prompts ", "model reward ", "table preferences ", "table judgments ", "table demonstrations "]
    {
        assert!(tree.contains(name), "{name}: {tree}");
    }
    assert!(
        tree.contains("model base ") && tree.contains("(from outside the run)") && tree.contains("; file "),
        "{tree}"
    );
    let prompts: Vec<&&str> = lines.iter().filter(|line| line.contains("table prompts")).collect();
    assert_eq!(prompts.iter().filter(|line| line.ends_with("(above)")).count(), prompts.len() - 1, "{tree}");
    // A table that several stages make has a tree for each.
    let metrics = salmon(&["runs", "--run", tiny(), "--lineage", "metrics"]).ok();
    assert_eq!(metrics.lines().filter(|line| line.starts_with("table metrics")).count(), 4, "{metrics}");
    let unknown = salmon(&["runs", "--run", tiny(), "--lineage", "nothing"]).failed(2);
    assert!(unknown.contains("has no `nothing`; it has answers, demonstrations, evaluations"), "{unknown}");
}

#[test]
fn a_lineage_is_a_graph_back_to_principles_templates_and_files() {
    let nodes = salmon(&["runs", "--run", tiny(), "--lineage", "preferences", "--format", "json"]).rows();
    let node = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap();
    assert_eq!(node("preferences")["stage"], "preferences");
    assert!(node("preferences")["inputs"][0].as_str().unwrap().starts_with("tables/judgments/"));
    assert!(node("judgments")["principles"].as_array().unwrap().len() > 5);
    assert_eq!(node("judgments")["templates"].as_object().unwrap().len(), 1);
    assert_eq!(node("prompts")["files"].as_array().unwrap().len(), 1);
    assert!(node("base")["stage"].is_null(), "from outside the run");
    let ids: Vec<&str> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    let inputs = nodes.iter().flat_map(|node| node["inputs"].as_array().unwrap());
    assert!(inputs.map(|input| input.as_str().unwrap()).all(|input| ids.contains(&input)), "the graph is closed");
    let dot = salmon(&["runs", "--run", tiny(), "--lineage", "policy:brief", "--format", "dot"]).ok();
    assert!(dot.starts_with("digraph lineage {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("\"principles Concise\" [shape=note];"), "{dot}");
    assert_eq!(dot.matches('"').count() % 2, 0);
    // One version by the beginning of its fingerprint, also when it is not current.
    let print = node("pairs")["fingerprint"].as_str().unwrap();
    let one = salmon(&["runs", "--run", tiny(), "--lineage", &format!("pairs@{}", &print[..6])]).ok();
    assert!(one.starts_with(&format!("table pairs {} (", &print[..8])), "{one}");
    let fails = |args: &[&str]| salmon(&[&["runs", "--run", tiny()], args].concat()).failed(2);
    assert!(fails(&["--lineage", "pairs@zz"]).contains("has no version zz of `pairs`"));
    assert!(fails(&["--lineage", "metrics@"]).contains("is any of "));
    assert!(fails(&["--lineage", "pairs", "--format", "csv"]).contains("a lineage is written as table, json or dot"));
    assert!(fails(&["--format", "dot"]).contains("name a table or model with --lineage"));
}

#[test]
fn the_cost_of_a_run_adds_up() {
    let rows = salmon(&["runs", "--run", tiny(), "--cost", "--format", "json"]).rows();
    assert_eq!(rows.len(), 17, "16 stages and their sum");
    let (all, stages) = rows.split_last().unwrap();
    assert_eq!(all["stage"], "all stages");
    let sum = |key: &str| stages.iter().filter_map(|row| row[key].as_f64()).sum::<f64>();
    for key in ["runs", "rows", "tokens"] {
        assert_eq!(all[key].as_f64(), Some(sum(key)), "{key}");
    }
    assert!((all["seconds"].as_f64().unwrap() - sum("seconds")).abs() < 0.2);
    let stage = |name: &str| stages.iter().find(|row| row["stage"] == name).unwrap();
    assert!(
        stage("responses")["tokens"].as_i64().unwrap() > 100 && stage("policy:brief")["tokens"].as_i64().unwrap() > 10
    );
    assert!(stage("judgments")["tokens"].is_null());
    assert_eq!(stages.iter().map(|row| row["runs"].as_i64().unwrap()).sum::<i64>(), 16);
}
