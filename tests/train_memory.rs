//! What saves memory leaves results alone: gradient checkpointing gives the same bits, trainers on a quantised base go on
//! from a checkpoint as if they had never stopped, bfloat16 trains 32-bit masters.

use salmon::draw::key;
use salmon::model::{Head, LoraConfig, Network, QuantizationConfig};
use salmon::train::config::{PpoConfig, RewardConfig, SftConfig};
use salmon::train::ppo::{PpoTrainer, Row};
use salmon::train::reward::{PairExample, RewardTrainer};
use salmon::train::sft::{Example, SftTrainer};
use tch::{Device, Kind, Tensor};

use crate::model_quantized::DOUBLE;
use crate::train_fixtures::{bits, files, network, run, tokens};

fn lora() -> LoraConfig {
    LoraConfig { r: 4, lora_alpha: 8.0, ..LoraConfig::default() }
}

/// The tiny network as a folder, opened again.
fn opened(seed: u64, kind: Kind, quantization: QuantizationConfig) -> Network {
    let folder = tempfile::tempdir().unwrap();
    network(seed).save(folder.path()).unwrap();
    Network::open_quantized(folder.path(), kind, Device::Cpu, quantization).unwrap()
}

/// Loss and gradients of one backward pass.
fn gradients(network: &Network, checkpointing: bool) -> Vec<(String, Tensor)> {
    let network = network.replicate().unwrap().with_gradient_checkpointing(checkpointing);
    let ids = Tensor::from_slice(&[3i64, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]).view([2, 6]);
    let loss = network.log_probs(&ids).unwrap().mean(Kind::Float)
        + network.scores(&network.hidden(&ids).unwrap()).unwrap().mean(Kind::Float);
    loss.backward();
    let mut out: Vec<(String, Tensor)> = network.trainable().into_iter().map(|(name, t)| (name, t.grad())).collect();
    out.push(("loss".into(), loss.detach()));
    out
}

#[test]
fn gradient_checkpointing_gives_the_same_bits() {
    let plain = QuantizationConfig::default();
    let adapted = |base: Network| base.with_lora(&lora(), key(1, &[])).unwrap();
    let networks = [
        ("LoRA", adapted(opened(1, Kind::Float, plain))),
        ("LoRA on NF4", adapted(opened(1, Kind::Float, DOUBLE))),
        ("LoRA on bfloat16", adapted(opened(1, Kind::BFloat16, plain))),
        ("all weights", opened(1, Kind::Float, plain).with_full_training().unwrap()),
        ("all weights in bfloat16", opened(1, Kind::BFloat16, plain).with_full_training().unwrap()),
    ];
    for (what, network) in networks {
        let network = network.with_head(Head::Linear, key(2, &[])).unwrap();
        let (kept, again) = (gradients(&network, false), gradients(&network, true));
        assert_eq!(kept.len(), again.len());
        let mut any = 0.0;
        for ((name, kept), (_, again)) in kept.iter().zip(&again) {
            assert_eq!(kept.defined(), again.defined(), "{what}: {name}");
            assert!(kept.equal(again), "{what}: {name} differs");
            any += kept.abs().max().double_value(&[]);
        }
        assert!(any > 0.0, "{what}");
    }
}

/// Three steps at once, and three trainers of a step each from checkpoint to checkpoint: the same bits and files.
fn resumes<T>(
    make: impl Fn() -> T,
    step: impl Fn(&mut T, u64),
    save: impl Fn(&T, &std::path::Path),
    restore: impl Fn(&mut T, &std::path::Path) -> bool,
    trained: impl Fn(&T) -> &Network,
) {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = make();
    let before = bits(trained(&one));
    (0..3).for_each(|i| step(&mut one, i));
    save(&one, whole.path());
    let mut last = None;
    for i in 0..3 {
        let mut part = make();
        assert_eq!(restore(&mut part, parts.path()), i > 0);
        step(&mut part, i);
        save(&part, parts.path());
        last = Some(bits(trained(&part)));
    }
    assert_ne!(before, bits(trained(&one)), "nothing was learned");
    assert_eq!(last, Some(bits(trained(&one))));
    assert_eq!(files(whole.path()), files(parts.path()));
}

/// An adapter on the quantised base.
fn qlora(name: &str) -> Network {
    opened(1, Kind::BFloat16, DOUBLE).with_lora(&lora(), key(1, &[name])).unwrap()
}

#[test]
fn qlora_fine_tuning_resumes_bit_for_bit() {
    let config =
        SftConfig { learning_rate: 1e-2, micro_batch_tokens: 32, gradient_checkpointing: true, ..SftConfig::default() };
    let example = |i: u64| Example::answer(&tokens(key(i, &["p"]), 4), &tokens(key(i, &["a"]), 5));
    resumes(
        || SftTrainer::new(qlora("sft"), config.clone(), run(3, 2)).unwrap(),
        |trainer, i| {
            let examples: Vec<Example> = (0..6).map(|row| example(10 * i + row)).collect();
            drop(trainer.step(&examples.iter().collect::<Vec<_>>()).unwrap());
        },
        |trainer, folder| trainer.save(folder).unwrap(),
        |trainer, folder| trainer.restore(folder).unwrap(),
        |trainer| trainer.network(),
    );
}

#[test]
fn qlora_reward_training_resumes_bit_for_bit() {
    let config = RewardConfig {
        learning_rate: 1e-2,
        micro_batch_tokens: 32,
        gradient_checkpointing: true,
        ..RewardConfig::default()
    };
    let pair = |i: u64| PairExample { chosen: tokens(key(i, &["c"]), 7), rejected: tokens(key(i, &["r"]), 5) };
    resumes(
        || {
            let network = qlora("reward").with_head(Head::Linear, key(3, &[])).unwrap();
            RewardTrainer::new(network, config.clone(), run(3, 2)).unwrap()
        },
        |trainer, i| {
            let pairs: Vec<PairExample> = (0..6).map(|row| pair(10 * i + row)).collect();
            drop(trainer.step(&pairs.iter().collect::<Vec<_>>()).unwrap());
        },
        |trainer, folder| trainer.save(folder).unwrap(),
        |trainer, folder| trainer.restore(folder).unwrap(),
        |trainer| trainer.network(),
    );
}

#[test]
fn qlora_ppo_resumes_bit_for_bit_and_checkpointing_changes_nothing() {
    let config = PpoConfig { learning_rate: 1e-2, batch_size: 8, micro_batch_tokens: 64, ..PpoConfig::default() };
    let make = |gradient_checkpointing: bool| {
        let base = opened(1, Kind::Float, DOUBLE);
        let adapter = |name: &str| base.with_lora(&lora(), key(1, &[name])).unwrap();
        let value = adapter("value").with_head(Head::Linear, key(3, &[])).unwrap();
        let config = PpoConfig { gradient_checkpointing, ..config.clone() };
        PpoTrainer::new(adapter("policy"), adapter("reference"), value, config, run(3, 2)).unwrap()
    };
    let step = |trainer: &mut PpoTrainer, i: u64| {
        let row = |n: u64| Row {
            query_ids: tokens(key(100 * i + n, &["q"]), 4),
            response_ids: tokens(key(100 * i + n, &["a"]), 6),
            reward: key(100 * i + n, &["r"]).normal(0),
        };
        drop(trainer.step(&(0..8).map(row).collect::<Vec<_>>()).unwrap());
    };
    resumes(
        || make(true),
        step,
        |trainer, folder| trainer.save(folder).unwrap(),
        |trainer, folder| trainer.restore(folder).unwrap(),
        |trainer| trainer.policy(),
    );
    let (mut kept, mut again) = (make(false), make(true));
    for i in 0..2 {
        step(&mut kept, i);
        step(&mut again, i);
    }
    assert_eq!((bits(kept.policy()), bits(kept.value())), (bits(again.policy()), bits(again.value())));
}

#[test]
fn bfloat16_trains_32_bit_masters() {
    let base = opened(1, Kind::BFloat16, QuantizationConfig::default());
    let config = SftConfig { learning_rate: 1e-6, ..SftConfig::default() };
    let example = Example::answer(&tokens(key(1, &["p"]), 4), &tokens(key(1, &["a"]), 5));
    let mut trainer = SftTrainer::new(base.with_full_training().unwrap(), config, run(100, 1)).unwrap();
    let before = bits(trainer.network());
    for _ in 0..3 {
        trainer.step(&[&example]).unwrap();
    }
    assert!(trainer.network().trainable().iter().all(|(_, tensor)| tensor.kind() == Kind::Float));
    // Steps far below what bfloat16 resolves still add up.
    let after = bits(trainer.network());
    let moved = before.iter().filter(|(name, values)| after[*name] != **values).count();
    assert_eq!(moved, before.len());
    let folder = tempfile::tempdir().unwrap();
    trainer.network().save(folder.path()).unwrap();
    let saved = Tensor::read_safetensors(folder.path().join("model.safetensors")).unwrap();
    assert!(saved.iter().all(|(_, tensor)| tensor.kind() == Kind::BFloat16));
}
