//! `salmon export model`: the folder opens again as what the run has, with its tokenizer, layout and card.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use salmon::config::Config;
use salmon::export;
use salmon::model::{ChatTemplate, Head, Message, Network, Tokenizer};
use salmon::principle::{Library, Templates};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::cli_support::{ask, copy_of_tiny, salmon, tiny};
use super::model_fixtures::distance;

/// Runs the command; gives its folder.
fn exported(run: &str, model: &str, more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let args = ["export", "model", "--run", run, "--out", &out, "--model", model];
    assert_eq!(salmon(&[&args, more].concat()).ok(), format!("{out}\n"));
    folder
}

fn open(folder: &Path) -> Network {
    Network::open(folder, Kind::Float, Device::Cpu).unwrap()
}

fn read(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Where the tiny run keeps a model.
fn own(model: &str) -> PathBuf {
    let folder = fs::read_dir(Path::new(tiny()).join("models").join(model)).unwrap().next().unwrap();
    folder.unwrap().path()
}

/// A few responses of the tiny run as token ids.
fn texts(tokenizer: &Tokenizer) -> Vec<Tensor> {
    let rows = ask("select response from rollouts order by policy, step, prompt_id, response limit 4");
    let ids = |row: &Value| tokenizer.encode(row["response"].as_str().unwrap(), true).unwrap();
    let wide = |ids: Vec<u32>| ids.into_iter().map(i64::from).collect::<Vec<_>>();
    rows.iter().map(|row| Tensor::from_slice(&wide(ids(row))).unsqueeze(0)).collect()
}

#[test]
fn in_float32_a_model_gives_the_runs_logits_bit_for_bit() {
    for model in ["sft", "policy:brief"] {
        let folder = exported(tiny(), model, &["--dtype", "float32"]);
        let (found, wanted) = (open(folder.path()), open(&own(model)));
        for ids in texts(&Tokenizer::open(folder.path()).unwrap()) {
            assert!(found.log_probs(&ids).unwrap().equal(&wanted.log_probs(&ids).unwrap()), "{model}");
        }
    }
}

#[test]
fn the_default_is_bfloat16_and_near() {
    let folder = exported(tiny(), "policy:brief", &[]);
    let tensors = Tensor::read_safetensors(folder.path().join("model.safetensors")).unwrap();
    assert!(tensors.iter().all(|(_, tensor)| tensor.kind() == Kind::BFloat16));
    assert_eq!(read(folder.path(), "config.json")["torch_dtype"], "bfloat16");
    let (found, wanted) = (open(folder.path()), open(&own("policy:brief")));
    for ids in texts(&Tokenizer::open(folder.path()).unwrap()) {
        assert!(distance(&found.log_probs(&ids).unwrap(), &wanted.log_probs(&ids).unwrap()) < 0.5);
    }
}

#[test]
fn a_reward_model_is_a_classifier_that_knows_its_padding() {
    let folder = exported(tiny(), "reward", &["--dtype", "float32"]);
    let config = read(folder.path(), "config.json");
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    assert_eq!((&config["num_labels"], &config["pad_token_id"]), (&json!(1), &json!(0)));
    assert_eq!(read(folder.path(), "tokenizer_config.json")["pad_token"], "<pad>");
    let (found, wanted) = (open(folder.path()), open(&own("reward")));
    assert_eq!(found.head(), Head::Linear);
    for ids in texts(&Tokenizer::open(folder.path()).unwrap()) {
        let score = |network: &Network| network.scores(&network.hidden(&ids).unwrap().select(1, -1)).unwrap();
        assert!(score(&found).equal(&score(&wanted)));
    }
}

#[tokio::test]
async fn the_padding_is_that_of_the_tokenizer_and_else_the_end_token() {
    let source = exported(tiny(), "reward", &["--dtype", "float32"]);
    let (config, tokenizer) = (source.path().join("config.json"), source.path().join("tokenizer_config.json"));
    let (plain, named) = (fs::read_to_string(&config).unwrap(), fs::read_to_string(&tokenizer).unwrap());
    let without = (plain.replace("\"pad_token_id\": 0,", ""), named.replace(",\n  \"pad_token\": \"<pad>\"", ""));
    for (texts, wanted) in [
        ((plain.clone(), named.replace("\"<pad>\"", "\"<unk>\"")), (3, "<unk>")),
        ((plain.clone(), named.clone()), (0, "<pad>")),
        ((without.0, without.1), (2, "</s>")),
    ] {
        fs::write(&config, &texts.0).unwrap();
        fs::write(&tokenizer, &texts.1).unwrap();
        let out = tempfile::tempdir().unwrap();
        let model = export::Model {
            name: "reward",
            network: open(source.path()),
            tokenizer: &Tokenizer::open(source.path()).unwrap(),
            templates: &Templates::load(None, &Library::default()).unwrap(),
            chat_template: None,
            reward_template: Some("reward"),
        };
        let about = export::Run {
            url: tiny().into(),
            config: Config::default(),
            ancestry: export::Ancestry::default(),
            manifest: None,
        };
        let form = export::Form::Merged { kind: Kind::Float, max_shard_size: u64::MAX };
        let ctx = salmon::catalog::session(tiny()).await.unwrap();
        export::write_model(&ctx, model, &form, about, out.path()).await.unwrap();
        assert_eq!(read(out.path(), "config.json")["pad_token_id"], wanted.0);
        assert_eq!(read(out.path(), "tokenizer_config.json")["pad_token"], wanted.1);
    }
}

#[test]
fn the_reward_template_and_the_tokenizer_give_the_rewards_of_salmon_score() {
    let folder = exported(tiny(), "reward", &["--dtype", "float32"]);
    let templates = Templates::load(Some(folder.path()), &Library::default()).unwrap();
    let (question, answer) = ("what is the dish of lumen ?", "the dish of lumen is rice .");
    let principles = json!([{"text": "the ai should be concise and stay brief"}]);
    let fields = json!({"instruction": question, "response": answer, "principles": principles});
    let prompt = templates.render("reward_template", fields).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let ids: Vec<i64> = tokenizer.encode(&prompt, true).unwrap().into_iter().map(i64::from).collect();
    let network = open(folder.path());
    let hidden = network.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap();
    let reward = network.scores(&hidden.select(1, -1)).unwrap().double_value(&[0]);
    let args = ["score", "--run", tiny(), "--instruction", question, "--response", answer, "--principle", "Concise"];
    let said: f64 = salmon(&args).ok().trim().parse().unwrap();
    assert!((reward - said).abs() < 1e-4, "{reward} against {said}");
}

#[test]
fn a_yes_no_head_exports_as_a_causal_model_with_its_tokens() {
    let (_folder, run) = copy_of_tiny();
    let path = format!("{run}/config.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("head = \"linear\""));
    fs::write(&path, text.replace("head = \"linear\"", "head = \"yes_no\"")).unwrap();
    let folder = exported(&run, "reward", &[]);
    let config = read(folder.path(), "config.json");
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    assert!(config.get("num_labels").is_none());
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let (yes, no) = (tokenizer.token("good").unwrap(), tokenizer.token("bad").unwrap());
    assert_eq!(config["yes_no_head"], json!({"yes_token_id": yes, "no_token_id": no}));
    assert_eq!(open(folder.path()).head(), Head::None);
    let card = fs::read_to_string(folder.path().join("README.md")).unwrap();
    assert!(card.contains(&format!("(logits[{yes}] - logits[{no}])")) && card.contains("- reward-model"), "{card}");
}

#[test]
fn the_chat_template_is_the_layout_of_training() {
    let folder = exported(tiny(), "policy:brief", &[]);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let template = ChatTemplate::open(folder.path(), &tokenizer).unwrap();
    let trained = Templates::load(None, &Library::default()).unwrap();
    let question = "what is \"the\" dish {{ of }} lümen ?";
    let wanted = trained.render("pocket_chat", json!({"instruction": question})).unwrap();
    let (turn, none) = ([Message::new("user", question)], serde_json::Map::new());
    assert_eq!(template.render(&turn, &none, true).unwrap(), format!("<s>{wanted}"));
    let turns = [turn[0].clone(), Message::new("assistant", " rice .\n")];
    assert_eq!(template.render(&turns, &none, false).unwrap(), format!("<s>{wanted} rice .\n</s>"));
    let refused = template.render(&[Message::new("system", "be kind")], &none, true).unwrap_err().to_string();
    assert!(refused.contains("turns of the user and the assistant only"), "{refused}");
    // The same ids as in training, with the bos token spelled out.
    assert_eq!(tokenizer.encode(&format!("<s>{wanted}"), false).unwrap(), tokenizer.encode(&wanted, true).unwrap());
}

#[test]
fn the_tokenizer_needs_no_class_of_the_model_type() {
    let folder = exported(tiny(), "sft", &[]);
    let config = read(folder.path(), "tokenizer_config.json");
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&json!("<s>"), &json!("</s>")));
    assert_eq!(config["model_max_length"], 256);
    assert_eq!(config["model_input_names"], json!(["input_ids", "attention_mask"]));
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/pocket/tokenizer.json");
    assert_eq!(fs::read(folder.path().join("tokenizer.json")).unwrap(), fs::read(base).unwrap());
}

#[test]
fn the_base_is_exported_with_its_own_bits() {
    let folder = exported(tiny(), "base", &[]);
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/pocket");
    let tensors = |folder: &Path| -> BTreeMap<String, Tensor> {
        Tensor::read_safetensors(folder.join("model.safetensors")).unwrap().into_iter().collect()
    };
    for ((name, found), (own, wanted)) in tensors(folder.path()).into_iter().zip(tensors(&base)) {
        assert!(name == own && found.kind() == Kind::BFloat16 && found.equal(&wanted), "{name}");
    }
    assert!(!folder.path().join("chat_template.jinja").exists());
    let card = fs::read_to_string(folder.path().join("README.md")).unwrap();
    assert!(card.contains("The model is from outside of the run."), "{card}");
}

#[test]
fn the_card_has_lineage_principles_and_figures() {
    let folder = exported(tiny(), "policy:brief-kind", &[]);
    let card = fs::read_to_string(folder.path().join("README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- salmon\n---\n"));
    for line in [
        "| Concise | always | the ai should be concise and stay brief |",
        "| Polite | always | the ai should be kind and be courteous |",
    ] {
        assert!(card.contains(line), "{line}: {card}");
    }
    let figures = ask("select metric, n from evaluations where what = 'policy:brief-kind'");
    assert!(!figures.is_empty());
    assert_eq!(card.lines().filter(|line| line.starts_with("| policy:brief-kind |")).count(), figures.len());
    let print = own("policy:brief-kind").file_name().unwrap().to_str().unwrap().to_string();
    let made = format!("| model policy:brief-kind | policy:brief-kind |  | prompts, base, reward, sft | `{print}` |");
    assert!(card.contains(&made), "{card}");
    // Inputs come before what was made from them.
    let place = |text: &str| card.find(text).unwrap_or_else(|| panic!("{text}: {card}"));
    assert!(place("| table prompts |") < place("| model sft |") && place("| model sft |") < place("| model reward |"));
}

#[test]
fn what_cannot_be_exported_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export").display().to_string();
    let fails = |more: &[&str], code| {
        let args = ["export", "model", "--run", tiny(), "--out", &out];
        let said = salmon(&[&args, more].concat()).failed(code);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{said}");
        said
    };
    let unknown = fails(&["--model", "policy:best"], 2);
    assert!(unknown.contains("model policy:best: is not in") && unknown.contains("reward, sft"), "{unknown}");
    let full = fails(&["--model", "sft", "--adapter", "org/base"], 2);
    assert!(full.contains("--adapter: `sft` has no adapter, its weights are its own"), "{full}");
    for size in ["0", "5XB", "GB", "1.5GB", "99999999999999999999GB"] {
        assert!(fails(&["--model", "sft", "--max-shard-size", size], 2).contains("expected a size such as"), "{size}");
    }
    assert!(fails(&["--model", "sft", "--adapter", "x", "--dtype", "float32"], 2).contains("cannot be used with"));
    assert!(fails(&["--model", "sft", "--dtype", "int8"], 2).contains("bfloat16, float16, float32"));
}

#[test]
fn force_replaces_an_export_and_without_it_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("export").display().to_string();
    let args = ["export", "model", "--run", tiny(), "--out", &out, "--model"];
    salmon(&[&args[..], &["sft", "--max-shard-size", "100KB"]].concat()).ok();
    let shards = Path::new(&out).join("model.safetensors.index.json");
    assert!(shards.exists());
    let said = salmon(&[&args[..], &["sft"]].concat()).failed(2);
    assert!(said.contains("is there already; choose another --out, or replace it with --force"), "{said}");
    assert!(shards.exists());
    salmon(&[&args[..], &["sft", "--force"]].concat()).ok();
    assert!(!shards.exists() && Path::new(&out).join("model.safetensors").exists());
}
