//! `salmon generate` and `salmon logprobs`: a model folder at hand.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::cli_support::{Ran, salmon};
use super::random_llama::{self, Shape};

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/architectures").join(name).display().to_string()
}

fn expected(name: &str, tensor: &str) -> Tensor {
    let tensors = Tensor::read_safetensors(format!("{}/expected.safetensors", fixture(name))).unwrap();
    tensors.into_iter().find(|(found, _)| found == tensor).unwrap().1
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// A folder with a tokenizer.
fn folder() -> &'static str {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        let shape = Shape { vocab: 300, hidden: 32, layers: 2, context: 64 };
        let texts = ["the river of lumen is long and the river of arden is short".to_string()];
        random_llama::write(&folder, &texts, shape, 5).unwrap();
        folder
    });
    folder.to_str().unwrap()
}

#[track_caller]
fn generation(ran: Ran) -> Value {
    serde_json::from_str(&ran.ok()).unwrap()
}

#[test]
fn the_likeliest_tokens_are_those_of_transformers() {
    for name in ["llama_yarn", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma2", "gemma3"] {
        let greedy = Vec::<i64>::try_from(expected(name, "greedy")).unwrap();
        let args = ["generate", "--model", &fixture(name), "--ids", &list(&greedy[..8]), "--temperature", "0"];
        let found = generation(salmon(&[&args[..], &["--max-tokens", "64", "--format", "json"]].concat()));
        // transformers went on past the end token.
        let end = greedy[8..].iter().position(|&id| id == 2).map_or(64, |at| at + 1);
        assert_eq!(found["token_ids"], json!(greedy[8..8 + end]), "{name}");
        assert_eq!(found["finish_reason"], if end < 64 || greedy[71] == 2 { "stop" } else { "length" }, "{name}");
        assert_eq!(found["prompt_token_ids"], json!(greedy[..8]));
        assert_eq!(found["text"], Value::Null, "the folder has no tokenizer");
        assert_eq!(found["logprobs"].as_array().unwrap().len(), end);
    }
}

#[test]
fn log_probabilities_are_those_of_transformers() {
    for name in ["llama", "phi3", "gemma2"] {
        let ids = Vec::<i64>::try_from(expected(name, "ids").get(0)).unwrap();
        let theirs = expected(name, "logits").get(0).log_softmax(-1, Kind::Double);
        let ran = salmon(&["logprobs", "--model", &fixture(name), "--ids", &list(&ids), "--format", "json"]);
        let loss = expected(name, "logits").get(0).narrow(0, 0, 39).to_kind(Kind::Double);
        let loss = loss.cross_entropy_for_logits(&Tensor::from_slice(&ids[1..])).double_value(&[]);
        let sum = ran.err.split_once("39 tokens after the first: log-probability ").unwrap().1;
        let sum: f64 = sum.split_once(", perplexity ").unwrap().0.parse().unwrap();
        assert!((sum + 39.0 * loss).abs() < 1e-3, "{name}: {sum}");
        let rows = ran.rows();
        assert_eq!(rows.len(), 41);
        assert_eq!((&rows[0]["logprob"], &rows[0]["top"]), (&Value::Null, &json!([])));
        for (i, row) in rows.iter().enumerate().skip(1) {
            let before = theirs.get(i as i64 - 1);
            if let Some(&id) = ids.get(i) {
                assert_eq!(row["token_id"], json!(id));
                assert!((row["logprob"].as_f64().unwrap() - before.double_value(&[id])).abs() < 2e-5, "{name} {i}");
            } else {
                assert_eq!((&row["token_id"], &row["logprob"]), (&Value::Null, &Value::Null));
            }
            let (values, tokens) = before.topk(5, -1, true, true);
            let top = row["top"].as_array().unwrap();
            assert_eq!(top.len(), 5);
            for (k, likely) in top.iter().enumerate() {
                assert_eq!(likely["token_id"], json!(tokens.int64_value(&[k as i64])), "{name} {i}");
                let off = likely["logprob"].as_f64().unwrap() - values.double_value(&[k as i64]);
                assert!(off.abs() < 2e-5, "{name} {i}");
            }
        }
    }
}

#[test]
fn texts_are_read_and_written() {
    let args = ["generate", "--model", folder(), "--prompt", "the river", "--max-tokens", "12"];
    let json = generation(salmon(&[&args[..], &["--format", "json"]].concat()));
    let plain = salmon(&args);
    assert!(plain.err.contains("the response reached its most tokens"), "{}", plain.err);
    let text = json["text"].as_str().unwrap().to_string();
    assert_eq!(plain.ok(), format!("{text}\n"));
    // The prompt's tokens, bos first, say the same.
    let ids = json["prompt_token_ids"].as_array().unwrap();
    assert_eq!(ids[0], 1);
    let ids: Vec<i64> = ids.iter().map(|id| id.as_i64().unwrap()).collect();
    let again = ["generate", "--model", folder(), "--ids", &list(&ids), "--max-tokens", "12"];
    assert_eq!(salmon(&again).ok(), format!("{text}\n"));
    let seeds: Vec<String> = ["2", "3", "4"].map(|seed| salmon(&[&args[..], &["--seed", seed]].concat()).ok()).into();
    assert!(seeds.iter().any(|other| *other != format!("{text}\n")), "no seed changes anything");

    // The likeliest token is the only one that these leave.
    let greedy = salmon(&[&args[..], &["--temperature", "0"]].concat()).ok();
    assert_eq!(salmon(&[&args[..], &["--top-k", "1"]].concat()).ok(), greedy);
    assert_eq!(salmon(&[&args[..], &["--top-p", "1e-9"]].concat()).ok(), greedy);
    let whole = greedy.trim_end_matches('\n');
    let (at, stop) = whole.char_indices().nth(3).unwrap();
    let stopped = salmon(&[&args[..], &["--temperature", "0", "--stop", &stop.to_string()]].concat());
    assert!(!stopped.err.contains("most tokens"), "{}", stopped.err);
    let first = whole.find(stop).unwrap_or(at);
    assert_eq!(stopped.ok(), format!("{}\n", &whole[..first]));
}

#[test]
fn a_table_of_log_probabilities() {
    let ran = salmon(&["logprobs", "--model", folder(), "--text", "the river", "--top", "2"]);
    assert!(ran.err.contains("tokens after the first: log-probability -"), "{}", ran.err);
    let table = ran.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].split('|').map(str::trim).eq(["", "position", "token_id", "token", "logprob", "top", ""]),
        "{table}"
    );
    assert!(lines[3].contains("| 0 ") && lines[3].contains("\"<s>\""), "{table}");
    let json =
        salmon(&["logprobs", "--model", folder(), "--text", "the river", "--top", "2", "--format", "json"]).rows();
    assert_eq!(lines.len(), 4 + json.len());
    for (line, row) in lines[3..].iter().zip(&json) {
        for likely in row["top"].as_array().unwrap() {
            let shown =
                format!("{:?} {:.3}", likely["token"].as_str().unwrap(), likely["logprob"].as_f64().unwrap() as f32);
            assert!(line.contains(&shown), "{line} lacks {shown}");
        }
    }
}

#[test]
fn what_cannot_be_asked_says_why() {
    let (bare, long) = (fixture("llama_linear"), list(&[5; 129]));
    let fails = |args: &[&str], code| {
        let err = salmon(args).failed(code);
        assert!(!err.contains("panicked"), "{err}");
        err
    };
    for (command, text) in [("generate", "--prompt"), ("logprobs", "--text")] {
        let ask = |more: &[&str], code| fails(&[&[command, "--model", &bare][..], more].concat(), code);
        assert!(
            ask(&["--ids", "3,48"], 3)
                .contains("salmon: --ids: token id 48 at position 1 is outside the model's vocabulary of 48")
        );
        let needed = ask(&["--ids", &long], 3);
        assert!(needed.contains("--ids: 129 tokens do not fit into the model's context of 128"), "{needed}");
        let text_of_none = ask(&[text, "hello"], 2);
        assert!(text_of_none.contains(&format!("{text}: the model folder has no tokenizer.json")), "{text_of_none}");
        assert!(ask(&["--ids", "x"], 2).contains("invalid value 'x'"));
        assert!(ask(&["--ids", "3", text, "hello"], 2).contains("cannot be used with"));
        assert!(ask(&[], 2).contains("required"));
        let missing = fails(&[command, "--model", "/nowhere/at/all", "--ids", "3"], 4);
        assert!(missing.contains("/nowhere/at/all: there is no model folder here"), "{missing}");
        let empty = tempfile::tempdir().unwrap();
        let empty = fails(&[command, "--model", empty.path().to_str().unwrap(), "--ids", "3"], 4);
        assert!(empty.contains("config.json: cannot read"), "{empty}");
        // Only a text can be empty, of a model without a token before everything.
        let classifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/classifier");
        let classifier = fails(&[command, "--model", classifier.to_str().unwrap(), "--ids", "3"], 4);
        assert!(classifier.contains("lm_head.weight"), "{classifier}");
    }
    let full = fails(&["generate", "--model", &bare, "--ids", &list(&[5; 128])], 3);
    assert!(full.contains("128 tokens leave no room for a response in the context of 128"), "{full}");
    for (flag, value) in
        [("--temperature", "-1"), ("--top-p", "0"), ("--top-p", "1.5"), ("--max-tokens", "0"), ("--stop", "")]
    {
        let err = fails(&["generate", "--model", &bare, "--ids", "3", flag, value], 2);
        assert!(err.contains(flag), "{err}");
    }
    let stop = fails(&["generate", "--model", &bare, "--ids", "3", "--stop", "x"], 2);
    assert!(stop.contains("--stop: the model folder has no tokenizer.json"), "{stop}");
}
