//! What a change of the configuration does: which stages run again, and that every kind of model and trainer works.

use std::fs::{self, File};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::pipeline_support::{POLICIES, Place, STAGES, number, whole};

/// One policy in one step.
const ONE: &str = "[[policies]]\nname = \"one\"\nprinciples = [\"Concise\", \"Polite\"]\ndraw = 0\n";

/// Every stage from `first` on but some.
fn from(first: &str, but: &[&str]) -> Vec<String> {
    let at = STAGES.iter().position(|stage| *stage == first).unwrap();
    STAGES[at..].iter().filter(|stage| !but.contains(stage)).map(|stage| stage.to_string()).collect()
}

#[test]
fn a_change_runs_what_depends_on_it_and_nothing_else() {
    let run = whole();
    let beside_reward = ["evaluate:judge", "evaluate:policy:sft"];
    for (sets, wanted) in [
        (vec!["checkpoint_seconds=1", "model.workers=7"], vec![]),
        (vec!["evaluate.samples=2"], from("evaluate:policy:sft", &[])),
        (vec!["ppo.steps=4"], from("policy:brief", &["evaluate:judge", "evaluate:reward", "evaluate:policy:sft"])),
        (vec!["reward.trainer.learning_rate=1e-5"], from("reward", &beside_reward)),
        (vec!["preferences.noise=0.3"], from("preferences", &beside_reward)),
        (vec!["judge.max_query_tokens=9"], from("judgments", &["evaluate:policy:sft"])),
        (vec!["responses.test_prompts=7"], from("responses", &["evaluate:policy:sft"])),
        (vec!["sft.learning_rate=1e-5"], from("sft", &[])),
        (vec!["seed=9"], from("demonstrations", &[])),
    ] {
        assert_eq!(run.planned(&sets), wanted, "{sets:?}");
    }
}

#[test]
fn another_policy_runs_alone() {
    let place = Place::copy(&format!("{POLICIES}{ONE}"));
    let wanted = ["policy:one", "evaluate:policy:one"];
    assert_eq!(place.planned(&["ppo.steps=3"]), wanted);
    let said = place.succeed(&[]);
    let ran: Vec<&str> = said.lines().filter_map(|line| line.split_once(": runs (")).map(|(stage, _)| stage).collect();
    assert_eq!(ran, wanted);
    // An older configuration comes back for free.
    place.configure(POLICIES);
    assert!(place.succeed(&[]).contains("nothing to do"));
}

#[tokio::test]
async fn every_ppo_setting_runs() {
    let policies = r#"
[[policies]]
name = "k3"
principles = ["Concise"]
draw = 0
ppo = { trainer = { kl_estimator = "k3" } }

[[policies]]
name = "adaptive"
principles = ["Concise"]
draw = 0
ppo = { trainer = { adaptive_kl = { target = 6.0, horizon = 100.0 } } }

[[policies]]
name = "whitened"
principles = ["Concise"]
draw = 0
ppo = { trainer = { whiten_rewards = true } }

[[policies]]
name = "method"
principles = ["Concise"]
draw_set = "rl"
draw = 3
ppo = { length_bonus = 5.0, length_bonus_tokens = 64.0, stop_penalty = 6.0, normalize = "none", value_init = "reward", trainer = { kl_estimator = "k1_clamped", reward_scale = 10.0, kl_coef = 0.01, lam = 1.0, cliprange_value = 0.2, vf_coef = 0.1 } }
"#;
    let place = Place::copy(policies);
    place.succeed(&["policy:k3", "policy:adaptive", "policy:whitened", "policy:method"]);
    let context = place.tables().await;
    for (policy, coefficients) in [("k3", 1), ("adaptive", 3), ("whitened", 1), ("method", 1)] {
        let of = format!("from metrics where stage = 'policy:{policy}' and name =");
        let text = format!("select count(distinct value) {of} 'objective/kl_coef'");
        assert_eq!(number(&context, &text).await, coefficients, "{policy}");
        assert_eq!(number(&context, &format!("select count(*) {of} 'loss/policy_avg'")).await, 3, "{policy}");
    }
    let bonus = "select count(*) from rollouts where policy = 'method'
        and abs(length_bonus - 5.0 * least(cast(cardinality(response_ids) as double) / 64.0, 0.8)) < 1e-9
        and abs(reward - score - length_bonus - stop_penalty) < 1e-9";
    assert_eq!(number(&context, bonus).await, 24);
    // The same rollouts are paid differently: the policies have come apart.
    let texts = "select count(distinct logprobs[1]) from rollouts where step = 2 and policy in ('k3', 'whitened')";
    assert!(number(&context, texts).await > 8);
}

#[tokio::test]
async fn adapters_on_one_frozen_base() {
    let place = Place::new(ONE);
    let lora = ["--set", "model.lora.r=4", "--set", "model.lora.lora_alpha=8", "--set", "sft.learning_rate=5e-3"];
    place.succeed(&lora);
    for (model, head) in [("sft", false), ("reward", true), ("policy:one", false)] {
        let files = place.model(model);
        assert!(files.contains(&"adapter_model.safetensors".to_string()), "{model}: {files:?}");
        assert!(!files.iter().any(|file| file == "model.safetensors"), "{model} is an adapter: {files:?}");
        let path = crate::pipeline_support::files(&place.run())
            .into_iter()
            .find(|(path, _)| path.starts_with(&format!("models/{model}/")) && path.ends_with("adapter_config.json"));
        let config: Value = serde_json::from_slice(&path.unwrap().1).unwrap();
        assert_eq!((config["r"].as_i64(), config["lora_alpha"].as_f64()), (Some(4), Some(8.0)), "{model}");
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(!config["modules_to_save"].is_null(), head, "{model}");
    }
    assert!(place.succeed(&lora).contains("nothing to do"));
    let context = place.tables().await;
    let first = "select count(*) from rollouts where step = 0 and abs(kl) > 1e-4";
    assert_eq!(number(&context, first).await, 0, "the policy starts as the reference");
    let later = "select count(*) from rollouts where step = 2 and abs(kl) > 0";
    assert!(number(&context, later).await > 0, "and leaves it");
}

#[tokio::test]
async fn the_margin_of_two_words_as_reward() {
    let place = Place::copy(ONE);
    place.succeed(&["--set", "reward.head=yes_no", "--set", "ppo.value_init=reward"]);
    // The newest reward model is a plain causal language model: no tensor is added.
    let heads: Vec<bool> = crate::pipeline_support::files(&place.run())
        .into_iter()
        .filter(|(path, _)| path.starts_with("models/reward/") && path.ends_with("model.safetensors"))
        .map(|(_, bytes)| safetensors::SafeTensors::deserialize(&bytes).unwrap().names().contains(&"score.weight"))
        .collect();
    assert_eq!(heads.iter().filter(|linear| **linear).count(), 1, "the copied run's");
    assert_eq!(heads.len(), 2);
    let context = place.tables().await;
    assert!(number(&context, "select count(distinct score) from rollouts").await > 12);
    assert!(number(&context, "select count(*) from evaluations where what = 'reward'").await > 3);
}

#[tokio::test]
async fn human_preferences_come_first() {
    let place = Place::copy(ONE);
    let texts =
        |what: &str| Arc::new(StringArray::from_iter_values((0..40).map(|i| format!("{what} {i} ?")))) as ArrayRef;
    let columns = ["prompt", "chosen", "rejected"].map(|name| (name, texts(name)));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(place.folder.join("human.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let sets = [
        "reward",
        "--set",
        "data.human_preferences=[\"human.parquet\"]",
        "--set",
        "reward_pretraining.max_rows=30",
        "--set",
        "reward_pretraining.trainer.batch_size=10",
    ];
    let said = place.succeed(&sets);
    let ran: Vec<&str> = said.lines().filter_map(|line| line.split_once(": runs (")).map(|(stage, _)| stage).collect();
    assert_eq!(ran, ["reward_pretraining", "reward"]);
    let context = place.tables().await;
    let used = "select max(value) from metrics where stage = 'reward_pretraining' and name = 'rows/used'";
    assert_eq!(number(&context, used).await, 30);
    assert_eq!(number(&context, "select max(step) from metrics where stage = 'reward_pretraining'").await, 3);
    assert!(place.succeed(&sets).contains("nothing to do"));
    // A missing file is one line with its place.
    fs::remove_file(place.folder.join("human.parquet")).unwrap();
    let output = place.command(&sets).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(3), 1), "{said}");
    assert!(said.contains("human.parquet") && said.contains("data.human_preferences"), "{said}");
}
