//! Quantised projections: NF4 against bitsandbytes and against its definition, int8 against plain code, and what a
//! network on them may and may not do.

use std::collections::BTreeMap;
use std::path::Path;

use salmon::draw::key;
use salmon::model::{LoraConfig, Network, QuantizationConfig};
use tch::{Device, Kind, Tensor};

use crate::model_adapters::{recorded, tensors};
use crate::model_fixtures::{distance, fixture, ids, open};
use crate::random_llama;

pub(crate) const NF4: QuantizationConfig =
    QuantizationConfig { load_in_4bit: true, bnb_4bit_use_double_quant: false, load_in_8bit: false };
pub(crate) const DOUBLE: QuantizationConfig = QuantizationConfig { bnb_4bit_use_double_quant: true, ..NF4 };
const INT8: QuantizationConfig =
    QuantizationConfig { load_in_4bit: false, bnb_4bit_use_double_quant: false, load_in_8bit: true };

fn quantized(folder: &Path, quantization: QuantizationConfig) -> Network {
    Network::open_quantized(folder, Kind::Float, Device::Cpu, quantization).unwrap()
}

fn logits(network: &Network, ids: &Tensor) -> Tensor {
    network.logits(&network.hidden(ids).unwrap()).unwrap().detach()
}

#[test]
fn nf4_gives_the_weights_and_logits_of_bitsandbytes() {
    let theirs = tensors("nf4.safetensors");
    let plain = logits(&open("untied", Kind::Float), &theirs["ids"]);
    for (kind, quantization) in [("plain", NF4), ("double", DOUBLE)] {
        let network = quantized(&fixture("untied"), quantization);
        let merged = network.merged().unwrap();
        let mut compared = 0;
        for (name, tensor) in &merged {
            let Some(expected) = theirs.get(&format!("{kind}.{name}")) else { continue };
            // Without double quantisation the same bits; with it, sums of the mean may round differently.
            let most = if kind == "plain" { 0.0 } else { 1e-7 };
            assert!(distance(tensor, expected) <= most, "{kind} {name}: {}", distance(tensor, expected));
            compared += 1;
        }
        assert_eq!(compared, if kind == "plain" { 14 } else { 7 });
        let expected = &theirs[&format!("{kind}.logits")];
        let off = distance(&logits(&network, &theirs["ids"]), expected);
        assert!(off < 3e-5, "{kind}: {off}");
        assert!(distance(&plain, expected) > 0.05, "{kind}: quantising changes nothing");
        let adapted = network.with_adapter(&recorded("all_linear")).unwrap();
        assert!(distance(&logits(&adapted, &theirs["ids"]), &theirs[&format!("{kind}.adapted")]) < 2e-4, "{kind}");
    }
}

/// QLoRA's definition, number by number: the level nearest to `w / absmax` in blocks of 64.
fn slow_nf4(values: &[f32], double: bool) -> Vec<f32> {
    const LEVELS: [f32; 16] = [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ];
    let nearest =
        |x: f32, levels: &[f32]| levels.iter().copied().min_by(|a, b| (a - x).abs().total_cmp(&(b - x).abs())).unwrap();
    let largest = |block: &[f32]| block.iter().fold(0f32, |most, x| most.max(x.abs()));
    let mut scales: Vec<f32> = values.chunks(64).map(largest).collect();
    let rounded: Vec<f32> = values
        .chunks(64)
        .zip(&scales)
        .flat_map(|(block, &scale)| block.iter().map(move |x| if scale > 0.0 { x * (1.0 / scale) } else { 0.0 }))
        .map(|x| nearest(x, &LEVELS))
        .collect();
    if double {
        // The signed dynamic map: 2^e steps between .1 and 1 for every power 10^(e - 6), 0 and 1.
        let mut map = vec![0f32, 1.0];
        for e in 0..7 {
            let edge = |i: i32| 0.1 + 0.9 * f64::from(i) / f64::from(1 << e);
            let values = (0..1 << e).map(|i| (10f64.powi(e - 6) * (edge(i) + edge(i + 1)) / 2.0) as f32);
            map.extend(values.flat_map(|x| [x, -x]));
        }
        assert_eq!(map.len(), 256);
        let mean = (scales.iter().map(|&s| f64::from(s)).sum::<f64>() / scales.len() as f64) as f32;
        let centred: Vec<f32> = scales.iter().map(|s| s - mean).collect();
        let groups = centred.chunks(256);
        scales = groups
            .flat_map(|group| {
                let scale = largest(group);
                let map = &map;
                group.iter().map(move |s| nearest(s * (1.0 / scale), map) * scale + mean)
            })
            .collect();
    }
    rounded.chunks(64).zip(&scales).flat_map(|(block, scale)| block.iter().map(move |x| x * scale)).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

/// A model whose matrices have more than one group of 256 blocks, and a last block that is not full.
fn larger(folder: &Path) {
    let texts = ["the quick brown fox jumps over the lazy dog".to_string()];
    random_llama::write(folder, &texts, random_llama::Shape { vocab: 280, hidden: 88, layers: 1, context: 32 }, 5)
        .unwrap();
}

#[test]
fn nf4_is_its_definition() {
    let folder = tempfile::tempdir().unwrap();
    larger(folder.path());
    let plain = Network::open(folder.path(), Kind::Float, Device::Cpu).unwrap().merged().unwrap();
    for (double, quantization) in [(false, NF4), (true, DOUBLE)] {
        let found = quantized(folder.path(), quantization).merged().unwrap();
        for (name, weight) in &plain {
            if !name.ends_with("_proj.weight") {
                assert!(weight.equal(&found[name]), "{name} is not a projection");
                continue;
            }
            let (expected, found) = (slow_nf4(&values(weight), double), values(&found[name]));
            let scale = values(weight).iter().fold(0f32, |most, x| most.max(x.abs()));
            // A scale that lies half-way between two steps of the map may go either way.
            let off = expected.iter().zip(&found).filter(|(a, b)| (**a - **b).abs() > 2e-6 * scale).count();
            assert!(
                off <= if double { expected.len() / 200 } else { 0 },
                "{name} {double}: {off} of {}",
                expected.len()
            );
            // The relative error of NF4 on normal numbers (.09, in blocks of 64).
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            let error =
                norm(&mut found.iter().zip(values(weight)).map(|(a, b)| a - b)) / norm(&mut values(weight).into_iter());
            assert!((0.085..0.1).contains(&error), "{name}: {error}");
        }
    }
}

#[test]
fn int8_is_a_whole_number_times_a_scale_per_output() {
    let folder = tempfile::tempdir().unwrap();
    larger(folder.path());
    let plain = Network::open(folder.path(), Kind::Float, Device::Cpu).unwrap().merged().unwrap();
    let network = quantized(folder.path(), INT8);
    let found = network.merged().unwrap();
    for (name, weight) in plain.iter().filter(|(name, _)| name.ends_with("_proj.weight")) {
        let width = weight.size()[1] as usize;
        for (row, found) in values(weight).chunks(width).zip(values(&found[name]).chunks(width)) {
            let scale = row.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
            for (x, y) in row.iter().zip(found) {
                assert!((x - y).abs() <= 0.5001 * scale, "{name}: {x} became {y}");
                assert!((y / scale - (y / scale).round()).abs() < 1e-3, "{name}: {y} is no multiple of {scale}");
            }
        }
    }
    // The forward pass is that of a plain model with these weights.
    let whole = Network::from_tensors(network.config().clone(), found, BTreeMap::new()).unwrap();
    let text = ids(&[&[3, 14, 15, 9, 26, 5, 35], &[8, 9, 7, 9, 3, 23, 8]]);
    assert!(distance(&logits(&network, &text), &logits(&whole, &text)) < 1e-5);
}

#[test]
fn gradients_go_through_quantised_weights() {
    let lora = LoraConfig { r: 3, lora_alpha: 6.0, ..LoraConfig::default() };
    let text = ids(&[&[3, 14, 15, 9, 26, 5, 35], &[8, 9, 7, 9, 3, 23, 8]]);
    for quantization in [NF4, DOUBLE, INT8] {
        let network = quantized(&fixture("untied"), quantization);
        // The same numbers in a network that is not quantised.
        let whole =
            Network::from_tensors(network.config().clone(), network.merged().unwrap(), BTreeMap::new()).unwrap();
        let gradients = |base: &Network| {
            let network = base.with_adapter(&recorded("all_linear")).unwrap();
            network.log_probs(&text).unwrap().mean(Kind::Float).backward();
            network.trainable().into_iter().map(|(name, tensor)| (name, tensor.grad())).collect::<Vec<_>>()
        };
        for ((name, found), (_, expected)) in gradients(&network).iter().zip(gradients(&whole)) {
            assert!(found.abs().max().double_value(&[]) > 0.0, "{name} has no gradient");
            assert!(distance(found, &expected) < 1e-6, "{name}: {}", distance(found, &expected));
        }
        let fresh = network.with_lora(&lora, key(1, &[])).unwrap();
        assert!(logits(&fresh, &text).equal(&logits(&network, &text)));
    }
}

#[test]
fn quantised_weights_do_not_train_and_settings_must_fit() {
    let error = quantized(&fixture("untied"), DOUBLE).with_full_training().unwrap_err().to_string();
    assert!(error.contains("quantised weights do not train"), "{error}");
    let both = QuantizationConfig { load_in_8bit: true, ..NF4 };
    let error = Network::open_quantized(&fixture("untied"), Kind::Float, Device::Cpu, both).unwrap_err().to_string();
    assert!(error.contains("choose one"), "{error}");
    for (set, says) in [
        ("model.quantization_config.load_in_4bit=true", "add a section [model.lora]"),
        ("model.quantization_config.bnb_4bit_use_double_quant=true", "is for load_in_4bit"),
        ("model.quantization_config.bnb_4bit_quant_type=\"nf4\"", "unknown field"),
    ] {
        let error = salmon::config::parse("salmon.toml", "", &[set.to_string()]).unwrap_err().to_string();
        assert!(error.contains(says), "{set}: {error}");
    }
}

#[test]
fn bytes_are_those_of_the_tensors() {
    // 88 x 264 numbers: 363 blocks of 64, two groups of 256.
    assert_eq!(NF4.bytes(264, 88, 4), 363 * 36);
    assert_eq!(DOUBLE.bytes(264, 88, 4), 363 * 33 + 4 * (2 + 1));
    assert_eq!(INT8.bytes(264, 88, 4), 264 * 88 + 4 * 264);
    assert_eq!(QuantizationConfig::default().bytes(264, 88, 2), 264 * 88 * 2);
    // 4.13 bits a number in large matrices, as in the paper.
    assert!((DOUBLE.bytes(8192, 8192, 2) as f64 * 8.0 / 8192f64.powi(2) - 4.127).abs() < 1e-3);
}
