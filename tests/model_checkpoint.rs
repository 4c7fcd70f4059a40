//! Model folders: what is read, what is written, and one clear line for every broken one.

use std::path::Path;

use salmon::draw::key;
use salmon::error::Kind as ErrorKind;
use salmon::model::{Head, ModelConfig, Network};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::model_fixtures::{bytes, copy, fixture, open};

#[test]
fn config_fields_and_their_defaults() {
    let config = ModelConfig::open(&fixture("untied")).unwrap();
    assert_eq!((config.hidden_size, config.num_key_value_heads, config.head_dim), (24, 2, 8));
    assert_eq!((config.bos_token_id, config.pad_token_id), (Some(1), Some(0)));
    assert_eq!(config.eos_token_ids, [2]);
    let config = ModelConfig::open(&fixture("tied")).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim, config.rope_theta), (4, 4, 500000.0));
    assert_eq!(config.torch_dtype, Kind::BFloat16);

    let fields = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 9, "hidden_size": 8, "intermediate_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": [3, 4], "bos_token_id": null,
        "rope_parameters": {"rope_theta": 2e5, "rope_type": "default"}, "rope_scaling": {"rope_type": "default"},
    });
    let config = ModelConfig::from_json(fields.as_object().unwrap().clone(), "test").unwrap();
    assert_eq!((config.rope_theta, config.eos_token_ids), (2e5, vec![3, 4]));
    assert_eq!((config.bos_token_id, config.rms_norm_eps, config.max_position_embeddings), (None, 1e-6, 2048));
}

#[test]
fn end_tokens_come_from_both_files() {
    let folder = tempfile::tempdir().unwrap();
    copy("untied", folder.path());
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [5, 2]}"#).unwrap();
    assert_eq!(ModelConfig::open(folder.path()).unwrap().eos_token_ids, [2, 5]);
}

#[test]
fn saved_folder_has_the_bits_that_were_read() {
    for (name, kind) in [("untied", Kind::Float), ("tied", Kind::BFloat16), ("classifier", Kind::Float)] {
        let folder = tempfile::tempdir().unwrap();
        copy(name, folder.path());
        std::fs::write(folder.path().join("tokenizer.json"), "kept as it is").unwrap();
        let network = Network::open(folder.path(), kind, Device::Cpu).unwrap();
        let saved = tempfile::tempdir().unwrap();
        let written = network.save(saved.path()).unwrap();
        let ours = bytes(saved.path());
        assert_eq!(written.len(), ours.len());
        assert_eq!(ours["tokenizer.json"], b"kept as it is");
        if name != "tied" {
            assert!(ours["model.safetensors"] == bytes(folder.path())["model.safetensors"], "{name}");
        }
        let again = Network::open(saved.path(), kind, Device::Cpu).unwrap();
        assert_eq!(again.head(), network.head());
        for ((name, tensor), (_, other)) in network.merged().unwrap().iter().zip(again.merged().unwrap()) {
            assert!(tensor.equal(&other), "{name}");
        }
        let second = tempfile::tempdir().unwrap();
        again.save(second.path()).unwrap();
        assert!(ours == bytes(second.path()), "{name}: the same network gave other bytes");
    }
}

#[test]
fn saved_configuration_says_what_was_saved() {
    let read = |network: &Network| -> Value {
        let folder = tempfile::tempdir().unwrap();
        network.save(folder.path()).unwrap();
        serde_json::from_slice(&bytes(folder.path())["config.json"]).unwrap()
    };
    let network = open("untied", Kind::BFloat16);
    let config = read(&network);
    assert_eq!((&config["architectures"], &config["torch_dtype"]), (&json!(["LlamaForCausalLM"]), &json!("bfloat16")));
    assert_eq!(config["initializer_range"], 0.3, "a field that we do not use is kept");
    let config = read(&network.with_head(Head::Linear, key(1, &[])).unwrap());
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    assert_eq!(config["id2label"].as_object().unwrap().len(), 1);
}

#[test]
fn tied_folder_may_repeat_the_embedding_but_not_differ_from_it() {
    let folder = tempfile::tempdir().unwrap();
    copy("untied", folder.path());
    let path = folder.path().join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    edit(folder.path(), |v| v["tie_word_embeddings"] = json!(true));
    let error = Network::open(folder.path(), Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight differs from the embedding"), "{error}");
    let embedding = tensors.iter().find(|(name, _)| name == "model.embed_tokens.weight").unwrap().1.copy();
    tensors.iter_mut().find(|(name, _)| name == "lm_head.weight").unwrap().1 = embedding;
    Tensor::write_safetensors(&tensors, &path).unwrap();
    Network::open(folder.path(), Kind::Float, Device::Cpu).unwrap();
}

fn edit(folder: &Path, change: impl Fn(&mut Value)) {
    edit_file(&folder.join("config.json"), change);
}

fn edit_file(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

fn edit_tensors(folder: &Path, change: impl Fn(&mut Vec<(String, Tensor)>)) {
    let path = folder.join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    change(&mut tensors);
    Tensor::write_safetensors(&tensors, &path).unwrap();
}

fn tensor<'a>(tensors: &'a mut [(String, Tensor)], name: &str) -> &'a mut Tensor {
    &mut tensors.iter_mut().find(|(other, _)| other == name).unwrap().1
}

/// A safetensors file with this header and so many bytes of data.
fn raw(folder: &Path, header: &str, data: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

const UP: &str = "model.layers.1.mlp.up_proj.weight";

#[test]
fn bad_folders_give_one_clear_line_each() {
    type Case = (&'static str, &'static str, fn(&Path), &'static [&'static str]);
    let cases: Vec<Case> = vec![
        // config.json
        (
            "no config",
            "untied",
            |f| std::fs::remove_file(f.join("config.json")).unwrap(),
            &["config.json", "cannot read"],
        ),
        (
            "not JSON",
            "untied",
            |f| std::fs::write(f.join("config.json"), "{\"a\": ").unwrap(),
            &["config.json", "not valid JSON", "line 1"],
        ),
        ("a list", "untied", |f| std::fs::write(f.join("config.json"), "[]").unwrap(), &["config.json", "object"]),
        (
            "other model",
            "untied",
            |f| edit(f, |v| v["architectures"] = json!(["OPTForCausalLM"])),
            &["config.json: architectures", "OPTForCausalLM", "LlamaForCausalLM"],
        ),
        (
            "architecture of a wrong type",
            "untied",
            |f| edit(f, |v| v["architectures"] = json!("x")),
            &["architectures"],
        ),
        (
            "no size",
            "untied",
            |f| edit(f, |v| drop(v.as_object_mut().unwrap().remove("hidden_size"))),
            &["config.json: hidden_size: missing"],
        ),
        (
            "text for a size",
            "untied",
            |f| edit(f, |v| v["vocab_size"] = json!("64")),
            &["vocab_size", "\"64\"", "whole number"],
        ),
        ("huge size", "untied", |f| edit(f, |v| v["vocab_size"] = json!(1u64 << 40)), &["vocab_size", "whole number"]),
        ("no layers", "untied", |f| edit(f, |v| v["num_hidden_layers"] = json!(0)), &["num_hidden_layers", "0"]),
        (
            "heads",
            "untied",
            |f| edit(f, |v| v["num_key_value_heads"] = json!(3)),
            &["num_key_value_heads", "3 does not divide"],
        ),
        ("odd head", "untied", |f| edit(f, |v| v["head_dim"] = json!(7)), &["head_dim", "7 is odd"]),
        (
            "indivisible",
            "tied",
            |f| edit(f, |v| v["hidden_size"] = json!(18)),
            &["hidden_size", "18 is not a multiple"],
        ),
        ("epsilon", "untied", |f| edit(f, |v| v["rms_norm_eps"] = json!(-1)), &["rms_norm_eps", "positive"]),
        (
            "rope",
            "untied",
            |f| edit(f, |v| v["rope_scaling"] = json!({"rope_type": "llama3"})),
            &["rope_scaling.factor", "missing"],
        ),
        (
            "new rope",
            "untied",
            |f| edit(f, |v| v["rope_parameters"] = json!({"rope_type": "ntk"})),
            &["rope_parameters.rope_type", "ntk", "default"],
        ),
        ("bias", "untied", |f| edit(f, |v| v["attention_bias"] = json!(true)), &["q_proj.bias", "missing", "[32]"]),
        ("activation", "untied", |f| edit(f, |v| v["hidden_act"] = json!("gelu")), &["hidden_act", "gelu", "silu"]),
        ("quantised", "untied", |f| edit(f, |v| v["quantization_config"] = json!({})), &["quantization_config"]),
        ("type", "untied", |f| edit(f, |v| v["dtype"] = json!("float8")), &["dtype", "float8", "bfloat16"]),
        ("eos", "untied", |f| edit(f, |v| v["eos_token_id"] = json!(64)), &["eos_token_id", "64", "vocab_size"]),
        (
            "generation",
            "untied",
            |f| std::fs::write(f.join("generation_config.json"), "?").unwrap(),
            &["generation_config.json", "JSON"],
        ),
        // weight files
        (
            "no weights",
            "untied",
            |f| std::fs::remove_file(f.join("model.safetensors")).unwrap(),
            &["no model.safetensors"],
        ),
        (
            "pickle",
            "untied",
            |f| std::fs::rename(f.join("model.safetensors"), f.join("pytorch_model.bin")).unwrap(),
            &["pytorch_model.bin", "refused", "save_pretrained"],
        ),
        (
            "empty file",
            "untied",
            |f| std::fs::write(f.join("model.safetensors"), "").unwrap(),
            &["model.safetensors", "0 of 8 bytes"],
        ),
        (
            "renamed pickle",
            "untied",
            |f| std::fs::write(f.join("model.safetensors"), b"PK\x03\x04 and the rest of a zip").unwrap(),
            &["model.safetensors", "pickle", "refused", "safe_serialization=True"],
        ),
        (
            "Git LFS pointer",
            "untied",
            |f| std::fs::write(f.join("model.safetensors"), "version https://git-lfs.github.com/spec/v1\n").unwrap(),
            &["model.safetensors", "git lfs pull"],
        ),
        ("long header", "untied", |f| raw(f, &" ".repeat(20), 0), &["model.safetensors", "not a valid safetensors"]),
        (
            "no header",
            "untied",
            |f| std::fs::write(f.join("model.safetensors"), vec![255; 64]).unwrap(),
            &["model.safetensors", "not a valid safetensors"],
        ),
        ("bad header", "untied", |f| raw(f, "{\"a\":", 0), &["model.safetensors", "not a valid safetensors"]),
        (
            "header that overflows",
            "untied",
            |f| raw(f, r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#, 4),
            &["model.safetensors", "not a valid safetensors"],
        ),
        (
            // The sum of sizes is 2^64 - 1, to which the format's own reader adds the header without a check.
            "sizes that overflow together",
            "untied",
            |f| {
                let one = 1u64 << 60;
                let tensor = |i: u64| {
                    let (start, end) = (i * one, if i == 15 { u64::MAX } else { (i + 1) * one });
                    let size = end - start;
                    format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
                };
                raw(f, &format!("{{{}}}", (0..16).map(tensor).collect::<Vec<_>>().join(",")), 4)
            },
            &["model.safetensors", "not a valid safetensors", "overflow"],
        ),
        (
            "tensors that overlap",
            "untied",
            |f| {
                let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#;
                raw(f, header, 6)
            },
            &["model.safetensors", "not a valid safetensors", "invalid offset", "`b`"],
        ),
        (
            "a size that lies",
            "untied",
            |f| raw(f, r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            &["model.safetensors", "not a valid safetensors"],
        ),
        (
            "one name twice",
            "untied",
            |f| {
                let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
                raw(f, header, 8)
            },
            &["model.safetensors", "not a valid safetensors"],
        ),
        (
            "bytes after the last tensor",
            "untied",
            |f| raw(f, r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 9),
            &["model.safetensors", "5 bytes after the last tensor"],
        ),
        (
            "header beyond the file",
            "untied",
            |f| raw(f, r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 4),
            &["model.safetensors", "cut short", "copied in full"],
        ),
        (
            "cut short",
            "untied",
            |f| {
                let path = f.join("model.safetensors");
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            },
            &["model.safetensors", "copied in full"],
        ),
        (
            "a folder",
            "untied",
            |f| {
                std::fs::remove_file(f.join("model.safetensors")).unwrap();
                std::fs::create_dir(f.join("model.safetensors")).unwrap();
            },
            &["model.safetensors"],
        ),
        // tensors
        (
            "missing",
            "untied",
            |f| edit_tensors(f, |t| t.retain(|(name, _)| name != UP)),
            &["model.safetensors", UP, "missing", "[40, 24]"],
        ),
        (
            "misshapen",
            "untied",
            |f| edit_tensors(f, |t| *tensor(t, UP) = tensor(t, UP).tr().contiguous()),
            &["model.safetensors", UP, "[24, 40]", "[40, 24]"],
        ),
        (
            "extra",
            "untied",
            |f| edit_tensors(f, |t| t.push(("model.layers.2.x".into(), Tensor::from(1f32)))),
            &["model.layers.2.x", "no place"],
        ),
        (
            "integers",
            "untied",
            |f| edit_tensors(f, |t| *tensor(t, UP) = tensor(t, UP).to_kind(Kind::Int)),
            &[UP, "I32", "BF16"],
        ),
        (
            "NaN",
            "untied",
            |f| edit_tensors(f, |t| drop(tensor(t, UP).view(-1).narrow(0, 7, 1).fill_(f64::NAN))),
            &[UP, "not finite"],
        ),
        (
            "infinity",
            "untied",
            |f| edit_tensors(f, |t| drop(tensor(t, UP).view(-1).narrow(0, 7, 1).fill_(f64::INFINITY))),
            &[UP, "not finite"],
        ),
        (
            "more layers",
            "untied",
            |f| edit(f, |v| v["num_hidden_layers"] = json!(3)),
            &["model.layers.2.input_layernorm.weight", "missing"],
        ),
        (
            "fewer layers",
            "untied",
            |f| edit(f, |v| v["num_hidden_layers"] = json!(1)),
            &["model.layers.1.", "no place"],
        ),
        (
            "two labels",
            "classifier",
            |f| edit_tensors(f, |t| *tensor(t, "score.weight") = Tensor::zeros([2, 16], (Kind::Float, Device::Cpu))),
            &["score.weight", "[2, 16]", "[1, 16]"],
        ),
        // shards
        (
            "no shard",
            "tied",
            |f| std::fs::remove_file(f.join("model-00002-of-00004.safetensors")).unwrap(),
            &["model-00002-of-00004.safetensors", "is missing", "model.safetensors.index.json needs it"],
        ),
        (
            "no map",
            "tied",
            |f| edit_file(&f.join("model.safetensors.index.json"), |v| v["weight_map"] = json!(3)),
            &["model.safetensors.index.json", "weight_map"],
        ),
        (
            "outside of the folder",
            "tied",
            |f| {
                edit_file(&f.join("model.safetensors.index.json"), |v| {
                    v["weight_map"]["model.norm.weight"] = json!("../x.safetensors")
                })
            },
            &["model.safetensors.index.json", "weight_map.model.norm.weight"],
        ),
        (
            "wrong shard",
            "tied",
            |f| {
                edit_file(&f.join("model.safetensors.index.json"), |v| {
                    v["weight_map"]["model.norm.weight"] = json!("model-00001-of-00004.safetensors")
                })
            },
            &["model-00001-of-00004.safetensors", "model.norm.weight is not in this file"],
        ),
        (
            "not in the index",
            "tied",
            |f| {
                edit_file(&f.join("model.safetensors.index.json"), |v| {
                    drop(v["weight_map"].as_object_mut().unwrap().remove("model.norm.weight"))
                })
            },
            &["model.safetensors.index.json", "does not name tensor model.norm.weight", "-of-00004.safetensors"],
        ),
    ];
    for (name, base, change, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        copy(base, folder.path());
        change(folder.path());
        let error = match Network::open(folder.path(), Kind::Float, Device::Cpu) {
            Ok(_) => panic!("{name}: opened"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Model, "{name}: {error}");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{name}: {line:?}");
        for part in parts {
            assert!(line.contains(part), "{name}: {line:?} lacks {part:?}");
        }
    }
    let error = Network::open(Path::new("/nowhere/at/all"), Kind::Float, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all/config.json"), "{error}");
}

#[test]
fn unwritable_folder_is_a_store_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("taken");
    std::fs::write(&file, "").unwrap();
    let error = open("untied", Kind::Float).save(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.to_string().contains("taken"), "{error}");
}
